# In a lab: a pod on each node; they reach each other by their own addresses, and so do the nodes.
# The lesson's pod network, by its literal command: the lab's mirror answers in place of a site that is gone.
weave() { kubectl apply -n kube-system -f "https://cloud.weave.works/k8s/net?k8s-version=$(kubectl version | base64 | tr -d '\n')"; }
[ "$(weave | grep -c 'created$')" = 6 ] && [ "$(weave | grep -c 'unchanged$')" = 6 ]
# A pod on each.
for n in node1 node2; do kubectl run on$n --image=alpine --overrides="{\"spec\":{\"nodeName\":\"$n\"}}" --command -- sh -c 'trap exit TERM; echo "$HOSTNAME" >/tmp/index.html; httpd -p 8080 -h /tmp; while :; do sleep 1; done' || break; done; retry 30 sh -c '[ "$(kubectl get pods onnode1 onnode2 --no-headers | grep -c 1/1)" = 2 ]'
podip() { kubectl get pod "$1" -o jsonpath='{.status.podIP}'; }
retry 20 sh -c "kubectl exec onnode1 -- wget -qO- http://$(podip onnode2):8080/ | grep -qx onnode2"
kubectl exec onnode2 -- wget -qO- http://$(podip onnode1):8080/ | shows -x onnode1 && curl -fsS -m5 http://$(podip onnode2):8080/ | shows -x onnode2 && node2 curl -fsS -m5 http://$(podip onnode1):8080/ | shows -x onnode1
for n in onnode1 onnode2; do kubectl exec $n -- nslookup kubernetes.default.svc.cluster.local | shows 10.96.0.1 || break; done; kubectl exec onnode2 -- nslookup kubernetes.default.svc.cluster.local | shows 10.96.0.1
[ "$(node2 curl -sk -m5 -o /dev/null -w '%{http_code}' https://10.96.0.1)" = 403 ]
kubectl logs onnode2 >/dev/null && kubectl delete pod onnode1 onnode2 --grace-period=1 && retry 30 gone pods onnode1 onnode2
