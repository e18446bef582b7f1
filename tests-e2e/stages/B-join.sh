# In a lab: node2 joins, and both nodes take pods.
! node2 ${JOIN%sha256:*}sha256:$(printf '0%.0s' $(seq 64)) >$TMP/e && grep -qi 'hash\|pinned\|public key' $TMP/e
! node2 ${JOIN/--token ??????.????????????????/--token zzzzzz.zzzzzzzzzzzzzzzz} >$TMP/e && grep -qi token $TMP/e
# The order of the lesson of 2018.
TOKEN=$(sed 's/.*--token \([^ ]*\) .*/\1/' <<<"$JOIN") HASH=${JOIN##* --discovery-token-ca-cert-hash }; node2 kubeadm join --token $TOKEN 192.168.0.11:6443 --discovery-token-ca-cert-hash $HASH >$TMP/join.log
grep -q 'This node has joined the cluster:' $TMP/join.log && grep -q "Run 'kubectl get nodes' on the control-plane to see this node join the cluster." $TMP/join.log
retry 30 sh -c '[ "$(kubectl get nodes --no-headers | grep -cw Ready)" = 2 ]'
[ "$(kubectl get nodes -o jsonpath='{range .items[*]}{.metadata.name} {.status.addresses[?(@.type=="InternalIP")].address} {.spec.podCIDR}{"\n"}{end}' | awk 'NF==3' | sort -u -k3 | wc -l)" = 2 ]
kubectl get no node2 --no-headers | shows -E '^node2 +Ready +<none> '
kubectl taint nodes node1 node-role.kubernetes.io/control-plane:NoSchedule- >/dev/null 2>&1 || true
