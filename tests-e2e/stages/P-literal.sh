# In a lab, after G: the lesson's words of 2018, in a namespace of their own.
classic() { KUBECTL_DIALECT=classic coracle kubectl -n literal "$@"; }
kubectl create namespace literal
classic run elastic --image=redis --replicas=4 --port=6379 2>/dev/null && retry 60 classic rollout status deploy/elastic --timeout=1s && classic expose deploy/elastic --port 6379
IP=$(classic get svc elastic -o go-template --template '{{ .spec.clusterIP }}'); [ "$(exec 5<>/dev/tcp/$IP/6379; echo PING >&5; head -c5 <&5)" = +PONG ]
classic delete deploy/elastic && classic delete svc/elastic
classic run redis --image=redis 2>/dev/null && for SERVICE in hasher rng webui worker; do classic run $SERVICE --image=$USERNAME/$SERVICE -l app=$SERVICE 2>/dev/null || break; done
for s in redis hasher rng webui worker; do retry 60 classic rollout status deploy/$s --timeout=1s || break; done; classic rollout status deploy/worker --timeout=1s
classic expose deployment redis --port 6379 && classic expose deployment rng --port 80 && classic expose deployment hasher --port 80
retry 30 sh -c "kubectl -n literal logs deploy/worker --since=5s | grep -Eq '[1-9][0-9]* units of work done, updating hash counter'"
# What --export leaves out is what a new object must not have.
classic get deploy/rng -o yaml --export >$TMP/rng.yml 2>/dev/null && sed -i 's/kind: Deployment/kind: DaemonSet/' $TMP/rng.yml
! classic apply -f $TMP/rng.yml 2>$TMP/e && grep -q 'unknown field "spec.replicas"' $TMP/e
classic apply -f $TMP/rng.yml --validate=false && retry 60 sh -c "[ \"\$(kubectl -n literal get ds rng -o jsonpath='{.status.desiredNumberScheduled}/{.status.numberReady}')\" = $NODES/$NODES ]"
[ "$(classic get deploy,ds -o name | grep -c rng)" = 2 ] && retry 10 sh -c "[ \"\$(kubectl -n literal logs -l run=rng --tail 1 | grep -c 'GET /32')\" = $((NODES + 1)) ]"
for kind in OnFailure:job Never:pod; do classic run once-${kind#*:} --image=alpine --restart=${kind%:*} -- true 2>/dev/null && classic get ${kind#*:}/once-${kind#*:} >/dev/null || break; done; classic run tick --image=alpine --restart=OnFailure --schedule='*/1 * * * *' -- date 2>/dev/null && classic get cronjob tick
kubectl delete namespace literal --wait=false
