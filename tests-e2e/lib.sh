# Helpers of the stages. Sourced by run.sh and, for `sh -c`-free retries, visible to every stage.
# They are those of the workshop's acceptance script: a stage reads as the lesson does.

retry() { local t=$1; shift; local end=$((SECONDS + t)); until "$@" >/dev/null 2>&1; do [ "$SECONDS" -lt "$end" ] || return 1; sleep 0.3; done; }
# Reads to the end, unlike `grep -q`: under pipefail a writer that still had something to say would fail the pipe.
shows() { local text; text=$(cat); grep -q "$@" <<<"$text"; }
jsonh() { curl -fsS -m5 "$1/json" | jq -ce '{h:((.hashes // "0")|tonumber), t:.now, c:.coins}'; }
# Mean hashes per second over a window. Workers report once a second, so both ends wait for a report.
tick() { local a b end=$((SECONDS + 15)); a=$(jsonh "$1") || return 1; while b=$(jsonh "$1") && [ "$SECONDS" -lt "$end" ]; do [ "${a%%,*}" != "${b%%,*}" ] && break; sleep 0.05; done; echo "$b"; }
rate() { local a b; a=$(tick "$1") && sleep "${2:-20}" && b=$(tick "$1") && jq -n --argjson a "$a" --argjson b "$b" '($b.h-$a.h)/($b.t-$a.t)'; }
between() { awk -v x="$1" -v lo="$2" -v hi="$3" 'BEGIN{exit !(x>=lo && x<=hi)}' && echo "    $1 is between $2 and $3" || { echo "    $1 is not between $2 and $3"; return 1; }; }
nodeip() { kubectl get node "$1" -o jsonpath='{.status.addresses[?(@.type=="InternalIP")].address}'; }
ready() { [ "$(kubectl get "$1" "$2" -o jsonpath='{.status.readyReplicas}')" = "$3" ]; }
dsready() { [ "$(kubectl get ds "$1" -o jsonpath='{.status.desiredNumberScheduled}/{.status.numberReady}')" = "$2/$2" ]; }
gone() { local o; o=$(kubectl get "$@" --ignore-not-found -o name) && [ -z "$o" ]; }
count() { local n=$1; shift; [ "$(kubectl get "$@" --no-headers 2>/dev/null | wc -l)" -eq "$n" ]; }
inpod() { local i=$1; shift; kubectl run "t$RANDOM$RANDOM" --rm -i -q --restart=Never --image="$i" -- "$@"; }
eps() { kubectl get endpoints "$1" -o jsonpath='{range .subsets[*].addresses[*]}{.targetRef.name}{"\n"}{end}'; }
deadline() { date -d "+$1 seconds" +%s; }

PASSED=0 FAILED=0
# Runs a stage: one complete statement is one assertion. (Not `set -e`: it overlooks `! cmd` and the left side of `&&`.)
# The first failing statement ends its stage, unless KEEP_GOING is set.
run_block() {
  local buf= line
  while IFS= read -r line || [ -n "$line" ]; do
    buf+="$line"$'\n'
    bash -n <<<"$buf" 2>/dev/null || continue
    [[ $buf =~ ^[[:space:]]*(#[^$'\n']*)?$'\n'$ ]] && { buf=; continue; }
    local since=$SECONDS
    if eval "$buf" </dev/null; then
      PASSED=$((PASSED + 1))
      [ -z "${VERBOSE:-}" ] || printf '  ok %3ds %s' $((SECONDS - since)) "$buf"
    else
      FAILED=$((FAILED + 1))
      printf '  FAIL after %ds: %s' $((SECONDS - since)) "$buf"
      [ -n "${KEEP_GOING:-}" ] || return 1
    fi
    buf=
  done
}

run_stages() {
  local stage file before since
  for stage in "$@"; do
    file=$(ls "$here/stages/$stage"*.sh | head -1)
    echo "stage $(basename "$file" .sh)"
    before=$FAILED since=$SECONDS
    run_block <"$file" || true
    if [ "$FAILED" != "$before" ]; then
      echo "  ---- what there is ----"
      kubectl get all -A 2>&1 | tail -60
      kubectl get events 2>&1 | tail -15
      tail -20 "$DATA/coracle.log" 2>/dev/null
    fi
    echo "stage $(basename "$file" .sh): $([ "$FAILED" = "$before" ] && echo ok || echo FAILED) ($((SECONDS - since)) s)"
  done
}
