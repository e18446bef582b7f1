//! What a KubeletConfiguration says takes effect on a node: a machine of a lab, as root, configured as nobody would, and each field seen where it shows. What has no effect is told
//! in the log. `docs/kubelet-configuration.md` is the list.

mod machines;

use machines::Lab;

const CONFIG: &str = "apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 192.168.0.11}
nodeRegistration: {taints: []}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
maxPods: 12
podPidsLimit: 61
containerLogMaxSize: 100Ki
containerLogMaxFiles: 2
containerLogMonitorInterval: 3s
systemReserved: {cpu: 100m, memory: 64Mi}
kubeReserved: {cpu: 150m, memory: 36Mi}
evictionHard: {memory.available: 28Mi}
nodeLeaseDurationSeconds: 21
nodeStatusUpdateFrequency: 1s
nodeStatusReportFrequency: 2s
readOnlyPort: 10255
port: 10260
tlsMinVersion: VersionTLS13
allowedUnsafeSysctls: [net.core.somaxconn]
clusterDNS: [192.0.2.53]
resolvConf: /etc/other-resolv.conf
registerWithTaints: [{key: example.com/own, value: a, effect: PreferNoSchedule}]
providerID: example://machine/1
seccompDefault: true
staticPodPath: /etc/other-manifests
podLogsDir: /var/log/other-pods
nodeStatusMaxImages: 1
crashLoopBackOff: {maxContainerRestartPeriod: 1s}
cpuManagerPolicy: static
reservedSystemCPUs: '0'
hairpinMode: hairpin-veth
topologyManagerPolicy: best-effort
syncFrequency: 30s
featureGates: {GracefulNodeShutdown: false}
streamingConnectionIdleTimeout: 1h
enforceNodeAllocatable: [pods]
";

/// Fields of above that are only taken.
const WITHOUT_EFFECT: [&str; 8] = ["cpuManagerPolicy", "reservedSystemCPUs", "hairpinMode", "topologyManagerPolicy", "syncFrequency", "featureGates", "streamingConnectionIdleTimeout", "enforceNodeAllocatable"];

/// Its files are the node's: no image is needed but an empty one.
fn pod(name: &str, spec: &str, script: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}"}},"spec":{{{spec}"nodeName":"node1","terminationGracePeriodSeconds":0,"containers":[{{"name":"c","image":"empty","imagePullPolicy":"Never","command":["/usr/bin/sh","-c","{script}"],
"volumeMounts":[{{"name":"usr","mountPath":"/usr","readOnly":true}},{{"name":"lib","mountPath":"/lib","readOnly":true}},{{"name":"lib64","mountPath":"/lib64","readOnly":true}}]}}],
"volumes":[{{"name":"usr","hostPath":{{"path":"/usr"}}}},{{"name":"lib","hostPath":{{"path":"/usr/lib"}}}},{{"name":"lib64","hostPath":{{"path":"/usr/lib64"}}}}]}}}}"#
    )
}

#[test]
fn each_field_is_seen() {
    let lab = Lab::up(1);
    lab.write("node1", "/etc/other-resolv.conf", "nameserver 192.0.2.7\nsearch other.example");
    lab.write("node1", "/tmp/init.yaml", CONFIG);
    lab.on("node1", "kubeadm init --config /tmp/init.yaml");
    for name in ["empty", "second"] {
        lab.on("node1", &format!("mkdir -p /tmp/e && echo {name} >/tmp/e/f && printf 'FROM scratch\\nCOPY f /f\\n' >/tmp/e/Dockerfile && coracle build -t {name} /tmp/e"));
    }
    let node = |path: &str| lab.on("node1", &format!("kubectl get node node1 -o jsonpath='{{{path}}}'"));
    let until = |what: &str, is: &str| lab.on("node1", &format!("until [ \"$({what})\" = '{is}' ]; do :; done"));
    let create = |text: &str| lab.on("node1", &format!("until kubectl get serviceaccount default >/dev/null 2>&1; do :; done; echo '{text}' | kubectl create -f -"));

    // Of the node.
    assert_eq!(node(".spec.providerID"), "example://machine/1");
    until("kubectl get node node1 -o jsonpath='{.status.capacity.pods} {.status.daemonEndpoints.kubeletEndpoint.Port}'", "12 10260");
    assert!(node(".spec.taints[*].key").contains("example.com/own"), "{}", node(".spec.taints"));
    until("kubectl -n kube-node-lease get lease node1 -o jsonpath='{.spec.leaseDurationSeconds}'", "21");
    until("kubectl get node node1 -o json | jq '.status.images | length'", "1");
    // What is reserved, and what eviction keeps free.
    let kept = "kubectl get node node1 -o json | jq -r '.status | [.capacity, .allocatable] | map(.memory | rtrimstr(\"Ki\") | tonumber) | .[0] - .[1]'";
    assert_eq!(lab.on("node1", kept).trim(), (128 * 1024).to_string());
    let cpus = "kubectl get node node1 -o json | jq -r '.status | (.capacity.cpu | tonumber) * 1000 - (.allocatable.cpu | rtrimstr(\"m\") | tonumber)'";
    assert_eq!(lab.on("node1", cpus).trim(), "250");
    // It tells of itself every two seconds, not every five minutes.
    let beat = "kubectl get node node1 -o jsonpath='{.status.conditions[?(@.type==\"Ready\")].lastHeartbeatTime}'";
    let first = lab.on("node1", beat);
    lab.on("node1", &format!("timeout 120 sh -c 'until [ \"$({})\" != {first} ]; do :; done'", beat.replace('\'', "'\\''")));

    // Its doors.
    lab.on("node1", "curl -sf http://127.0.0.1:10255/pods | grep -q PodList && curl -sk --fail https://127.0.0.1:10260/healthz -o /dev/null; [ $? -ne 7 ]");
    lab.on("node1", "! curl -sk --tls-max 1.2 https://127.0.0.1:10260/healthz");
    assert_eq!(lab.on("node1", "curl -sk --tlsv1.3 https://127.0.0.1:10260/pods"), "Unauthorized");

    // Of pods.
    create(&pod("plain", "", "cat /etc/resolv.conf; grep Seccomp: /proc/self/status; exec sleep 10000"));
    create(&pod("own", r#""dnsPolicy":"Default","securityContext":{"seccompProfile":{"type":"Unconfined"},"sysctls":[{"name":"net.core.somaxconn","value":"333"}]},"#, "cat /etc/resolv.conf /proc/sys/net/core/somaxconn; grep Seccomp: /proc/self/status; exec sleep 10000"));
    create(&pod("forbidden", r#""securityContext":{"sysctls":[{"name":"kernel.msgmax","value":"65536"}]},"#, "exec sleep 10000"));
    create(&pod("many", "", "for i in $(seq 100); do sleep 10000 & done; echo all; wait"));
    create(&pod("loud", "", "i=0; while [ $i -lt 6000 ]; do i=$((i+1)); echo $i 0123456789012345678901234567890123456789; done; exec sleep 10000"));
    create(&pod("dying", "", "exit 1"));
    lab.on("node1", "kubectl wait --for=condition=Ready pod/plain pod/own pod/loud --timeout=120s");
    let plain = lab.on("node1", "until kubectl logs plain | grep -q Seccomp; do :; done; kubectl logs plain");
    assert!(plain.contains("nameserver 192.0.2.53") && plain.contains("search default.svc.cluster.local") && plain.contains("Seccomp:\t2"), "{plain}");
    let own = lab.on("node1", "until kubectl logs own | grep -q Seccomp; do :; done; kubectl logs own");
    assert!(own.contains("nameserver 192.0.2.7") && own.contains("\n333\n") && own.contains("Seccomp:\t0"), "{own}");
    until("kubectl get pod forbidden -o jsonpath='{.status.reason}'", "SysctlForbidden");
    // Not a hundred of them: the sixty-first is refused.
    lab.on("node1", "until kubectl logs many | grep -qi 'fork'; do :; done");
    // Set aside when it is full, and only so many.
    lab.on("node1", "until [ -e /var/log/other-pods/default_loud_*/c/0.log.* ]; do :; done; [ $(ls /var/log/other-pods/default_loud_*/c | wc -l) -le 2 ]");
    // By default the fourth time would be after 150 s.
    lab.on("node1", "timeout 120 sh -c 'until [ $(kubectl get pod dying -o jsonpath={.status.containerStatuses[0].restartCount}) -ge 4 ]; do :; done'");
    lab.write("node1", "/etc/other-manifests/static.json", &pod("static", "", "exec sleep 10000"));
    lab.on("node1", "until kubectl get pod static-node1 >/dev/null 2>&1; do :; done");

    // What is only taken is told.
    let log = lab.on("node1", "cat /var/lib/coracle/coracle.log");
    for field in WITHOUT_EFFECT {
        assert!(log.lines().any(|line| line.contains(&format!(" {field}: ")) && line.contains(" has no effect: ")), "{field}");
    }
    assert!(lab.on("node1", "kubectl get --raw /api/v1/nodes/node1/proxy/configz").contains("\"podPidsLimit\":61"));

    // Without them nobody looks into pods; and a machine whose disk nobody is to share out.
    lab.on("node1", "coracle down && printf 'enableDebuggingHandlers: false\\nlocalStorageCapacityIsolation: false\\n' >>/var/lib/kubelet/config.yaml && coracle up --detach");
    lab.refused("node1", "kubectl logs plain", "MethodNotAllowed");
    until("kubectl get node node1 -o jsonpath='{.status.capacity.ephemeral-storage}'", "");
}
