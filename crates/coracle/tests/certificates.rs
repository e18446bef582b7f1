//! Two machines of a lab, as root, whose agents' certificates live for fifteen seconds: the node outlives them. Meanwhile: what else of a cluster's names and certificates can be
//! asked for, and the authority of proxies in front, which changes while an API server behind another one serves.

mod machines;

use jiff::Timestamp;
use machines::Lab;
use pki::{Authority, Certificate, Pki};

const LIFE_SECONDS: i64 = 15;
/// Certificates begin so much before they were signed: clocks differ.
const BACKDATE_SECONDS: i64 = 300;

const CONFIG: &str = "apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 192.168.0.11}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
networking: {dnsDomain: boat.example}
apiServer: {extraArgs: [{name: v, value: '2'}]}
controllerManager: {extraArgs: [{name: cluster-signing-duration, value: 15s}]}
";

/// Its files are the node's: no image is needed but an empty one.
const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"far"},"spec":{"nodeName":"node2","terminationGracePeriodSeconds":1,
"containers":[{"name":"c","image":"empty","imagePullPolicy":"Never","command":["/usr/bin/sh","-c","cat /etc/resolv.conf; exec sleep 10000"],
"volumeMounts":[{"name":"usr","mountPath":"/usr","readOnly":true},{"name":"lib","mountPath":"/lib","readOnly":true},{"name":"lib64","mountPath":"/lib64","readOnly":true}]}],
"volumes":[{"name":"usr","hostPath":{"path":"/usr"}},{"name":"lib","hostPath":{"path":"/usr/lib"}},{"name":"lib64","hostPath":{"path":"/usr/lib64"}}]}}"#;

/// A kind of its own, of an API server behind.
const BOATS: &str = r#"{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"boats.sea.example"},"spec":{"group":"sea.example","scope":"Cluster","names":{"plural":"boats","singular":"boat","kind":"Boat","listKind":"BoatList"},
"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object"}}}]}}"#;
const BEHIND: &str = r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Service","metadata":{"name":"sea","namespace":"default"},"spec":{"ports":[{"name":"https","port":443,"targetPort":7443}]}},
{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"name":"sea-1","namespace":"default","labels":{"kubernetes.io/service-name":"sea"}},"addressType":"IPv4","endpoints":[{"addresses":["192.168.0.12"]}],"ports":[{"name":"https","port":7443}]},
{"apiVersion":"apiregistration.k8s.io/v1","kind":"APIService","metadata":{"name":"v1.sea.example"},"spec":{"group":"sea.example","version":"v1","groupPriorityMinimum":100,"versionPriority":100,"insecureSkipTLSVerify":true,"service":{"namespace":"default","name":"sea","port":443}}}]}"#;

const CLIENT: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";
const SERVING: &str = "/var/lib/kubelet/pki/kubelet-server-current.pem";

fn facts(lab: &Lab, file: &str) -> Certificate {
    Certificate::read(lab.on("node2", &format!("until [ -e {file} ]; do :; done; cat {file}")).as_bytes()).expect("a certificate")
}

/// Another API server on node2, which is served by the first one's.
fn behind(lab: &Lab) {
    lab.on("node2", "coracle up --no-node --detach --data-dir /var/lib/behind --secure-port 7443 --requestheader-client-ca-file /tmp/front/ca.crt");
}

#[test]
fn a_node_outlives_its_certificates() {
    let lab = Lab::up(2);
    lab.write("node1", "/tmp/init.yaml", &CONFIG.replace("apiServer: {extraArgs: [{name: v,", "apiServer: {extraArgs: [{name: runtime-config,"));
    lab.refused("node1", "kubeadm init --config /tmp/init.yaml", "[ERROR ExtraArgs]: apiServer.extraArgs: --runtime-config=2 cannot be had here");
    lab.is_clean("node1");
    lab.write("node1", "/tmp/init.yaml", CONFIG);
    lab.on("node1", "kubeadm init --config /tmp/init.yaml");
    let join = lab.on("node1", "kubeadm token create --print-join-command");
    lab.on("node2", &join);
    let client = lab.on("node2", &format!("cp {CLIENT} /tmp/first.pem && cat /tmp/first.pem"));
    let client = Certificate::read(client.as_bytes()).expect("a certificate");
    let serving = facts(&lab, SERVING);
    for first in [&client, &serving] {
        assert_eq!((first.common_name.as_str(), first.not_after - first.not_before), ("system:node:node2", LIFE_SECONDS + BACKDATE_SECONDS));
    }

    // The cluster's domain, everywhere.
    let domain = "kubernetes.default.svc.boat.example";
    lab.on("node1", &format!("curl -sS --fail --cacert /etc/kubernetes/pki/ca.crt --resolve {domain}:6443:192.168.0.11 https://{domain}:6443/healthz"));
    assert!(lab.on("node1", "kubectl get --raw /.well-known/openid-configuration").contains(&format!("\"issuer\":\"https://{domain}\"")));
    assert!(lab.on("node1", "kubectl -n kube-system get configmap coredns -o yaml").contains("kubernetes boat.example in-addr.arpa"));
    lab.on("node2", "mkdir /tmp/e && touch /tmp/e/f && printf 'FROM scratch\\nCOPY f /f\\n' >/tmp/e/Dockerfile && coracle build -t empty /tmp/e");
    lab.on("node1", &format!("echo '{POD}' | kubectl create -f - && kubectl wait --for=condition=Ready pod/far --timeout=120s"));
    assert!(lab.on("node1", "kubectl logs far").contains("search default.svc.boat.example svc.boat.example boat.example"));
    assert!(lab.on("node2", &format!("busybox nslookup {domain} 10.96.0.10")).contains("10.96.0.1\n"));

    corefile(&lab);
    // The first machine's agent shows another one as well.
    let serves = "curl -skv https://192.168.0.11:10250/healthz 2>&1 | grep 'expire date'";
    let first = lab.on("node1", serves);

    proxies(&lab);

    // Both have ended, and the node tells of itself all the same, by the state of a pod that it is given now. The first one is refused, the one there now is not.
    let ended = client.not_after.max(serving.not_after) + 1;
    let asks = |file: &str| format!("curl -sS --fail -o /dev/null --cacert /etc/kubernetes/pki/ca.crt --cert {file} https://192.168.0.11:6443/api");
    lab.on("node2", &format!("while {} 2>/dev/null || [ $(date +%s) -lt {ended} ]; do :; done", asks("/tmp/first.pem")));
    lab.refused("node2", &asks("/tmp/first.pem"), "curl: (");
    lab.on("node2", &asks(CLIENT));
    lab.on("node1", "kubectl run late --image=none --image-pull-policy=Never --overrides='{\"spec\":{\"nodeName\":\"node2\"}}'");
    lab.on("node1", "kubectl wait --for=jsonpath='{.status.containerStatuses[0].state.waiting.reason}'=ErrImageNeverPull pod/late --timeout=120s");
    assert_eq!(lab.on("node1", "kubectl get node node2 -o jsonpath='{.status.conditions[?(@.type==\"Ready\")].status}'"), "True");
    // Its API is reached: it shows one that is good.
    assert_eq!(lab.on("node1", "kubectl exec far -- /usr/bin/cat /etc/hostname"), "far\n");
    assert!(facts(&lab, CLIENT).not_after >= ended && facts(&lab, SERVING).not_after >= ended);
    let requests = lab.on("node1", "kubectl get csr -o jsonpath='{range .items[*]}{.spec.signerName} {.spec.username}{\"\\n\"}{end}'");
    for signer in ["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"] {
        assert!(requests.lines().filter(|line| *line == format!("{signer} system:node:node2")).count() >= 2, "{requests}");
    }
    lab.on("node1", &format!("until said=$({serves}) && [ \"$said\" != '{}' ]; do :; done", first.trim_end()));
    lab.on("node1", "curl -sS --cacert /etc/kubernetes/pki/ca.crt --resolve node1:10250:192.168.0.11 https://node1:10250/pods | grep Unauthorized");
    ended_while_off(&lab);
}

/// Both machines' name servers go by the same Corefile, at once; by one with a mistake neither does.
fn corefile(lab: &Lab) {
    let replace = |edit: &str| {
        lab.on("node1", &format!("{edit} </tmp/Corefile.first >/tmp/Corefile && kubectl -n kube-system create configmap coredns --from-file=/tmp/Corefile --dry-run=client -o yaml | kubectl replace -f -"));
    };
    lab.on("node1", "kubectl -n kube-system get configmap coredns -o jsonpath='{.data.Corefile}' >/tmp/Corefile.first");
    replace("sed 's/^ *forward/    hosts {\\n      10.9.8.7 db.example\\n      fallthrough\\n    }\\n    template IN A tpl.example {\\n      answer \"{{ .Name }} 5 IN A 10.9.8.8\"\\n    }\\n&/'");
    let known = |node: &str, name: &str, address: &str| lab.on(node, &format!("until busybox nslookup {name} 10.96.0.10 2>/dev/null | grep -q {address}; do :; done"));
    for node in ["node1", "node2"] {
        known(node, "db.example", "10.9.8.7");
        known(node, "any.tpl.example", "10.9.8.8");
    }
    replace("sed 's/errors/errorz/'");
    for node in ["node1", "node2"] {
        lab.on(node, "until grep -q \"unknown directive 'errorz'\" /var/lib/coracle/coracle.log; do :; done");
        known(node, "db.example", "10.9.8.7");
    }
    replace("cat");
}

/// An agent that was off while its certificate ended: what mends it, in upstream's two ways.
fn ended_while_off(lab: &Lab) {
    let read = |name: &str| lab.on("node1", &format!("cat /etc/kubernetes/pki/ca.{name}"));
    let authority = Authority::load(&read("crt"), &read("key")).expect("the authority");
    let over = authority.issue_for(&Pki::Client { user: "system:node:node2", groups: &["system:nodes"] }, Timestamp::now().as_second(), -1).expect("a certificate");
    let ends = || {
        lab.on("node2", "coracle down");
        lab.write("node2", CLIENT, &format!("{}{}", over.certificate_pem, over.key_pem));
    };
    let is_good = || assert!(facts(lab, CLIENT).not_after >= Timestamp::now().as_second());

    ends();
    lab.refused("node2", "coracle up --detach", "unable to load bootstrap kubeconfig: stat /etc/kubernetes/bootstrap-kubelet.conf: no such file or directory");
    lab.refused("node2", "coracle up --detach", "hint: on a control plane, `kubeadm kubeconfig user --org system:nodes --client-name system:node:node2 >kubelet.conf`");
    let bootstrap = |token: &str| {
        let config = lab.on("node1", &format!("kubeadm kubeconfig user --client-name tls-bootstrap-token-user --token {token}"));
        lab.write("node2", "/etc/kubernetes/bootstrap-kubelet.conf", &config);
    };
    bootstrap("abcdef.0123456789abcdef");
    lab.refused("node2", "coracle up --detach", "failed to run Kubelet: cannot create certificate signing request: Unauthorized");
    bootstrap(lab.on("node1", "kubeadm token create").trim());
    lab.on("node2", "coracle up --detach");
    is_good();

    ends();
    lab.on("node2", "rm /etc/kubernetes/bootstrap-kubelet.conf");
    let config = lab.on("node1", "kubeadm kubeconfig user --org system:nodes --client-name system:node:node2");
    lab.write("node2", "/etc/kubernetes/kubelet.conf", &config);
    lab.on("node2", "coracle up --detach");
    is_good();
    // The next start needs no help.
    lab.on("node2", "coracle down && coracle up --detach");
}

/// The API server in front proves itself by a certificate, and the one behind knows its authority: both change while they run.
fn proxies(lab: &Lab) {
    lab.write("node2", "/tmp/front/ca.crt", &lab.on("node1", "cat /etc/kubernetes/pki/front-proxy-ca.crt"));
    behind(lab);
    let kubectl = "kubectl --kubeconfig /var/lib/behind/admin.conf";
    lab.on("node2", &format!("echo '{BOATS}' | {kubectl} create -f - && {kubectl} wait --for=condition=Established crd/boats.sea.example --timeout=120s && {kubectl} create clusterrolebinding front --clusterrole=cluster-admin --user=kubernetes-admin"));
    lab.on("node1", &format!("echo '{BEHIND}' | kubectl create -f - && kubectl wait --for=condition=Available apiservice/v1.sea.example --timeout=120s"));
    lab.on("node1", "kubectl get --raw /apis/sea.example/v1/boats");

    let now = Timestamp::now().as_second();
    let authority = Authority::generate("front-proxy-ca", now).expect("an authority");
    let identity = authority.issue(&Pki::Client { user: "front-proxy-client", groups: &[] }, now).expect("a certificate");
    lab.write("node2", "/tmp/front/client.pem", &format!("{}{}", identity.certificate_pem, identity.key_pem));
    lab.write("node2", "/tmp/front/ca.crt", &authority.identity.certificate_pem);
    let asks = "curl -sk --cert /tmp/front/client.pem -H 'X-Remote-User: kubernetes-admin' https://192.168.0.12:7443/apis/sea.example/v1/boats";
    lab.on("node2", &format!("until {asks} | grep -q BoatList; do :; done"));
    for (name, identity) in [("front-proxy-ca", &authority.identity), ("front-proxy-client", &identity)] {
        lab.write("node1", &format!("/etc/kubernetes/pki/{name}.key"), &identity.key_pem);
        lab.write("node1", &format!("/etc/kubernetes/pki/{name}.crt"), &identity.certificate_pem);
    }
    // Told to those behind.
    let published = "kubectl -n kube-system get configmap extension-apiserver-authentication -o jsonpath='{.data.requestheader-client-ca-file}'";
    lab.on("node1", &format!("until {published} | grep -qF \"$(tail -n 2 /etc/kubernetes/pki/front-proxy-ca.crt | head -n 1)\"; do :; done"));
    // Started anew, the one behind lets nobody in by what was before.
    lab.on("node2", "coracle down --data-dir /var/lib/behind");
    behind(lab);
    lab.on("node1", "until kubectl get --raw /apis/sea.example/v1/boats | grep -q BoatList; do :; done");
    lab.on("node2", "coracle reset --data-dir /var/lib/behind");
}
