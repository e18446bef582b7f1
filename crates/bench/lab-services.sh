#!/bin/sh
# Services between pods of two nodes of a lab, beside upstream's kube-proxy:
#
#   CORACLE=target/release/coracle KUBE_PROXY=/path/to/kube-proxy crates/bench/lab-services.sh [--rounds 100] [--services 10,10000] [--json]
#
# One cluster of four nodes: the servers' pods are on node1, the clients' in turns on node2 (our proxy), node3 (kube-proxy, nftables mode) and node4 (kube-proxy,
# iptables mode). node3 and node4 are without a proxy of ours, so what translates a client's packets is the only difference. Needs root, nft and iptables;
# PROXY_ENV has variables for kube-proxy, such as the PATH of an iptables that is not installed. It ends by itself, after LIMIT seconds at the latest.
set -eu
dir=$(mktemp -d)
proxies=
lab() { "$CORACLE" lab --data-dir "$dir/lab" "$@"; }
cleanup() { [ -z "$proxies" ] || kill $proxies 2>/dev/null || :; [ ! -e "$dir/lab/lab.json" ] || lab down >/dev/null; rm -rf "$dir"; }
trap cleanup EXIT
trap 'exit 143' TERM INT
[ -x "$KUBE_PROXY" ] || { echo "KUBE_PROXY: no program $KUBE_PROXY" >&2; exit 1; }

lab up --bare --nodes 4 --subnet "${SUBNET:-192.168.0.0/24}" >&2
on() { node=$1; shift; lab shell "$node" -- "$@"; }
on node1 sh -c 'kubeadm init --apiserver-advertise-address $(hostname -i)' >"$dir/init.log"
token=$(on node1 kubeadm token create)
join=$(on node1 kubeadm token create --print-join-command)
on node2 $join >"$dir/node2.log"
cat >"$dir/join.yaml" <<END
apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
discovery:
  bootstrapToken: {apiServerEndpoint: "$(on node1 hostname -i):6443", token: $token, caCertHashes: [$(echo "$join" | grep -o 'sha256:[0-9a-f]*')]}
nodeRegistration:
  kubeletExtraArgs: [{name: service-proxy, value: none}]
END
proxy() {
  disk=$dir/lab/nodes/$1/root/root
  cp "$dir/join.yaml" "$KUBE_PROXY" "$disk"
  on node1 cat /etc/kubernetes/admin.conf >"$disk/admin.conf"
  on "$1" kubeadm join --config /root/join.yaml >"$dir/$1.log"
  # It looks again at all of it every 30 s otherwise, also while others are measured.
  on "$1" env ${PROXY_ENV:-} "/root/$(basename "$KUBE_PROXY")" --kubeconfig /root/admin.conf --proxy-mode "$2" --cluster-cidr 10.244.0.0/16 --hostname-override "$1" --iptables-sync-period 1h \
    --conntrack-max-per-core 0 --conntrack-min 0 --conntrack-tcp-timeout-established 0 --conntrack-tcp-timeout-close-wait 0 >"${PROXY_LOG:-$dir/proxy}-$1.log" 2>&1 &
  proxies="$proxies $!"
}
proxy node3 nftables
proxy node4 iptables
# kube-proxy says so when it follows the API; one that has ended does not measure anything.
logs="${PROXY_LOG:-$dir/proxy}-node3.log ${PROXY_LOG:-$dir/proxy}-node4.log"
until [ "$(grep -ls 'Caches are synced.*node config' $logs | wc -l)" = 2 ]; do
  for proxy in $proxies; do kill -0 "$proxy" || { tail $logs >&2; exit 1; }; done
  sleep 0.2
done
on node1 kubectl wait --for=condition=Ready nodes --all --timeout=60s >&2
on node1 timeout -s INT -k 60 "${LIMIT:-3600}" coracle bench --only pod-services --server-node node1 --client-node node2,node3,node4 "$@"
