#!/usr/bin/env bash
# The workshop, end to end, as root, against the real thing: a cluster of one node in network and mount namespaces of its own,
# so that it neither meets nor needs what else runs on this machine.
#
#   CORACLE=target/…/coracle IMAGES=target/images tests-e2e/run.sh [--lab] [STAGE…]
#
# --lab       on a lab of two nodes instead (lab.sh), made with kubeadm: stages A and B make the cluster, N breaks it
# KUBECTL     kubectl to use (default: coracle, by that name)
# ARTIFACTS   where the screenshot and logs are kept (default: artifacts/)
# KEEP_GOING  go on after a failed check    VERBOSE  print every check
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
LAB=; [ "${1:-}" != --lab ] || LAB=yes

if [ -z "${E2E_INSIDE:-}" ]; then
  [ "$(id -u)" = 0 ] || { echo "error: the end-to-end tests need root" >&2; exit 2; }
  export E2E_INSIDE=1
  exec unshare --net --mount --propagation private "$0" "$@"
fi
# A machine with an address and a way out, at whose end 8.8.8.8 answers.
ip link set lo up
ip link add uplink0 type veth peer name uplink1
ip addr add 192.0.2.2/24 dev uplink0
ip addr add 8.8.8.8/32 dev lo
ip link set uplink0 up
ip link set uplink1 up
ip route add default via 192.0.2.1 dev uplink0
# Other clusters' mounts came along as copies; they go when their owners please, and are no business of ours.
awk '{print $5}' /proc/self/mountinfo | grep -E '^/run/coracle|/kubelet/pods/|/containers/' | tac | while read -r copy; do umount -l "$copy" 2>/dev/null || true; done
# What a cluster writes outside its folder stays apart from other clusters' on this machine.
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
# Names outside are refused at once, as on a machine without Internet; no registry answers.
resolv=$(realpath -m /etc/resolv.conf)
mkdir -p "${resolv%/*}" && touch -a "$resolv"
echo 'nameserver 8.8.8.8' >/run/resolv.conf && mount --bind /run/resolv.conf "$resolv"

. "$here/lib.sh"
NODES=1 WINDOW=20
CORACLE=$(realpath "${CORACLE:?the coracle binary}")
IMAGES=$(realpath "${IMAGES:?the folder with the images}")
ARTIFACTS=$(realpath -m "${ARTIFACTS:-artifacts}"); mkdir -p "$ARTIFACTS"
TMP=$(mktemp -d /tmp/coracle-e2e.XXXXXX)
DATA=$TMP.data
PIDFILE=/run/coracle$(printf %s "$DATA" | tr -c 'A-Za-z0-9' '-')/coracle.pid
mkdir "$TMP/bin"
# A copy: whatever runs from it is ours.
cp "$CORACLE" "$TMP/bin/coracle"
CORACLE=$TMP/bin/coracle
ln -s "${KUBECTL:-$CORACLE}" "$TMP/bin/kubectl"
export PATH="$TMP/bin:$PATH" KUBECONFIG="$DATA/admin.conf" HOME="$TMP/home" TMP DATA IMAGES USERNAME=dockercoins TAG=latest
mkdir "$HOME"
browser() {
  timeout 90 chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync \
    --user-data-dir="$(mktemp -d "$TMP/chromium.XXXX")" "$@" 2>"$TMP/browser.log"
}
others() { local p; for p in /proc/[0-9]*; do case $(readlink "$p/exe") in "$CORACLE"*) ;; */coracle*) return 0 ;; esac; done; return 1; }
echo none >"$TMP/uids"
# What a cluster could leave behind.
host_state() {
  ip -o link | sed 's/^[0-9]*: //' | cut -d'\' -f1 | sort
  ip -o addr | awk '{print $2, $3, $4}' | sort
  ip route show table all | grep -v '^fe80\|^multicast\|^local fe80'; ip rule
  nft list ruleset
  awk '{print $5, $(NF-2)}' /proc/self/mountinfo | sort
  # Of the cgroups, which all clusters of a machine share: ours, and their parents when nobody else has pods.
  find /sys/fs/cgroup -type d -name 'pod*' | grep -Ff "$TMP/uids"
  others || find /sys/fs/cgroup -type d \( -name '*kubepods*' -o -name '*coracle*' \) | sort
  find /run /var/log /var/lib/coracle 2>/dev/null | sort
  for p in /proc/[0-9]*; do case $(readlink "$p/exe") in "$CORACLE"*) echo "$p $(tr '\0' ' ' <"$p/cmdline")" ;; esac; done
  cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding
}
host_state >"$TMP/host.before"

if [ -n "$LAB" ]; then shift; . "$here/lab.sh"; exit; fi
stages=("$@")
# Those that want a lab say so at their head.
if [ ${#stages[@]} = 0 ]; then for s in $(grep -L '^# In a lab' "$here"/stages/*.sh); do s=${s##*/}; stages+=("${s%.sh}"); done; fi
finish() {
  cp "$DATA/coracle.log" "$ARTIFACTS/coracle-e2e.log" 2>/dev/null
  "$CORACLE" reset --data-dir "$DATA" >/dev/null 2>&1
  rm -rf "$TMP"
}
trap finish EXIT
trap 'exit 130' INT TERM

run_block <<'START'
for archive in "$IMAGES"/*.tar; do coracle image import --data-dir "$DATA" "$archive" >/dev/null || break; done
coracle up --detach --node-name node1 --data-dir "$DATA"
START
run_stages "${stages[@]}"
echo "workshop: $PASSED passed, $FAILED failed"
[ "$FAILED" = 0 ]
