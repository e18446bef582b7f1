# Coracle dies; its pods do not notice.
kubectl create deployment clock --image=alpine -- sh -c 'while true; do date +%s; sleep 1; done' && retry 30 ready deploy clock 1
pods_of() { kubectl get pods -o jsonpath='{range .items[*]}{.metadata.name} {.metadata.uid} {range .status.containerStatuses[*]}{.containerID} {.restartCount}{end}{"\n"}{end}' | sort; }
retry 40 sh -c '! kubectl get pods --no-headers | grep -q Terminating'
pods_of >$TMP/before && grep -q clock $TMP/before
kill -9 "$(cat $PIDFILE)" && retry 5 sh -c "! kubectl get --raw /readyz --request-timeout=1s"
sleep 3; coracle up --detach --node-name node1 --data-dir $DATA
retry 20 sh -c '[ "$(kubectl get nodes --no-headers | grep -cw Ready)" = 1 ]'
sleep 3; pods_of >$TMP/after; diff $TMP/before $TMP/after
# The log has every second, those without Coracle too, and goes on.
retry 5 sh -c 'kubectl logs deploy/clock --since=2s | grep -q .'
kubectl logs deploy/clock | awk 'NR>1 && $1-last>2 {bad=1; print "gap", last, $1} {last=$1} END{exit bad||NR<5}'
[ "$(timeout 4 kubectl logs deploy/clock --tail 1 --follow | wc -l)" -ge 2 ]
curl -fsS -m5 -o /dev/null http://127.0.0.1:30001/json && inpod alpine nslookup redis.default.svc.cluster.local
kubectl delete deploy/clock && retry 60 gone pods -l app=clock
