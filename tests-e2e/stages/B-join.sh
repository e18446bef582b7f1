# In a lab: node2 joins, both nodes take pods, and pods of different nodes reach each other.
! node2 ${JOIN%sha256:*}sha256:$(printf '0%.0s' $(seq 64)) >$TMP/e && grep -qi 'hash\|pinned\|public key' $TMP/e
! node2 ${JOIN/--token ??????.????????????????/--token zzzzzz.zzzzzzzzzzzzzzzz} >$TMP/e && grep -qi token $TMP/e
# The order of the lesson of 2018.
TOKEN=$(sed 's/.*--token \([^ ]*\) .*/\1/' <<<"$JOIN") HASH=${JOIN##* --discovery-token-ca-cert-hash }; node2 kubeadm join --token $TOKEN 192.168.0.11:6443 --discovery-token-ca-cert-hash $HASH >$TMP/join.log
grep -q 'This node has joined the cluster:' $TMP/join.log && grep -q "Run 'kubectl get nodes' on the control-plane to see this node join the cluster." $TMP/join.log
retry 30 sh -c '[ "$(kubectl get nodes --no-headers | grep -cw Ready)" = 2 ]'
[ "$(kubectl get nodes -o jsonpath='{range .items[*]}{.metadata.name} {.status.addresses[?(@.type=="InternalIP")].address} {.spec.podCIDR}{"\n"}{end}' | awk 'NF==3' | sort -u -k3 | wc -l)" = 2 ]
kubectl get no node2 --no-headers | shows -E '^node2 +Ready +<none> '
kubectl taint nodes node1 node-role.kubernetes.io/control-plane:NoSchedule- >/dev/null 2>&1 || true
for archive in $IMAGES/*.tar; do node2 coracle image import "$archive" >/dev/null || break; done
# The lesson's pod network, by its literal command: the lab's mirror answers in place of a site that is gone.
weave() { kubectl apply -n kube-system -f "https://cloud.weave.works/k8s/net?k8s-version=$(kubectl version | base64 | tr -d '\n')"; }
[ "$(weave | grep -c 'created$')" = 6 ] && [ "$(weave | grep -c 'unchanged$')" = 6 ]
# A pod on each; they see each other's own addresses.
for n in node1 node2; do kubectl run on$n --image=alpine --overrides="{\"spec\":{\"nodeName\":\"$n\"}}" --command -- sh -c 'trap exit TERM; echo "$HOSTNAME" >/tmp/index.html; httpd -p 8080 -h /tmp; while :; do sleep 1; done' || break; done; retry 30 sh -c '[ "$(kubectl get pods onnode1 onnode2 --no-headers | grep -c 1/1)" = 2 ]'
podip() { kubectl get pod "$1" -o jsonpath='{.status.podIP}'; }
retry 20 sh -c "kubectl exec onnode1 -- wget -qO- http://$(podip onnode2):8080/ | grep -qx onnode2"
kubectl exec onnode2 -- wget -qO- http://$(podip onnode1):8080/ | shows -x onnode1 && curl -fsS -m5 http://$(podip onnode2):8080/ | shows -x onnode2 && node2 curl -fsS -m5 http://$(podip onnode1):8080/ | shows -x onnode1
for n in onnode1 onnode2; do kubectl exec $n -- nslookup kubernetes.default.svc.cluster.local | shows 10.96.0.1 || break; done; kubectl exec onnode2 -- nslookup kubernetes.default.svc.cluster.local | shows 10.96.0.1
[ "$(node2 curl -sk -m5 -o /dev/null -w '%{http_code}' https://10.96.0.1)" = 403 ]
kubectl logs onnode2 >/dev/null && kubectl delete pod onnode1 onnode2 --grace-period=1 && retry 30 gone pods onnode1 onnode2
