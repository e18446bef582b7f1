//! Two machines of a lab, as root: a cluster that was made by an older kubeadm, and whose node's agent is older, is upgraded to this program; patches of a machine's configuration
//! are kept by it alone; what does not start leaves the machine as it was.

mod machines;

use machines::Lab;

const CONFIG_MAP: &str = "kubectl -n kube-system get configmap kubeadm-config -o jsonpath='{.data.ClusterConfiguration}'";

#[test]
fn an_older_cluster_is_upgraded() {
    let lab = Lab::up(2);
    // A control plane that does not start: its node's configuration is wrong. The folder was there, and empty.
    lab.write("node1", "/tmp/bad/kubeletconfiguration.yaml", "maxPods: -1");
    lab.on("node1", "mkdir -p /var/lib/coracle");
    lab.refused("node1", "kubeadm init --patches /tmp/bad", "maxPods (--max-pods) -1 must not be a negative number");
    lab.is_clean("node1");
    lab.on("node1", "[ -d /var/lib/coracle ] && rmdir /var/lib/coracle");
    lab.refused("node1", "kubeadm init --patches /tmp/bad", "maxPods (--max-pods) -1 must not be a negative number");
    lab.on("node1", "[ ! -e /var/lib/coracle ]");

    lab.write("node1", "/tmp/patches/kubeletconfiguration0+merge.yaml", "maxPods: 50");
    lab.on("node1", "kubeadm init --patches /tmp/patches");
    let join = lab.on("node1", "kubeadm token create --print-join-command");
    lab.on("node2", join.trim());
    let pods = |node: &str, count: u32| lab.on("node1", &format!("until [ \"$(kubectl get node {node} -o jsonpath='{{.status.capacity.pods}}')\" = {count} ]; do :; done"));
    pods("node1", 50);
    pods("node2", 110);

    // As an older one left it.
    lab.on("node2", "coracle down");
    lab.on("node1", &format!("{CONFIG_MAP} | sed 's/^kubernetesVersion: .*/kubernetesVersion: v1.36.0/' >/tmp/c && kubectl -n kube-system create configmap kubeadm-config --from-file=ClusterConfiguration=/tmp/c --dry-run=client -o yaml | kubectl replace -f -"));
    lab.on("node1", "kubectl patch node node2 --subresource=status -p '{\"status\":{\"nodeInfo\":{\"kubeletVersion\":\"v1.36.0\"}}}'");
    let version = lab.on("node1", "kubeadm version -o short").trim().to_owned();
    let plan = lab.on("node1", "kubeadm upgrade plan");
    assert!(plan.lines().any(|line| line.split_whitespace().collect::<Vec<_>>() == ["kubelet", "node2", "v1.36.0", &version]), "{plan}");
    assert!(!lab.on("node1", CONFIG_MAP).contains(&version));

    // Tried only, then for another version, then for real. What the cluster says of nodes holds again, but for this one's patch.
    lab.on("node1", "kubeadm upgrade apply -y --dry-run --patches /tmp/patches | grep -x '\tmaxPods: 50'");
    lab.refused("node1", "kubeadm upgrade apply v1.35.0 -y", "is not the version of this kubeadm");
    assert!(!lab.on("node1", CONFIG_MAP).contains(&version));
    let before = lab.on("node1", "cat /run/coracle*/coracle.pid");
    let said = lab.on("node1", "kubeadm upgrade apply -y --patches /tmp/patches");
    assert!(said.contains(&format!("SUCCESS! A control plane node of your cluster was upgraded to {version:?}.")), "{said}");
    assert_ne!(lab.on("node1", "cat /run/coracle*/coracle.pid"), before);
    assert!(lab.on("node1", CONFIG_MAP).contains(&format!("kubernetesVersion: {version}")));
    pods("node1", 50);

    // The other machine: what it cannot start with it does not keep.
    lab.on("node2", "coracle up --detach");
    lab.write("node2", "/tmp/bad/kubeletconfiguration.yaml", "maxPods: -1");
    lab.refused("node2", "kubeadm upgrade node --patches /tmp/bad", "maxPods (--max-pods) -1 must not be a negative number");
    lab.on("node2", "coracle status && ! grep -e '-1' /var/lib/kubelet/config.yaml");
    lab.write("node2", "/tmp/patches/kubeletconfiguration+json.json", "[{\"op\": \"add\", \"path\": \"/maxPods\", \"value\": 40}]");
    let said = lab.on("node2", "kubeadm upgrade node --patches /tmp/patches");
    assert!(said.contains("[upgrade/kubelet-config] The kubelet configuration for this node was successfully upgraded!"), "{said}");
    pods("node2", 40);
    lab.on("node1", &format!("until [ \"$(kubectl get node node2 -o jsonpath='{{.status.nodeInfo.kubeletVersion}}')\" = {version} ]; do :; done"));
    assert!(lab.on("node1", "kubeadm upgrade plan").contains("All of the cluster is of this version."));

    // Keys and requests for an authority elsewhere; what there is already stays.
    lab.on("node1", "kubeadm certs generate-csr --cert-dir /tmp/pki --kubeconfig-dir /tmp/kube");
    let wanted = pki::read_request(lab.on("node1", "cat /tmp/pki/apiserver.csr").as_bytes()).expect("a request");
    assert!(wanted.common_name == "kube-apiserver" && wanted.dns_names.iter().any(|name| name == "kubernetes.default.svc.cluster.local"), "{wanted:?}");
    assert!(lab.on("node1", "cat /tmp/kube/admin.conf").contains("client-key-data: "));
    lab.refused("node1", "kubeadm certs generate-csr --cert-dir /tmp/pki --kubeconfig-dir /tmp/kube", "file already exists: key or CSR /tmp/pki/apiserver");
    assert_eq!(lab.on("node1", "kubeadm config images list 2>/dev/null"), format!("coracle.dev/coracle:{version}\n"));
}
