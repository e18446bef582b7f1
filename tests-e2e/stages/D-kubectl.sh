# First contact with kubectl.
retry 10 sh -c "[ \"\$(kubectl get nodes --no-headers | grep -cw Ready)\" = $NODES ]"
[ "$(kubectl get no -o name)" = "$(kubectl get nodes -o name)" ] && [ "$(kubectl get node -o name | wc -l)" -eq $NODES ]
kubectl get nodes -o wide | shows 'INTERNAL-IP.*OS-IMAGE.*KERNEL-VERSION.*CONTAINER-RUNTIME'
kubectl get no -o yaml | shows -x 'kind: List'
[ "$(kubectl get nodes -o json | jq -c '.items[] | {name:.metadata.name} + .status.capacity' | wc -l)" -eq $NODES ]
kubectl get no node1 -o json | jq -e '.status as $s | ["MemoryPressure","DiskPressure","PIDPressure","Ready"] - [$s.conditions[].type] == [] and $s.capacity.pods=="110" and $s.daemonEndpoints.kubeletEndpoint.Port==10250' >/dev/null
! kubectl get 2>$TMP/e && grep -q 'api-resources' $TMP/e
kubectl api-resources | shows -w deployments
kubectl describe node/node1 | shows '^Conditions:' && kubectl describe node node1 | shows 'Allocated resources'
kubectl explain node.spec | shows taints && kubectl explain deploy --recursive | shows maxSurge
kubectl get svc kubernetes -o jsonpath='{.spec.clusterIP}:{.spec.ports[0].port}' | shows -x '10.96.0.1:443'
kubectl get services | grep -Eq '^kubernetes +ClusterIP +10.96.0.1 +<none> +443/TCP '
[ "$(curl -sk -m5 -o $TMP/f -w '%{http_code}' https://10.96.0.1)" = 403 ] && jq -e '.kind=="Status" and .reason=="Forbidden" and (.message|test("system:anonymous"))' $TMP/f >/dev/null
kubectl get pods 2>&1 | shows -x 'No resources found in default namespace.'
[ "$(kubectl get ns -o name | sort | tr '\n' ' ')" = "namespace/default namespace/kube-node-lease namespace/kube-public namespace/kube-system " ]
[ "$(kubectl -n kube-system get pod etcd-node1 kube-apiserver-node1 kube-controller-manager-node1 kube-scheduler-node1 -o jsonpath='{.items[*].status.phase}')" = "Running Running Running Running" ]
[ "$(kubectl -n kube-system get pods -l k8s-app=kube-proxy --no-headers | grep -cw Running)" -ge 1 ]
