# In a lab: what goes wrong with machines and cables. Counts hold when the fault ends, nothing runs twice that must not, and the events tell the story.
not_ready() { kubectl get node "$1" --no-headers | grep -q ' NotReady'; }
is_ready() { kubectl get node "$1" --no-headers | grep -qE " Ready( |$)"; }
# Three kinds of pods: `stay` tolerates an absent node for five minutes, as all do; `move` and `db` for five seconds. Each process says in its command line whose it is.
pods() { cat <<YAML
apiVersion: apps/v1
kind: $1
metadata: {name: $2}
spec:
  replicas: $3
  selector: {matchLabels: {app: $2}}
  template:
    metadata: {labels: {app: $2}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: c
        image: alpine
        env: [{name: WHO, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
        command: [sh, -c, "trap exit TERM; while :; do sleep 1; done", \$(WHO)]
      tolerations: $4
YAML
}
SOON='[{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 5}, {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 5}]'
{ pods Deployment stay 4 '[]'; echo ---; pods Deployment move 4 "$SOON"; echo ---; pods StatefulSet db 4 "$SOON"; } | sed '/^kind: StatefulSet/,$ s/^spec:/spec:\n  podManagementPolicy: Parallel\n  serviceName: db/' >$TMP/faults.yaml; kubectl apply -f $TMP/faults.yaml
whole() { ready deploy stay 4 && ready deploy move 4 && ready sts db 4 && count 12 pods -l 'app in (stay,move,db)'; }
retry 60 whole
containers() { kubectl get pods -l "$1" --field-selector spec.nodeName=$2 -o jsonpath='{range .items[*]}{.metadata.name} {.metadata.uid} {.status.containerStatuses[0].containerID}{"\n"}{end}' | sort; }
# How many processes there are of a pod's name, on all nodes.
processes() { { grep -lzx "$1" /proc/[0-9]*/cmdline; node2 sh -c "grep -lzx $1 /proc/[0-9]*/cmdline"; } 2>/dev/null | wc -l; }
ones() { local n; for n in 0 1 2 3; do [ "$(processes db-$n)" = 1 ] || return 1; done; }
# A shell that has forked and not yet become `sleep` is two for an instant.
once() { retry 10 ones; }
settled() { whole && once && [ -z "$(kubectl get pods -l 'app in (stay,move,db)' -o jsonpath='{.items[*].metadata.deletionTimestamp}')" ]; }
settled && [ "$(kubectl get pods -l app=db -o jsonpath='{range .items[*]}{.spec.nodeName}{"\n"}{end}' | sort -u | wc -l)" = 2 ]
events() { kubectl get events -o jsonpath='{range .items[*]}{.involvedObject.kind}/{.involvedObject.name} {.reason}{"\n"}{end}' --field-selector "$1"; }

# A cable is pulled. What tolerates it stays, what does not moves, and a StatefulSet's pod is not started elsewhere while it may still run.
containers app=stay node2 >$TMP/stay && containers app=db node2 >$TMP/db && [ -s $TMP/stay ] && [ -s $TMP/db ]
lab cut node2 && retry 120 not_ready node2
retry 30 eval 'events involvedObject.name=node2 | shows "Node/node2 NodeNotReady"'
retry 60 sh -c '[ "$(kubectl get pods -l app=move --field-selector spec.nodeName=node1 --no-headers | grep -c Running)" = 4 ]' && retry 30 ready deploy move 4
retry 30 sh -c '[ "$(kubectl get pods -l app=db --field-selector spec.nodeName=node2 --no-headers | grep -c Terminating)" = "$(wc -l <'$TMP/db')" ]'
containers app=db node2 | diff $TMP/db - && once && containers app=stay node2 | diff $TMP/stay -
retry 30 eval 'kubectl get events -o jsonpath="{.items[*].reason}" | shows TaintManagerEviction'
lab heal && retry 90 is_ready node2 && retry 90 settled
containers app=stay node2 | diff $TMP/stay -
retry 30 eval 'events involvedObject.name=node2 | shows "Node/node2 NodeReady"'

# Of three packets one is lost, each way: slow, but nothing is given up, and what is asked for comes to be.
lab slow node2 --loss 30%
pods Deployment far 2 '[]' | sed 's/^      containers:/      nodeSelector: {kubernetes.io\/hostname: node2}\n      containers:/' | kubectl apply -f - && retry 300 ready deploy far 2
retry 120 kubectl exec deploy/far --request-timeout=20s -- true
lab heal && retry 90 is_ready node2 && retry 60 settled && ready deploy far 2 && kubectl delete deploy/far && retry 60 gone pods -l app=far

# The power of node2 fails and comes back: the same pods, with new containers, each once.
containers app=db node2 >$TMP/db; [ -s $TMP/db ]
lab kill node2 && ! lab shell node2 -- true && lab start node2
restarted() { kubectl get pods -l "$1" --field-selector spec.nodeName=node2 -o jsonpath='{range .items[*]}{.metadata.name} {.metadata.uid} {.status.containerStatuses[0].restartCount}{"\n"}{end}' | awk '$3<1{exit 1} {print $1, $2}' | sort; }
retry 90 restarted app=db && restarted app=db | diff <(cut -d' ' -f1,2 $TMP/db) - && retry 90 is_ready node2 && retry 60 settled

# The control plane is killed under load and started again. Who was told that something is written finds it; pods notice nothing.
cp /etc/kubernetes/admin.conf $TMP/admin.conf && kubectl create namespace load
{ cat >$TMP/writer.sh <<'SH'
# NAME: makes config maps and counts in one, and notes what it was told.
cd /tmp/e2e/tmp; export KUBECONFIG=/tmp/e2e/tmp/admin.conf
kubectl -n load create configmap count-$1 --from-literal=n=0 >/dev/null
n=0; while [ ! -e stop ]; do
  n=$((n + 1))
  { kubectl -n load create configmap made-$1-$n && echo made-$1-$n >>made-$1 && kubectl -n load patch configmap count-$1 -p "{\"data\":{\"n\":\"$n\"}}" && echo $n >count-$1; } >/dev/null 2>>errors-$1 || echo $n >>failed-$1
done
touch ended-$1
SH
}
give $TMP && node2 bash -c 'setsid bash /tmp/e2e/tmp/writer.sh two </dev/null >/dev/null 2>&1 &' && { setsid bash $TMP/writer.sh one </dev/null & }
# What both have written so far.
written() { { cat $TMP/made-one; node2 cat $TMP/made-two; } 2>/dev/null | wc -l; }
further() { local from=$1; retry 60 eval '[ "$(written)" -ge '$((from + 20))' ]'; }
further 0
pods_of() { kubectl get pods -o jsonpath='{range .items[*]}{.metadata.name} {.metadata.uid} {range .status.containerStatuses[*]}{.containerID} {.restartCount}{end}{"\n"}{end}' | sort; }
pods_of >$TMP/before && grep -q ^db-0 $TMP/before
kill -9 "$(cat /run/coracle/coracle.pid)" && retry 5 sh -c '! kubectl get --raw /readyz --request-timeout=1s' && coracle up --detach >/dev/null
further $(written) && retry 60 is_ready node1 && is_ready node2
pods_of | diff $TMP/before - && once

# Its certificates are made anew while clients are busy: none of them is refused, and new connections see the new one.
served() { curl -sk -o /dev/null -w '%{certs}' https://$(hostname -i):6443/healthz | sed -n '/BEGIN/,/END/p' | md5sum; }
failures() { { cat $TMP/failed-one; node2 cat $TMP/failed-two; } 2>/dev/null | wc -l; }
BEFORE=$(served) FAILED_BEFORE=$(failures); kubeadm certs renew all >$TMP/renew.log && retry 30 sh -c "[ \"\$(curl -sk -o /dev/null -w '%{certs}' https://$(hostname -i):6443/healthz | sed -n '/BEGIN/,/END/p' | md5sum)\" != '$BEFORE' ]"
further $(written) && [ "$(failures)" = "$FAILED_BEFORE" ] && kubectl get nodes >/dev/null
touch $TMP/stop && node2 touch $TMP/stop && retry 20 test -e $TMP/ended-one && retry 20 node2 test -e $TMP/ended-two
# Everything acknowledged is there.
kubectl -n load get configmaps -o name | sed 's/.*\///' | sort >$TMP/there && { cat $TMP/made-one; node2 cat $TMP/made-two; } | sort | comm -23 - $TMP/there | tee $TMP/lost; [ -s $TMP/there ] && [ ! -s $TMP/lost ]
[ "$(kubectl -n load get configmap count-one -o jsonpath='{.data.n}')" -ge "$(cat $TMP/count-one)" ] && [ "$(kubectl -n load get configmap count-two -o jsonpath='{.data.n}')" -ge "$(node2 cat $TMP/count-two)" ]
kubectl delete namespace load >/dev/null

# A joined machine is drained: never more is taken away than a budget allows.
kubectl create poddisruptionbudget move --selector=app=move --min-available=3 && kubectl rollout restart deploy/move && kubectl rollout status deploy/move --timeout=60s
retry 60 count 4 pods -l app=move
(while [ ! -e $TMP/drained ]; do kubectl get deploy move -o jsonpath='{.status.availableReplicas}{"\n"}'; done) >$TMP/available & WATCHER=$!
kubectl drain node2 --ignore-daemonsets --delete-emptydir-data --timeout=120s >$TMP/drain.log; local drained=$?; touch $TMP/drained; wait $WATCHER; [ $drained = 0 ] && awk '$1<3{bad=1} END{exit bad||NR<3}' $TMP/available
[ -z "$(kubectl get pods -l 'app in (stay,move,db)' --field-selector spec.nodeName=node2 -o name)" ] && kubectl get node node2 --no-headers | shows 'Ready,SchedulingDisabled' && retry 10 eval 'events involvedObject.name=node2 | shows NodeNotSchedulable'
kubectl uncordon node2 && kubectl delete pdb/move && retry 60 ready deploy move 4 && retry 10 eval 'events involvedObject.name=node2 | shows NodeSchedulable'
retry 60 settled
kubectl delete -f $TMP/faults.yaml && retry 60 gone pods -l 'app in (stay,move,db)'
