# DockerCoins, from ready images; in a lab from the learner's own: built here, and sent to where every node asks for them.
built() { coracle build --data-dir $DATA -t $USERNAME/$1 $2 >>$TMP/build.log && { [ $NODES = 1 ] || coracle image push $USERNAME/$1 >>$TMP/build.log; }; }
[ $NODES = 1 ] || for SERVICE in hasher rng webui worker; do built $SERVICE:latest $IMAGES/$SERVICE || break; done
kubectl create deployment redis --image=redis
for SERVICE in hasher rng webui worker; do kubectl create deployment $SERVICE --image=$USERNAME/$SERVICE || break; done
for s in redis hasher rng webui worker; do retry 60 ready deploy $s 1 || break; done; ready deploy worker 1
kubectl logs deploy/rng | shows -i 'running on'
# Nothing is exposed yet: the worker must fail.
retry 30 sh -c "kubectl logs deploy/worker | grep -q 'Waiting 10s and restarting.'"
kubectl expose deployment redis --port 6379 && kubectl expose deployment rng --port 80 && kubectl expose deployment hasher --port 80
retry 30 sh -c "kubectl logs deploy/worker --since=5s | grep -Eq '[1-9][0-9]* units of work done, updating hash counter'"
kubectl create service nodeport webui --tcp=80 --node-port=30001
kubectl get svc webui -o jsonpath='{.spec.type} {.spec.ports[0].nodePort} {.spec.selector.app}' | shows -x 'NodePort 30001 webui'
for n in $(seq $NODES); do retry 30 curl -fsS -m5 -o /dev/null "http://$(nodeip node$n):30001/json" || break; done; curl -fsS -m5 -o /dev/null "http://$(nodeip node$NODES):30001/json"
# Node ports on localhost lead to the node's own pods only.
[ $NODES != 1 ] || curl -fsS -m5 -o /dev/null http://127.0.0.1:30001/json
WEB=http://$(nodeip node$NODES):30001; between "$(rate "$WEB" 20)" 3.17 3.5
REDIS=$(kubectl get pod -l app=redis -o name); [ "$(kubectl exec "$REDIS" -- redis-cli type hashes)" = string ] && [ "$(kubectl exec "$REDIS" -- redis-cli type wallet)" = hash ]
inpod alpine nslookup redis.default.svc.cluster.local
