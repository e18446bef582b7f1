//! Two machines of a lab become a cluster by kubeadm's own words, as root: what is refused and leaves nothing behind, and a pod on the machine that joined,
//! seen through the API server of the other one.

mod machines;

use machines::Lab;

/// Its files are the node's: no image is needed but an empty one.
const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"far"},"spec":{
"tolerations":[{"key":"node.kubernetes.io/disk-pressure","operator":"Exists"}],"containers":[{"name":"c","image":"empty","imagePullPolicy":"Never","command":["/usr/bin/sh","-c","echo here I am; exec sleep 10000"],
"volumeMounts":[{"name":"usr","mountPath":"/usr","readOnly":true},{"name":"lib","mountPath":"/lib","readOnly":true},{"name":"lib64","mountPath":"/lib64","readOnly":true}]}],
"volumes":[{"name":"usr","hostPath":{"path":"/usr"}},{"name":"lib","hostPath":{"path":"/usr/lib"}},{"name":"lib64","hostPath":{"path":"/usr/lib64"}}]}}"#;

#[test]
fn a_machine_joins() {
    let lab = Lab::up(2);
    // A port that is taken, and what is left of a try.
    let taken = |node: &str, port: u16, command: &str| {
        lab.on(node, &format!("(busybox nc -l -p {port} >/dev/null 2>&1 & echo $! >/tmp/nc); until grep -q :$(printf %04X {port}) /proc/net/tcp /proc/net/tcp6; do :; done"));
        lab.refused(node, command, &format!("[ERROR Port-{port}]: Port {port} is in use"));
        lab.on(node, &format!("kill $(cat /tmp/nc); while grep ':{port:04X} 0' /proc/net/tcp /proc/net/tcp6 | grep -q ' 0A '; do :; done"));
        lab.is_clean(node);
    };
    taken("node1", 6443, "kubeadm init --apiserver-advertise-address $(hostname -i)");
    let said = lab.on("node1", "kubeadm init --apiserver-advertise-address $(hostname -i)");
    assert!(said.contains("Your Kubernetes control-plane has initialized successfully!") && said.contains("\nkubeadm join "), "{said}");
    lab.refused("node1", "kubeadm init", "[ERROR Port-6443]: Port 6443 is in use");
    assert!(lab.on("node1", "kubectl get node node1 -o jsonpath='{.spec.taints[*].key}'").contains("node-role.kubernetes.io/control-plane"));
    let join = lab.on("node1", "kubeadm token create --print-join-command").trim().to_owned();
    let (token, hash) = (join.split(' ').nth(4).expect("a token"), join.rsplit(' ').next().expect("a hash"));

    // What is wrong is said, and leaves nothing behind.
    lab.refused("node2", &join.replace(&token[7..], "0000000000000000"), "failed to verify JWS signature of received cluster info object");
    lab.refused("node2", &join.replace(hash, &format!("sha256:{}", "0".repeat(64))), "is invalid: none of the public keys");
    lab.refused("node2", &join.replace(hash, "sha256:12"), "expected 64 hexadecimal digits");
    taken("node2", 10250, &join);
    // Nobody there, and a token whose time is over, each given a second.
    let file = |endpoint: &str, token: &str| {
        let discovery = format!("{{bootstrapToken: {{apiServerEndpoint: '{endpoint}', token: {token}, caCertHashes: ['{hash}']}}}}");
        format!("printf '%s\\n' 'apiVersion: kubeadm.k8s.io/v1beta4' 'kind: JoinConfiguration' \"discovery: {discovery}\" 'timeouts: {{discovery: 1s}}' >/tmp/join.yaml && kubeadm join --config /tmp/join.yaml")
    };
    lab.refused("node2", &file("192.168.0.99:6443", token), "failed to request the cluster-info ConfigMap");
    let short = lab.on("node1", "kubeadm token create --ttl 1s").trim().to_owned();
    lab.on("node1", &format!("while kubectl -n kube-system get secret bootstrap-token-{} >/dev/null 2>&1; do :; done", &short[..6]));
    lab.refused("node2", &file("192.168.0.11:6443", &short), "is invalid for this cluster or it has expired. Use \"kubeadm token create\"");
    lab.refused("node2", &format!("{join} --control-plane"), "one control plane (the embedded store)");
    lab.is_clean("node2");

    assert!(lab.on("node2", &join).contains("This node has joined the cluster:"));
    lab.refused("node2", &join, "[ERROR FileAvailable--etc-kubernetes-kubelet.conf]: /etc/kubernetes/kubelet.conf already exists");
    lab.on("node1", "kubectl wait --for=condition=Ready node/node2 --timeout=120s");

    lab.on("node2", "mkdir /tmp/e && touch /tmp/e/f && printf 'FROM scratch\\nCOPY f /f\\n' >/tmp/e/Dockerfile && coracle build -t empty /tmp/e");
    lab.on("node1", &format!("echo '{POD}' | kubectl create -f - && kubectl wait --for=condition=Ready pod/far --timeout=120s"));
    assert_eq!(lab.on("node1", "kubectl get pod far -o jsonpath='{.spec.nodeName}'"), "node2");
    assert_eq!(lab.on("node1", "kubectl logs far"), "here I am\n");
    assert_eq!(lab.on("node1", "kubectl exec far -- /usr/bin/cat /etc/hostname"), "far\n");

    // The agent's API is for those with a name and a right, each for its part.
    let pods = "curl -sk https://192.168.0.12:10250/pods";
    assert_eq!(lab.on("node1", pods), "Unauthorized");
    let token = lab.on("node1", "kubectl create serviceaccount reader >/dev/null && kubectl create token reader").trim().to_owned();
    let with = |path: &str| format!("curl -sk -H 'Authorization: Bearer {token}' https://192.168.0.12:10250/{path}");
    assert_eq!(lab.on("node1", &with("pods")), "Forbidden (user=system:serviceaccount:default:reader, verb=get, resource=nodes, subresource(s)=[pods proxy])\n");
    lab.on("node1", "kubectl create clusterrole reader --verb=get --resource=nodes/metrics && kubectl create clusterrolebinding reader --clusterrole=reader --serviceaccount=default:reader");
    assert!(lab.on("node1", &with("metrics")).contains("# TYPE"));
    assert!(lab.on("node1", &with("exec/default/far/c")).starts_with("Forbidden "));

    // Static pods: what the folder says runs, whatever the API is told.
    let manifest = POD.replace("\"far\"", "\"static\"");
    for node in ["node1", "node2"] {
        lab.on(node, &format!("echo '{manifest}' >/etc/kubernetes/manifests/static.yaml"));
    }
    let annotation = "jsonpath='{.metadata.annotations.kubernetes\\.io/config\\.source}'";
    lab.on("node1", &format!("until [ \"$(kubectl get pod static-node1 -o {annotation})\" = file ]; do :; done"));
    let ready = "until [ \"$(kubectl get pod static-node2 -o jsonpath='{.status.containerStatuses[0].ready}')\" = true ]; do :; done";
    lab.on("node1", ready);
    let container = "kubectl get pod static-node2 -o jsonpath='{.status.containerStatuses[0].containerID}'";
    let before = lab.on("node1", container);
    lab.on("node1", &format!("kubectl delete pod static-node2 && {ready}"));
    assert_eq!((lab.on("node1", container), lab.on("node1", "kubectl logs static-node2")), (before, "here I am\n".to_owned()));
    lab.on("node2", "rm /etc/kubernetes/manifests/static.yaml");
    lab.on("node1", "kubectl wait --for=delete pod/static-node2 --timeout=120s");

    // Each goes on as what it was made, and the pod never stopped.
    let started = lab.on("node1", "kubectl get pod far -o jsonpath='{.status.containerStatuses[0].containerID}'");
    lab.on("node2", "coracle down && coracle up --detach");
    lab.on("node1", "coracle down && coracle up --detach");
    lab.on("node1", "kubectl wait --for=condition=Ready node/node1 node/node2 --timeout=120s");
    assert_eq!(lab.on("node1", "kubectl get pod far -o jsonpath='{.status.containerStatuses[0].containerID}'"), started);

    // Renewed under way: who asks sees the new certificate, without a restart.
    let date = "curl -skv https://127.0.0.1:6443/healthz 2>&1 | grep 'start date'";
    let before = lab.on("node1", date);
    lab.on("node1", "kubeadm certs renew all");
    // Two certificates of one second look alike.
    lab.on("node1", &format!("until [ \"$({date})\" != '{}' ]; do kubeadm certs renew apiserver; done", before.trim_end()));
    assert_eq!(lab.on("node1", "kubectl exec far -- /usr/bin/cat /etc/hostname"), "far\n");

    lab.on("node1", "kubectl drain node2 --force --grace-period=1 --timeout=120s");
    assert_eq!(lab.on("node1", "kubectl get node node2 -o jsonpath='{.spec.unschedulable}'; kubectl get pod far 2>&1 | grep -c NotFound"), "true1\n");
    lab.on("node1", "kubectl uncordon node2");
    lab.on("node2", "kubeadm reset -f");
    lab.is_clean("node2");
}
