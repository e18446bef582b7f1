# Labels and selectors: the Deployment's rng leaves the Service, one rng stays.
kubectl describe deploy rng | grep -Eq '^Selector: +app=rng$'
kubectl describe rs -l app=rng | grep -Eq 'Selector: +app=rng,pod-template-hash=[0-9a-z]+'
! kubectl patch ds rng -p '{"spec":{"selector":{"matchLabels":{"isactive":"yes"}}}}' 2>$TMP/e && grep -Eq 'field is immutable|does not match template' $TMP/e
KUBE_EDITOR="sed -i '/^    metadata:/,/^    spec:/ s/^        app: rng/        app: rng\n        isactive: \"yes\"/'" kubectl edit daemonset rng
retry 120 kubectl rollout status ds/rng --timeout=1s && retry 60 sh -c '[ "$(kubectl get pods -l app=rng,isactive=yes --no-headers | grep -cw Running)" = '$NODES' ]'
! kubectl patch svc rng -p '{"spec":{"selector":{"isactive":true}}}'
KUBE_EDITOR="sed -i '/^  selector:/,/^  sessionAffinity/ s/^    app: rng/    app: rng\n    isactive: \"yes\"/'" kubectl edit service rng
retry 10 sh -c '[ "$(kubectl get endpoints rng -o jsonpath="{.subsets[*].addresses[*].ip}" | wc -w)" = '$NODES' ]'
P=$(kubectl get pod -l app=rng,pod-template-hash -o name); sleep 3; [ -n "$P" ] && [ -z "$(kubectl logs "$P" --since=2s | grep 'GET /32')" ]
if [ $NODES = 1 ]; then between "$(rate "$WEB" $WINDOW)" 9.5 10.5; else between "$(rate "$WEB" $WINDOW)" 15 20.5; fi
