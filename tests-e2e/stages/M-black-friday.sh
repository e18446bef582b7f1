# In a lab: Black Friday. A third machine joins while the application runs, and takes its share.
node3() { lab shell node3 -- "$@"; }
is_ready() { kubectl get node "$1" --no-headers 2>/dev/null | grep -qE "^$1 +Ready( |$)"; }
lab add node3 | shows '^node3 (192.168.0.13) is on' && kubectl get nodes >/dev/null
# A small disk, so that a later stage can fill it.
node3 mount -t tmpfs -o size=400m disk3 /var/lib/coracle
kubectl create deployment webfront --image=alpine --replicas=4 -- sh -c 'trap exit TERM; while :; do sleep 1; done' && retry 60 ready deploy webfront 4
kubectl create deployment each --image=alpine -o json --dry-run=client -- sh -c 'trap exit TERM; while :; do sleep 1; done' | jq '.kind="DaemonSet" | del(.spec.replicas, .spec.strategy, .status)' | kubectl apply -f - && retry 60 dsready each 2
# Its agent shall not say for minutes that the disk was full.
kubectl -n kube-system get cm kubelet-config -o json | jq '.data.kubelet += "evictionPressureTransitionPeriod: 5s\n"' | kubectl apply -f -
JOIN=$(kubeadm token create --print-join-command) && echo "$JOIN" | shows '^kubeadm join 192.168.0.11:6443 --token '
local typed=$(date +%s%3N); node3 $JOIN >$TMP/join3.log && retry 60 is_ready node3; echo "    from \`kubeadm join\` to Ready: $(($(date +%s%3N) - typed)) ms"; is_ready node3
NODES=3
kubectl scale deployment webfront --replicas=12 && retry 60 ready deploy webfront 12 && retry 60 dsready each 3
[ "$(kubectl get pods -l app=webfront -o jsonpath='{range .items[*]}{.spec.nodeName}{"\n"}{end}' | sort | uniq -c | awk '$1<2{exit 1} END{print NR}')" = 3 ]
retry 10 eval 'kubectl get events -A --field-selector involvedObject.kind=Node,involvedObject.name=node3 | shows RegisteredNode'
kubectl delete deploy/webfront ds/each && retry 60 gone pods -l app=webfront && retry 60 gone pods -l app=each
