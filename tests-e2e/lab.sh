# The workshop on a lab of two nodes. Sourced by run.sh, in its namespaces: the lab must leave them as it found them.
#
# The stages run in a shell of node1, where a learner sits, by in-lab.sh. What node1 cannot do, type on node2 or pull a cable, it asks for over two FIFOs on
# its disk: `lab WORDS…` in a stage is `coracle lab WORDS…` out here.
lab() { "$CORACLE" lab --data-dir "$TMP.lab" "$@"; }
give() { rm -rf "$TMP.lab/nodes/node2/root$1" && mkdir -p "$(dirname "$TMP.lab/nodes/node2/root$1")" && cp -r "$TMP.lab/nodes/node1/root$1" "$TMP.lab/nodes/node2/root$1"; }
finish() {
  kill "${SERVER:-}" 2>/dev/null
  for node in node1 node2 node3; do cp "$TMP.lab/nodes/$node/root/var/lib/coracle/coracle.log" "$ARTIFACTS/coracle-lab-$node.log" 2>/dev/null; done
  [ ! -e "$TMP.lab" ] || lab down
  rm -rf "$TMP"
}
trap finish EXIT
trap 'exit 130' INT TERM

stages=("$@")
[ ${#stages[@]} != 0 ] || stages=(A B B2 D E G H I J K P N Q M O)
lab up --nodes 2 --bare --images "$IMAGES" || exit 1
desk=$TMP.lab/nodes/node1/root/tmp/e2e
mkdir -p "$desk/stages" "$desk/images"
cp -r "$here/in-lab.sh" "$here/lib.sh" "$here/stages" "$desk"
# What a learner builds.
for service in hasher rng webui worker; do cp -r "$IMAGES/$service" "$desk/images"; done
mkfifo "$desk/asked" "$desk/answered"
exec 7<>"$desk/asked" 8<>"$desk/answered"
while read -r asked <&7; do
  eval "$asked" >"$desk/answer" 2>&1 </dev/null 7>&- 8>&-
  echo $? >&8
done &
SERVER=$!
lab shell node1 -- env E2E_STAGES="${stages[*]}" VERBOSE="${VERBOSE:-}" KEEP_GOING="${KEEP_GOING:-}" bash /tmp/e2e/in-lab.sh
outcome=$?
kill $SERVER; wait $SERVER 2>/dev/null
# The way back.
lab down && host_state >"$TMP/host.after" && diff "$TMP/host.before" "$TMP/host.after" && [ ! -e "$TMP.lab" ] || { echo "workshop: 0 passed, 1 failed"; echo "the lab did not leave the machine as it was"; exit 1; }
exit $outcome
