//! Three machines of a lab, as root: two control planes on one etcd over mutual TLS and a worker, by kubeadm's words; what is refused leaves nothing behind; one of the control planes
//! stops, and the cluster goes on.

mod machines;

use machines::Lab;
use pki::{Authority, Pki};

const ETCD: &str = "https://192.168.0.13:2379";
/// Where the first control plane has what etcd knows the cluster by; the second one is sent it.
const FILES: &str = "--etcd-cafile /etc/etcd/ca.crt --etcd-certfile /etc/etcd/client.crt --etcd-keyfile /etc/etcd/client.key";

/// A disk that is almost full is no matter.
const DEPLOYMENT: &str = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"after"},"spec":{"replicas":1,"selector":{"matchLabels":{"app":"after"}},"template":{"metadata":{"labels":{"app":"after"}},
"spec":{"tolerations":[{"key":"node.kubernetes.io/disk-pressure","operator":"Exists"}],"containers":[{"name":"c","image":"none","imagePullPolicy":"Never"}]}}}}"#;

/// The command that follows `before`, in one line.
fn command(said: &str, before: &str) -> String {
    let rest = said.split(before).nth(1).unwrap_or_else(|| panic!("{said}"));
    let lines = rest.trim_start().lines().take_while(|line| !line.trim().is_empty() && !line.starts_with("hint:"));
    lines.map(|line| line.trim().trim_end_matches('\\')).collect::<Vec<_>>().join(" ")
}

#[test]
fn one_of_two_stops() {
    let lab = Lab::up(3);
    let now = jiff::Timestamp::now().as_second();
    let authority = Authority::generate("etcd-ca", now).expect("an authority");
    let server = authority.issue(&Pki::Server { name: "etcd", groups: &[], dns: &[], addresses: &["192.168.0.13".parse().expect("an address")] }, now).expect("a certificate");
    let client = authority.issue(&Pki::Client { user: "apiserver-etcd-client", groups: &[] }, now).expect("a certificate");
    for (node, name, identity) in [("node3", "server", &server), ("node1", "client", &client)] {
        lab.write(node, "/etc/etcd/ca.crt", &authority.identity.certificate_pem);
        lab.write(node, &format!("/etc/etcd/{name}.crt"), &identity.certificate_pem);
        lab.write(node, &format!("/etc/etcd/{name}.key"), &identity.key_pem);
    }
    let tls = "--cert-file /etc/etcd/server.crt --key-file /etc/etcd/server.key --trusted-ca-file /etc/etcd/ca.crt --client-cert-auth";
    lab.on("node3", &format!("(etcd --data-dir /var/lib/etcd --listen-client-urls https://0.0.0.0:2379 --advertise-client-urls {ETCD} {tls} --logger zap --log-outputs stderr >/var/log/etcd.log 2>&1 &); until grep -q 'serving client traffic securely' /var/log/etcd.log; do :; done"));
    for node in ["node1", "node2", "node3"] {
        // A name that leads to all API servers.
        lab.on(node, "printf '192.168.0.11 api\\n192.168.0.12 api\\n' >>/etc/hosts");
    }
    lab.refused("node1", "kubeadm init --apiserver-advertise-address 192.168.0.11 --etcd-servers http://192.168.0.13:1", "[ERROR ExternalEtcd]: etcd at http://192.168.0.13:1 does not answer");
    // Without a certificate of its authority nobody is let in.
    lab.refused("node1", &format!("kubeadm init --apiserver-advertise-address 192.168.0.11 --etcd-servers {ETCD} --etcd-cafile /etc/etcd/ca.crt"), "[ERROR ExternalEtcd]: etcd at https://192.168.0.13:2379 does not answer");
    lab.is_clean("node1");
    let said = lab.on("node1", &format!("kubeadm init --apiserver-advertise-address 192.168.0.11 --etcd-servers {ETCD} {FILES} --control-plane-endpoint api --upload-certs"));
    let join = command(&said, "control-plane nodes running the following command on each as root:");
    let worker = command(&said, "worker nodes by running the following on each as root:");
    assert!(join.starts_with("kubeadm join api:6443 ") && join.contains(" --control-plane --certificate-key "), "{said}");

    lab.refused("node1", &format!("kubeadm init --apiserver-advertise-address 192.168.0.11 --etcd-servers {ETCD} {FILES}"), "holds a cluster's objects already");
    let keyless = join.split(" --certificate-key").next().expect("a command");
    lab.refused("node2", keyless, "The certificates that must be shared among control plane instances are provided.");
    lab.refused("node2", &format!("{keyless} --certificate-key {}", "0".repeat(64)), "error decoding secret data with provided key: cipher: message authentication failed");
    lab.is_clean("node2");
    let said = lab.on("node2", &format!("{join} --apiserver-advertise-address 192.168.0.12"));
    assert!(said.contains("This node has joined the cluster and a new control plane instance was created:"), "{said}");
    // What etcd knows them by came with the rest.
    assert_eq!(lab.on("node2", "cat /etc/etcd/client.crt"), client.certificate_pem);
    // A worker step by step.
    for phase in ["preflight", "control-plane-prepare", "kubelet-start"] {
        lab.on("node3", &worker.replacen("kubeadm join", &format!("kubeadm join phase {phase}"), 1));
    }
    lab.on("node2", "kubectl wait --for=condition=Ready node/node1 node/node2 node/node3 --timeout=120s");
    assert_eq!(lab.on("node1", "kubectl get endpoints kubernetes -o jsonpath='{.subsets[*].addresses[*].ip}' 2>/dev/null"), "192.168.0.11 192.168.0.12");
    let ranges = lab.on("node1", "kubectl get nodes -o jsonpath='{.items[*].spec.podCIDR}'");
    assert_eq!(ranges.split(' ').collect::<std::collections::BTreeSet<_>>().len(), 3, "{ranges}");
    assert!(lab.on("node1", "kubectl get node node2 -o jsonpath='{.spec.taints[*].key} {.metadata.labels}'").matches("node-role.kubernetes.io/control-plane").count() >= 2);
    // A step alone, after the one that wrote its login.
    lab.on("node2", "kubectl label node node2 node-role.kubernetes.io/control-plane-");
    lab.on("node2", "kubeadm join phase control-plane-join mark-control-plane --control-plane --apiserver-advertise-address 192.168.0.12 && kubeadm join phase check-etcd --control-plane");
    assert_eq!(lab.on("node2", "kubectl get node -l node-role.kubernetes.io/control-plane -o name"), "node/node1\nnode/node2\n");
    // Each reaches the agents of all: the log of a part of the other one.
    lab.on("node1", "kubectl logs -n kube-system kube-apiserver-node2 | grep -q .");

    lab.on("node1", "coracle down");
    // Its place is taken: in the endpoints, and by whoever decides.
    lab.on("node2", "kubectl wait --for=jsonpath='{.subsets[0].addresses[*].ip}'=192.168.0.12 endpoints/kubernetes --timeout=120s 2>/dev/null");
    lab.on("node2", &format!("echo '{DEPLOYMENT}' | kubectl create -f - && kubectl wait --for=jsonpath='{{.status.replicas}}'=1 deployment/after --timeout=120s"));
    lab.on("node2", "kubectl wait --for=jsonpath='{.spec.nodeName}'=node3 pod -l app=after --timeout=120s");
    // The worker's agent has found the other one: it tells of the pod.
    lab.on("node2", "kubectl wait --for=jsonpath='{.status.hostIP}'=192.168.0.13 pod -l app=after --timeout=120s");
    lab.on("node1", "coracle up --detach");
    assert_eq!(lab.on("node1", "kubectl get deployment after -o jsonpath='{.status.replicas}'"), "1");
    lab.on("node2", "kubectl wait --for=jsonpath='{.subsets[0].addresses[0].ip}'=192.168.0.11 endpoints/kubernetes --timeout=120s 2>/dev/null");

    // The same version again, on each kind of machine: what runs is this program from then on, and the pod stays.
    assert!(lab.on("node1", "kubeadm upgrade plan").contains("All of the cluster is of this version."));
    lab.refused("node1", "kubeadm upgrade apply v1.99.0 -y", "is not the version of this kubeadm");
    let process = "cat /run/coracle/coracle.pid";
    for (node, command, done) in [("node1", "kubeadm upgrade apply -y", "[upgrade] SUCCESS! A control plane node of your cluster was upgraded to"), ("node3", "kubeadm upgrade node", "The kubelet configuration for this node was successfully upgraded!")] {
        let before = lab.on(node, process);
        assert!(lab.on(node, command).contains(done));
        assert_ne!(lab.on(node, process), before);
    }
    lab.on("node1", "kubectl wait --for=condition=Ready node/node1 node/node2 node/node3 --timeout=120s");
    lab.write("node3", "/tmp/reset.yaml", "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ResetConfiguration\nforce: true\n");
    lab.on("node3", "kubeadm reset --config /tmp/reset.yaml --dry-run && test -e /etc/kubernetes/kubelet.conf && kubeadm reset --config /tmp/reset.yaml");
    lab.is_clean("node3");
}
