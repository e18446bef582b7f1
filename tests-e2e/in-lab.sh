#!/usr/bin/env bash
# Runs stages in node1 of a lab; lab.sh has put it there.
set -uo pipefail
here=/tmp/e2e
. $here/lib.sh
export TMP=/tmp/e2e/tmp DATA=/var/lib/coracle IMAGES=/tmp/e2e/images USERNAME=learner TAG=latest NODES=2 WINDOW=12 HOME=/root
mkdir -p $TMP
# One question at a time.
ask() {
  printf '%s\n' "$(printf '%q ' "$@")" >$here/asked
  local code; read -r code <$here/answered
  cat $here/answer
  return "$code"
}
lab() { ask lab "$@"; }
# The same files on node2.
give() { ask give "$@"; }
node2() { lab shell node2 -- "$@"; }
run_stages $E2E_STAGES
echo "workshop: $PASSED passed, $FAILED failed"
[ "$FAILED" = 0 ]
