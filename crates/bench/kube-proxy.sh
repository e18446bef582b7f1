#!/bin/sh
# Upstream's kube-proxy beside our Services, inside the node of `coracle bench --only services`:
#
#   CORACLE=target/release/coracle KUBE_PROXY=/path/to/kube-proxy MODE=nftables \
#     coracle bench --only services --services 10,10000 --in-node crates/bench/kube-proxy.sh
#
# An API server of our own with $SERVICES Services (numbered as crates/bench/src/services.rs has them), and kube-proxy in $MODE (nftables or iptables).
set -eu
dir=$(mktemp -d)
api=
cleanup() { [ -z "$api" ] || kill "$api" 2>/dev/null || :; [ -z "${proxy:-}" ] || kill "$proxy" 2>/dev/null || :; wait; rm -rf "$dir"; }
trap cleanup EXIT
trap 'exit 143' TERM INT
"$CORACLE" up --no-node --data-dir "$dir/data" --secure-port 17999 --advertise-address 10.200.2.1 --service-cidr 10.96.0.0/12 >"$dir/up.log" 2>&1 &
api=$!
until [ -s "$dir/data/admin.conf" ] && "$CORACLE" kubectl --kubeconfig "$dir/data/admin.conf" get --raw /readyz >/dev/null 2>&1; do sleep 0.2; done
kubectl() { "$CORACLE" kubectl --kubeconfig "$dir/data/admin.conf" "$@"; }
mkdir "$dir/objects"
echo '{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"}, "spec": {"podCIDR": "10.200.0.0/16", "podCIDRs": ["10.200.0.0/16"]}}' >"$dir/objects/node.json"
awk -v n="$SERVICES" -v dir="$dir/objects" 'BEGIN {
  for (i = 0; i < n; i++) {
    # A thousand to a file: kubectl reads so much and no more at once.
    if (i % 1000 == 0) { if (i) print "]}" >file; file = dir "/" i ".json"; print "{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [" >file }
    port = i % 2 ? 8081 : 8080
    printf "%s{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"service-%d\"}, \"spec\": {\"clusterIP\": \"10.96.%d.%d\", \"ports\": [{\"port\": 80}]}}\n", i % 1000 ? "," : "", i, 1 + i / 256, i % 256 >file
    printf ",{\"apiVersion\": \"discovery.k8s.io/v1\", \"kind\": \"EndpointSlice\", \"metadata\": {\"name\": \"service-%d\", \"labels\": {\"kubernetes.io/service-name\": \"service-%d\"}}, ", i, i >file
    printf "\"addressType\": \"IPv4\", \"ports\": [{\"name\": \"\", \"port\": %d, \"protocol\": \"TCP\"}], \"endpoints\": [{\"addresses\": [\"10.200.2.2\"], \"conditions\": {\"ready\": true}}, {\"addresses\": [\"10.200.2.3\"], \"conditions\": {\"ready\": true}}]}\n", port >file
  }
  print "]}" >file
}'
kubectl create -f "$dir/objects" >/dev/null
kubectl patch node node --subresource=status --type=merge -p '{"status": {"addresses": [{"type": "InternalIP", "address": "10.200.2.1"}]}}' >/dev/null
"$KUBE_PROXY" --kubeconfig "$dir/data/admin.conf" --proxy-mode "$MODE" --cluster-cidr 10.200.0.0/16 --hostname-override node --conntrack-max-per-core 0 --conntrack-min 0 \
  --conntrack-tcp-timeout-established 0 --conntrack-tcp-timeout-close-wait 0 >"${PROXY_LOG:-$dir/proxy.log}" 2>&1 &
proxy=$!
wait "$proxy"
