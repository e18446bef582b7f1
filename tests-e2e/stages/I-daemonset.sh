# One rng per node, beside the Deployment's: on one node that makes two, on two three. Which one serves a worker is chance, so some wait while others idle:
# by simulation 17.7 hashes a second with two of them and 23.4 with three.
cd $TMP; kubectl create deployment rng --image=$USERNAME/rng -o yaml --dry-run=client >rng.yml; [ -s rng.yml ]
sed -i 's/kind: Deployment/kind: DaemonSet/' rng.yml
! kubectl apply -f rng.yml 2>$TMP/e && grep -q 'unknown field "spec.replicas"' $TMP/e && gone ds rng
kubectl apply -f rng.yml --validate=false && retry 60 dsready rng $NODES
[ "$(kubectl get deploy,ds -o name | grep -c rng)" -eq 2 ] && [ "$(kubectl get pods -l app=rng --no-headers | wc -l)" -eq $((NODES + 1)) ]
retry 10 sh -c '[ "$(kubectl get endpoints rng -o jsonpath="{.subsets[*].addresses[*].ip}" | wc -w)" = '$((NODES + 1))' ]' && [ "$(eps rng | wc -l)" -eq $((NODES + 1)) ]
retry 10 sh -c "[ \"\$(kubectl logs -l app=rng --tail 1 | grep -c 'GET /32')\" -eq $((NODES + 1)) ]"
if [ $NODES = 1 ]; then between "$(rate "$WEB" $WINDOW)" 15 20.5; else between "$(rate "$WEB" $WINDOW)" 20 31; fi
