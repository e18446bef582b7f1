# In a lab: the disk of node3, which is a small one (M), fills up and is emptied again.
pressed() { [ "$(kubectl get node node3 -o jsonpath='{.status.conditions[?(@.type=="DiskPressure")].status} {.spec.taints[?(@.key=="node.kubernetes.io/disk-pressure")].effect}')" = "$1" ]; }
pressed 'False '
kubectl create deployment keep --image=alpine --replicas=2 -o json --dry-run=client -- sh -c 'trap exit TERM; while :; do sleep 1; done' | jq '.spec.template.spec.nodeName="node3"' | kubectl apply -f - && retry 60 ready deploy keep 2
kubectl get pods -l app=keep -o jsonpath='{.items[*].metadata.uid}' >$TMP/keep
# To the last byte.
node3 sh -c 'dd if=/dev/zero of=/var/lib/coracle/filler bs=64k 2>/dev/null; [ "$(df --output=avail /var/lib/coracle | tail -1)" -lt 1024 ]'
retry 60 pressed 'True NoSchedule' && retry 30 eval 'kubectl get events --field-selector involvedObject.name=node3 -A | shows NodeHasDiskPressure'
# No pods come that are not there; those that are there run on.
kubectl create deployment come --image=alpine --replicas=4 -- sh -c 'trap exit TERM; while :; do sleep 1; done' && retry 60 ready deploy come 4 && [ -z "$(kubectl get pods -l app=come --field-selector spec.nodeName=node3 -o name)" ]
[ "$(kubectl get pods -l app=keep -o jsonpath='{.items[*].metadata.uid}')" = "$(cat $TMP/keep)" ] && ready deploy keep 2 && kubectl exec deploy/keep -- true
node3 rm /var/lib/coracle/filler && retry 60 pressed 'False ' && retry 30 eval 'kubectl get events --field-selector involvedObject.name=node3 -A | shows NodeHasNoDiskPressure'
kubectl scale deploy/keep --replicas=4 && retry 60 ready deploy keep 4 && kubectl delete deploy/keep deploy/come && retry 60 gone pods -l 'app in (keep,come)'
