//! A lab of two bare nodes, as root: what a node sees, what its links do, what power and `down` leave.

use std::path::Path;
use std::process::{Command, Output, Stdio};

struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("tempdir") }
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
        command.args(["lab", "--data-dir"]).arg(self.folder.path().join("lab")).args(words).stdin(Stdio::null());
        command.output().expect("coracle")
    }

    fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn refused(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(!output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stderr).expect("text")
    }

    fn on(&self, node: &str, script: &str) -> String {
        self.ok(&["shell", node, "--", "sh", "-c", script])
    }

    fn ping(&self, node: &str, address: &str, seconds: &str) -> bool {
        self.run(&["shell", node, "--", "busybox", "ping", "-c", "1", "-W", seconds, address]).status.success()
    }

    fn reaches(&self, node: &str, address: &str) -> bool {
        self.ping(node, address, "20")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.folder.path().join("lab").exists() {
            self.run(&["down"]);
        }
    }
}

fn cgroups(lab: &Lab) -> bool {
    let name: String = lab.folder.path().join("lab").to_string_lossy().chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
    ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].iter().any(|root| Path::new(root).join(format!("coracle-lab{name}")).exists())
}

#[test]
fn a_lab_from_up_to_down() {
    let lab = Lab::new();
    assert!(lab.refused(&["status"]).contains("hint: `coracle lab up` makes one"));
    assert!(lab.refused(&["up", "--nodes", "0"]).contains("a lab has 1 to 50 nodes"));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts").lines().filter(|line| line.contains("/lab/")).count();
    lab.ok(&["up", "--nodes", "2", "--bare"]);
    assert!(lab.refused(&["up"]).contains("there is already a lab in"));

    // A node is a machine of its own: name, address, processes, files.
    assert_eq!(lab.on("node2", "hostname; hostname -i; echo $HOME"), "node2\n192.168.0.12\n/root\n");
    assert_eq!(lab.on("node1", "cat /proc/1/comm; ls /proc | grep -c '^[0-9]'").lines().next(), Some("coracle"));
    assert!(lab.on("node1", "kubectl version --client").contains("Client Version"));
    lab.on("node1", "touch /var/lib/mine /etc/mine /usr/local/mine /tmp/mine /root/mine");
    assert!(["/var/lib/mine", "/etc/mine", "/usr/local/mine", "/tmp/mine", "/root/mine"].iter().all(|path| !Path::new(path).exists()));
    assert_eq!(lab.on("node2", "ls /var/lib/mine /etc/mine 2>/dev/null; true"), "");
    assert!(!lab.run(&["shell", "node1", "--", "touch", "/usr/mine"]).status.success(), "the host's folders are only to read");
    assert_eq!(lab.run(&["shell", "node1", "--", "sh", "-c", "exit 7"]).status.code(), Some(7));
    assert_eq!(lab.run(&["shell", "node1", "--", "no-such-program"]).status.code(), Some(127));

    // What is built on one node is there for all, by the names of registries.
    lab.on("node1", "mkdir /tmp/app && cd /tmp/app && echo hello >hello && printf 'FROM scratch\nCOPY hello /\n' >Dockerfile && coracle build -t me/app:v1 . && coracle image push me/app:v1");
    lab.on("node2", "coracle image pull me/app:v1");
    assert!(lab.on("node2", "coracle image list").contains("me/app"));
    assert!(lab.on("node2", "coracle image pull me/app:v2 2>&1 || true").contains("not found"));

    // What the workshop fetches is there, over HTTPS; nothing else is.
    assert!(lab.on("node1", "curl -fsS --max-time 30 'https://cloud.weave.works/k8s/net?k8s-version=x'").contains("\"weave-net\""));
    assert!(lab.on("node1", "curl -sS --max-time 30 https://github.com/nobody/nothing").contains("mirror of a Coracle lab"));

    // Links.
    assert!(lab.reaches("node1", "192.168.0.12") && lab.reaches("node2", "8.8.8.8"));
    lab.ok(&["cut", "node2"]);
    assert!(!lab.ping("node1", "192.168.0.12", "1") && lab.reaches("node1", "8.8.8.8"));
    assert!(lab.ok(&["status"]).contains("cut"));
    assert_eq!(lab.ok(&["heal"]), "healed node2\n");
    assert!(lab.reaches("node1", "192.168.0.12"));
    lab.ok(&["slow", "node2", "--delay", "20ms", "--loss", "0.1%"]);
    assert!(lab.ok(&["status"]).contains("slow: 20 ms late each way, 0.1 % lost"));
    let answer = (0..20).find_map(|_| {
        let output = lab.run(&["shell", "node1", "--", "busybox", "ping", "-c", "1", "-W", "5", "192.168.0.12"]);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    });
    let answer = answer.expect("one of twenty packets arrives");
    let time: f64 = answer.split("time=").nth(1).and_then(|rest| rest.split(' ').next()).and_then(|time| time.parse().ok()).expect("a time");
    assert!(time >= 40.0, "{time} ms there and back");
    lab.ok(&["slow", "node2", "--loss", "100%"]);
    assert!(!lab.ping("node1", "192.168.0.12", "1"));
    lab.ok(&["heal"]);
    assert!(lab.reaches("node1", "192.168.0.12"));

    // One more machine, and one less.
    assert!(lab.ok(&["add"]).contains("node3 (192.168.0.13) is on after"));
    assert!(lab.on("node1", "getent hosts node3").starts_with("192.168.0.13") && lab.reaches("node1", "192.168.0.13") && lab.reaches("node3", "192.168.0.12"));
    assert!(lab.refused(&["add", "node3"]).contains("there is a node \"node3\" already"));
    assert!(lab.refused(&["rm", "node1"]).contains("the lab's first machine"));
    assert_eq!(lab.ok(&["rm", "node3"]), "node3 is gone, with its disk\n");
    assert!(!lab.on("node2", "cat /etc/hosts").contains("node3") && !lab.folder.path().join("lab/nodes/node3").exists());
    assert!(lab.refused(&["shell", "node3"]).contains("it has node1, node2"));

    // Power.
    lab.on("node2", "touch /run/volatile; (sleep 1000 >/dev/null 2>&1 &)");
    lab.ok(&["kill", "node2"]);
    assert!(lab.refused(&["shell", "node2"]).contains("node2 is switched off"));
    assert!(lab.refused(&["cut", "node3"]).contains("it has node1, node2"));
    lab.ok(&["start", "node2"]);
    assert!(lab.refused(&["start", "node2"]).contains("already runs"));
    assert_eq!(lab.on("node2", "ls /run/volatile 2>/dev/null; ls /etc/hostname; cat /proc/[0-9]*/comm | grep -c ^sleep; true"), "/etc/hostname\n0\n");
    assert!(lab.reaches("node1", "192.168.0.12"));

    // A cluster whose Services are another proxy's: the nodes program none, and answer names where that one leads the DNS Service.
    let made = lab.on("node1", "kubeadm init --apiserver-advertise-address $(hostname -i) --skip-phases=addon/kube-proxy");
    assert!(made.contains("essential addon: CoreDNS") && !made.contains("essential addon: kube-proxy"), "{made}");
    lab.on("node2", &lab.on("node1", "kubeadm token create --print-join-command"));
    assert!(lab.on("node1", "kubectl -n kube-system get configmap kubeadm-config -o yaml").contains("disabled: true"));
    assert_eq!(lab.on("node1", "kubectl -n kube-system get pods -l k8s-app=kube-proxy -o name"), "");
    assert!(lab.on("node2", "cat /var/lib/coracle/kubeadm.json").contains(r#""--service-proxy","none""#), "who joins is told");
    assert!(!lab.run(&["shell", "node1", "--", "curl", "-sk", "--max-time", "1", "https://10.96.0.1/version"]).status.success(), "nobody translates it");
    until(&lab, "busybox nslookup -type=a kubernetes.default.svc.cluster.local 192.168.0.11 | grep -c '^Address: 10.96.0.1$'", "1\n");

    assert!(cgroups(&lab));
    lab.ok(&["down"]);
    assert!(!lab.folder.path().join("lab").exists() && !cgroups(&lab));
    let after = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts").lines().filter(|line| line.contains("/lab/")).count();
    assert_eq!(mounts, after);
    assert!(lab.refused(&["down"]).contains("there is no lab in"));
}

/// What is in the cluster, and whose own word for it (`kubectl wait`) needs the objects to be there: asked for until it is so.
fn until(lab: &Lab, what: &str, wanted: &str) {
    let mut seen = String::new();
    for _ in 0..600 {
        seen = lab.on("node1", what);
        if seen == wanted {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("{what}: {seen}, not {wanted}");
}

/// Pods of both nodes, Services and names by both families.
#[test]
fn a_cluster_of_two_families() {
    let lab = Lab::new();
    lab.ok(&["up", "--nodes", "2", "--pod-network-cidr", "fd00:10:244::/56,10.244.0.0/16", "--service-cidr", "fd00:10:96::/112,10.96.0.0/12"]);
    lab.on("node1", r#"kubectl run far --image=coracle.dev/coracle --overrides='{"spec":{"nodeName":"node2"}}' -- network install --to /dev"#);
    until(&lab, "kubectl get pod far -o jsonpath='{.status.phase}'", "Running");
    let addresses = lab.on("node1", "kubectl get pod far -o jsonpath='{.status.podIPs[*].ip}'");
    assert!(addresses.starts_with("fd00:10:244:1::") && addresses.contains(" 10.244.1."), "{addresses}");
    for address in addresses.split(' ') {
        assert!(lab.reaches("node1", address), "{address}");
    }
    for (server, name) in [("fd00:10:96::a", "fd00:10:96::1"), ("10.96.0.10", "fd00:10:96::1")] {
        until(&lab, &format!("busybox nslookup -type=aaaa kubernetes.default.svc.cluster.local {server} | grep -c '^Address: {name}$'"), "1\n");
    }
    assert_eq!(lab.on("node2", "curl -sk -o /dev/null -w '%{http_code}' 'https://[fd00:10:96::1]/version'"), "200");
    assert!(lab.ok(&["add", "spare"]).contains("spare has joined and is ready after"));
    assert_eq!(lab.on("node1", "kubectl get node spare -o jsonpath='{.spec.podCIDRs}'"), r#"["fd00:10:244:2::/64","10.244.2.0/24"]"#);
    lab.ok(&["rm", "spare"]);
    assert_eq!(lab.on("node1", "kubectl get nodes -o jsonpath='{.items[*].metadata.name}'"), "node1 node2");
    lab.ok(&["down"]);
}

/// The lesson's literal command is what makes the nodes ready, and pods start.
#[test]
fn a_network_is_applied() {
    let lab = Lab::new();
    let until = |what: &str, wanted: &str| until(&lab, what, wanted);
    lab.ok(&["up", "--nodes", "2", "--network", "none"]);
    let ready = r#"kubectl get nodes -o jsonpath='{range .items[*]}{.status.conditions[?(@.type=="Ready")].reason}: {.status.conditions[?(@.type=="Ready")].message}{"\n"}{end}'"#;
    let waits = "KubeletNotReady: container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized\n";
    until(ready, &waits.repeat(2));
    // A pod that nobody schedules, but its author: it waits, and says why.
    lab.on("node1", r#"kubectl run early --image=coracle.dev/coracle --overrides='{"spec":{"nodeName":"node2","tolerations":[{"operator":"Exists"}]}}' -- network install --to /dev"#);
    until("kubectl get events -o jsonpath='{.items[?(@.reason==\"NetworkNotReady\")].type}' | cut -c1-7", "Warning\n");
    assert_eq!(lab.on("node1", "kubectl get pod early -o jsonpath='{.status.phase}'"), "Pending");
    let applied = lab.on("node1", r#"kubectl apply -n kube-system -f "https://cloud.weave.works/k8s/net?k8s-version=$(kubectl version | base64 | tr -d '\n')""#);
    assert_eq!(applied.matches(" created").count(), 6, "{applied}");
    until(ready, &"KubeletReady: kubelet is posting ready status\n".repeat(2));
    until("kubectl get pod early -o jsonpath='{.status.phase} {.status.podIP}' | cut -d. -f1,2", "Running 10.244\n");
    // Taken away again, and then the manifest that ships with Coracle.
    lab.on("node1", "kubectl delete pod early --grace-period=0 --force; kubectl delete -n kube-system daemonset weave-net");
    until("kubectl get pods -n kube-system -l name=weave-net -o name", "");
    for node in ["node1", "node2"] {
        lab.on(node, "rm /etc/cni/net.d/*");
    }
    until(ready, &waits.repeat(2));
    assert_eq!(lab.on("node1", "coracle network manifest | kubectl apply -f -"), "daemonset.apps/coracle-network created\n");
    until(ready, &"KubeletReady: kubelet is posting ready status\n".repeat(2));
    lab.ok(&["down"]);
}
