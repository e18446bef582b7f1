# A first Deployment: logs, scale, delete. 8.8.8.8 answers in here: run.sh gives it to this machine.
kubectl create deployment pingpong --image=alpine -- ping 8.8.8.8
retry 30 ready deploy pingpong 1
kubectl get all | shows '^replicaset.apps/pingpong-' && kubectl get all | shows '^deployment.apps/pingpong'
retry 5 sh -c "kubectl logs deploy/pingpong | head -1 | grep -q '^PING '"
[ "$(timeout 5 kubectl logs deploy/pingpong --tail 1 --follow | wc -l)" -ge 3 ]
kubectl scale deploy/pingpong --replicas 8 && retry 60 ready deploy pingpong 8
[ "$(kubectl get pods -l app=pingpong -o jsonpath='{range .items[*]}{.spec.nodeName}{"\n"}{end}' | sort -u | wc -l)" -eq $NODES ]
V=$(kubectl get pods -l app=pingpong -o name | head -1); [ -n "$V" ]
timeout 60 kubectl get pods -w >$TMP/watch.log & WATCH=$!
retry 5 test -s $TMP/watch.log; kubectl delete "$V" --wait=false && retry 20 ready deploy pingpong 8
RS=$(kubectl get rs -l app=pingpong -o name); kubectl scale "$RS" --replicas 3; retry 15 sh -c "[ \$(kubectl get $RS -o jsonpath='{.spec.replicas}') = 8 ]" && retry 30 ready deploy pingpong 8
retry 60 gone "$V" && retry 20 ready deploy pingpong 8
[ "$(wc -l <$TMP/watch.log)" -ge 10 ]; local enough=$?; kill $WATCH; wait $WATCH; [ $enough -eq 0 ]
retry 40 count 8 pods -l app=pingpong && retry 10 sh -c '[ "$(kubectl logs -l app=pingpong --tail 1 --max-log-requests 10 | wc -l)" -eq 8 ]'
kubectl create job once --image=alpine -- true && kubectl wait --for=condition=complete job/once --timeout=60s && kubectl delete job once
! kubectl run x --image=alpine --replicas=2 2>$TMP/e && grep -q 'unknown flag: --replicas' $TMP/e
# ping does not heed SIGTERM: its thirty seconds were seen above.
kubectl delete deploy/pingpong && kubectl delete pods -l app=pingpong --grace-period=1 --ignore-not-found && retry 60 gone pods -l app=pingpong
# The lesson's words of 2018, in the classic dialect of our kubectl.
classic() { KUBECTL_DIALECT=classic coracle kubectl "$@"; }
classic run pingpong --image alpine ping 8.8.8.8 2>$TMP/e && grep -q DEPRECATED $TMP/e && retry 30 ready deploy pingpong 1
classic scale deploy/pingpong --replicas 2 && retry 30 ready deploy pingpong 2 && retry 10 sh -c '[ "$(kubectl logs -l run=pingpong --tail 1 | wc -l)" -eq 2 ]'
classic get deploy/pingpong -o yaml --export >$TMP/exported.yml 2>$TMP/e && kubectl delete deploy/pingpong && kubectl delete pods -l run=pingpong --grace-period=1 --ignore-not-found && retry 60 gone pods -l run=pingpong
kubectl create -f $TMP/exported.yml && retry 30 ready deploy pingpong 2 && kubectl delete deploy/pingpong && kubectl delete pods -l run=pingpong --grace-period=1 --ignore-not-found && retry 60 gone pods -l run=pingpong
