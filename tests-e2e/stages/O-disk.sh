# In a lab: the disk of node3, which is a small one (M), fills up. The pod that hoards has to go, what it took is free again, and the others run on.
pressed() { [ "$(kubectl get node node3 -o jsonpath='{.status.conditions[?(@.type=="DiskPressure")].status} {.spec.taints[?(@.key=="node.kubernetes.io/disk-pressure")].effect}')" = "$1" ]; }
pressed 'False '
kubectl create deployment keep --image=alpine --replicas=2 -o json --dry-run=client -- sh -c 'trap exit TERM; while :; do sleep 1; done' | jq '.spec.template.spec.nodeName="node3"' | kubectl apply -f - && retry 60 ready deploy keep 2
kubectl get pods -l app=keep -o jsonpath='{.items[*].metadata.uid}' >$TMP/keep
# To the last byte.
kubectl run hoard --image=alpine --restart=Never --overrides='{"spec":{"nodeName":"node3"}}' -- sh -c 'trap exit TERM; dd if=/dev/zero of=/hoard bs=64k; while :; do sleep 1; done'
retry 90 eval '[ "$(kubectl get pod hoard -o jsonpath="{.status.phase} {.status.reason}")" = "Failed Evicted" ]'
kubectl get pod hoard -o jsonpath='{.status.message}' | shows '^The node was low on resource: ephemeral-storage. Threshold quantity: .*, available: .* Container hoard was using .*, request is 0, has larger consumption of ephemeral-storage. $'
retry 30 eval 'kubectl get events --field-selector involvedObject.name=node3 -A | shows NodeHasDiskPressure' && retry 30 eval 'kubectl get events --field-selector involvedObject.name=node3 -A | shows "Attempting to reclaim ephemeral-storage"'
retry 90 pressed 'False ' && retry 30 eval 'kubectl get events --field-selector involvedObject.name=node3 -A | shows NodeHasNoDiskPressure'
[ "$(kubectl get pods -l app=keep -o jsonpath='{.items[*].metadata.uid}')" = "$(cat $TMP/keep)" ] && ready deploy keep 2 && kubectl exec deploy/keep -- true
kubectl scale deploy/keep --replicas=4 && retry 60 ready deploy keep 4 && kubectl delete pod/hoard deploy/keep && retry 60 gone pods -l app=keep
