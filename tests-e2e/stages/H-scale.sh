# More workers, until rng is the bottleneck. $WINDOW: seconds that a rate is measured for.
kubectl scale deploy/worker --replicas=2 && retry 60 ready deploy worker 2 && sleep 2 && between "$(rate "$WEB" $WINDOW)" 6.33 7.0
kubectl scale deploy/worker --replicas=10 && retry 60 ready deploy worker 10 && sleep 3 && between "$(rate "$WEB" $WINDOW)" 9.5 10.5
