# In a lab: a machine is shut down in good order. Its pods end with their grace and say why, others take their places, and when it is on again it takes pods again.
is_ready() { kubectl get node "$1" --no-headers | grep -qE " Ready( |$)"; }
kubectl create deployment calm --image=alpine --replicas=4 -- sh -c 'trap "sleep 1; exit 0" TERM; while :; do sleep 1; done' && retry 60 ready deploy calm 4
on2() { kubectl get pods -l app=calm --field-selector spec.nodeName=node2 "$@"; }
on2 -o name >$TMP/calm && [ -s $TMP/calm ]
lab stop node2 && ! lab shell node2 -- true
# The API heard all of it before the power went.
[ "$(for pod in $(cat $TMP/calm); do kubectl get $pod -o jsonpath='{.status.phase} {.status.reason} {.status.conditions[?(@.type=="DisruptionTarget")].reason}{"\n"}'; done | sort -u)" = 'Failed Terminated TerminationByKubelet' ]
kubectl get node node2 -o jsonpath='{.status.conditions[?(@.type=="Ready")]}' | shows 'node is shutting down'
retry 30 eval 'kubectl get events -A --field-selector involvedObject.name=node2,reason=NodeShutdown | shows "Shutdown manager detected shutdown event"'
retry 60 ready deploy calm 4
lab start node2 && retry 60 is_ready node2
kubectl scale deploy/calm --replicas=8 && retry 60 ready deploy calm 8 && on2 --no-headers | shows ' Running '
kubectl delete deploy/calm && retry 60 gone pods -l app=calm
