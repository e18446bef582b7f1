# Rolling updates: a slower worker, a broken one, back again, and a careful one.
cp -r $IMAGES/worker $TMP/worker && sed -i 's/WORK_PAUSE=0.1/WORK_PAUSE=1/' $TMP/worker/Dockerfile && grep -q WORK_PAUSE=1 $TMP/worker/Dockerfile
export TAG=v0.2; built worker:$TAG $TMP/worker
kubectl set image deploy worker worker=$USERNAME/worker:$TAG && kubectl rollout status deploy worker --timeout=120s
retry 60 count 10 pods -l app=worker && between "$(rate "$WEB" $WINDOW)" 7.3 9.2
[ "$(kubectl get rs -l app=worker --no-headers | wc -l)" -eq 2 ]
export TAG=v0.3; kubectl set image deploy worker worker=$USERNAME/worker:$TAG
! kubectl rollout status deploy worker --timeout=15s
retry 10 sh -c "kubectl get pods -l app=worker --no-headers | grep -Eq 'ErrImagePull|ImagePullBackOff'"
retry 60 sh -c '[ "$(kubectl get deploy worker -o jsonpath="{.status.availableReplicas}/{.status.replicas}")" = 8/13 ]'
# The application lives on, a fifth slower.
retry 60 count 13 pods -l app=worker && between "$(rate "$WEB" $WINDOW)" 5.8 7.4
kubectl rollout undo deploy worker && kubectl rollout status deploy worker --timeout=120s
[ "$(kubectl get deploy worker -o jsonpath='{.spec.template.spec.containers[0].image}')" = "$USERNAME/worker:v0.2" ]
kubectl set image deploy worker worker=/worker:v0.3; retry 30 sh -c "kubectl get pods -l app=worker --no-headers | grep -q InvalidImageName"
kubectl rollout undo deploy worker && kubectl rollout status deploy worker --timeout=120s; kubectl rollout history deploy worker | grep -Eq '^[0-9]+'
# Old pods must be older than the new minReadySeconds.
sleep 11
kubectl patch deployment worker -p "
spec:
  template:
    spec:
      containers:
      - name: worker
        image: $USERNAME/worker:latest
  strategy:
    rollingUpdate:
      maxUnavailable: 0
      maxSurge: 3
  minReadySeconds: 10
"
(while [ ! -e $TMP/rolled ]; do kubectl get deploy worker -o jsonpath='{.status.availableReplicas} {.status.replicas}{"\n"}'; sleep 1; done) >$TMP/roll.log & ROLL=$!
T0=$SECONDS; kubectl rollout status deployment worker --timeout=180s; local rolled=$?; touch $TMP/rolled; wait $ROLL; [ $rolled -eq 0 ] && [ $((SECONDS - T0)) -ge 30 ]
awk '$1<10||$2>13{bad=1} END{exit bad||NR<20}' $TMP/roll.log
kubectl get deploy -o json worker | jq -e '.spec.strategy.rollingUpdate=={"maxSurge":3,"maxUnavailable":0} and .spec.minReadySeconds==10' >/dev/null
retry 60 count 10 pods -l app=worker && if [ $NODES = 1 ]; then between "$(rate "$WEB" $WINDOW)" 9.5 10.5; else between "$(rate "$WEB" $WINDOW)" 15 20.5; fi
