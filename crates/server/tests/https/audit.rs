//! The audit log of the real server: levels, stages, what is left out, annotations, and the id every answer bears.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use server::{Audit, AuditBatchOptions, AuditTruncation, AuditWebhookMode, AuditWebhookOptions, Backends, Hook, LogOptions};

use crate::harness::{CONFIG_MAPS, PODS, Server, config_map, pod};
use crate::listener::Listener;

struct Audited {
    server: Server,
    folder: tempfile::TempDir,
}

impl Audited {
    async fn start(policy: &str) -> Self {
        Self::start_with(policy, |_| {}).await
    }

    async fn start_with(policy: &str, change: impl FnOnce(&mut LogOptions)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy.yaml");
        std::fs::write(&file, format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{policy}")).unwrap();
        let mut options = LogOptions { path: folder.path().join("audit.log"), ..LogOptions::default() };
        change(&mut options);
        let audit = Audit::open(&file, Backends { log: Some(options), webhook: None }, Arc::new(api::world::SystemClock)).unwrap();
        Self { server: Server::start_with(|config| config.audit = Some(audit)).await, folder }
    }

    fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("audit.log")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn stages(&self, uri: &str) -> Vec<String> {
        self.events().iter().filter(|event| event["requestURI"].as_str().unwrap().starts_with(uri)).map(|event| event["stage"].as_str().unwrap().to_owned()).collect()
    }

    /// The one event of this verb at the end of its request.
    fn completed(&self, verb: &str) -> Value {
        self.events().into_iter().find(|event| event["verb"] == verb && event["stage"] == "ResponseComplete").unwrap_or_else(|| panic!("no {verb}"))
    }
}

#[tokio::test]
async fn what_is_told_at_each_level() {
    let audited = Audited::start(
        "
omitStages: [RequestReceived]
rules:
- {level: None, verbs: [list]}
- {level: Metadata, verbs: [get], resources: [{group: '', resources: [configmaps]}]}
- {level: Request, verbs: [create], resources: [{group: '', resources: [configmaps]}]}
- {level: RequestResponse, verbs: [update, patch, delete], omitManagedFields: true}
",
    )
    .await;
    let server = &audited.server;
    let created = server.call("POST", CONFIG_MAPS, &[("content-type", "application/json"), ("user-agent", "tester/1"), ("audit-id", "of-the-client")], config_map("a").to_string()).await.expect(201);
    assert_eq!(created.header("audit-id"), "of-the-client");
    let own = server.get(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    assert_eq!(own.header("audit-id").len(), 36);
    server.get(CONFIG_MAPS).await.expect(200);
    let mut object = own.json();
    object["data"]["k"] = "w".into();
    server.put(&format!("{CONFIG_MAPS}/a"), object).await.expect(200);
    server.patch(&format!("{CONFIG_MAPS}/a"), "json-patch+json", json!([{"op": "replace", "path": "/data/k", "value": "x"}])).await.expect(200);
    server.delete(&format!("{CONFIG_MAPS}/missing")).await.expect(404);

    let create = audited.completed("create");
    for (pointer, expected) in [
        ("/kind", json!("Event")),
        ("/apiVersion", json!("audit.k8s.io/v1")),
        ("/level", json!("Request")),
        ("/auditID", json!("of-the-client")),
        ("/requestURI", json!(CONFIG_MAPS)),
        ("/user/username", json!("kubernetes-admin")),
        ("/user/groups", json!(["system:masters", "system:authenticated"])),
        ("/sourceIPs", json!(["127.0.0.1"])),
        ("/userAgent", json!("tester/1")),
        ("/objectRef", json!({"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"})),
        ("/responseStatus", json!({"metadata": {}, "code": 201})),
        ("/requestObject/data", json!({"k": "v"})),
        ("/annotations", json!({"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""})),
    ] {
        assert_eq!(create.pointer(pointer), Some(&expected), "{pointer} of {create}");
    }
    assert!(create.get("responseObject").is_none());
    assert!(create["requestReceivedTimestamp"].as_str().unwrap() <= create["stageTimestamp"].as_str().unwrap());
    let get = audited.completed("get");
    assert_eq!((&get["level"], &get["auditID"]), (&json!("Metadata"), &json!(own.header("audit-id"))));
    assert!(get.get("requestObject").is_none() && get.get("responseObject").is_none());
    assert!(!audited.events().iter().any(|event| event["verb"] == "list" || event["stage"] == "RequestReceived"));
    let update = audited.completed("update");
    assert_eq!((&update["requestObject"]["data"]["k"], &update["responseObject"]["data"]["k"]), (&json!("w"), &json!("w")));
    assert!(!update.to_string().contains("managedFields"), "{update}");
    assert_eq!(audited.completed("patch")["requestObject"], json!([{"op": "replace", "path": "/data/k", "value": "x"}]));
    let delete = audited.completed("delete");
    assert_eq!((&delete["responseStatus"]["code"], &delete["responseStatus"]["reason"]), (&json!(404), &json!("NotFound")));
    assert_eq!(delete["responseStatus"]["message"], "configmaps \"missing\" not found");
}

#[tokio::test]
async fn stages_of_requests_and_of_streams() {
    let audited = Audited::start("rules: [{level: Metadata}]\n").await;
    let server = &audited.server;
    server.get(&format!("{CONFIG_MAPS}/none")).await.expect(404);
    assert_eq!(audited.stages(&format!("{CONFIG_MAPS}/none")), ["RequestReceived", "ResponseComplete"]);
    let mut events = server.watch(&format!("{CONFIG_MAPS}?watch=true&timeoutSeconds=1")).await;
    while events.next().await.is_some() {}
    // The stream's end is written down as its body is let go of.
    while audited.stages(&format!("{CONFIG_MAPS}?watch")).len() < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(audited.stages(&format!("{CONFIG_MAPS}?watch")), ["RequestReceived", "ResponseStarted", "ResponseComplete"]);
    // Who acts as another is told, and so is whether they may.
    server.call("GET", "/api/v1/namespaces/default/secrets", &[("impersonate-user", "bob")], "").await.expect(403);
    let refused = audited.events().into_iter().find(|event| event["impersonatedUser"]["username"] == "bob" && event["stage"] == "ResponseComplete").expect("bob");
    assert_eq!(refused["user"]["username"], "kubernetes-admin");
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(refused["responseStatus"]["code"], 403);
    assert_eq!(refused["responseStatus"]["reason"], "Forbidden");
    server.call("GET", "/api", &[("impersonate-user", "ann")], "").await.expect(200);
    let allowed = audited.events().into_iter().find(|event| event["impersonatedUser"]["username"] == "ann" && event["stage"] == "ResponseComplete").expect("ann");
    let why = r#"RBAC: allowed by ClusterRoleBinding "system:discovery" of ClusterRole "system:discovery" to Group "system:authenticated""#;
    assert_eq!(allowed["annotations"], json!({"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": why}));
    server.get("/version").await.expect(200);
    assert_eq!(audited.stages("/version").len(), 2);
    assert!(audited.events().iter().find(|event| event["requestURI"] == "/version").unwrap().get("objectRef").is_none());
}

#[tokio::test]
async fn what_admission_notes() {
    let audited = Audited::start("omitStages: [RequestReceived]\nrules: [{level: Metadata}]\n").await;
    let server = &audited.server;
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/audit": "restricted"});
    server.post("/api/v1/namespaces", json!({"metadata": {"name": "strict", "labels": labels}})).await.expect(201);
    server.service_account("strict").await;
    server.post(&PODS.replace("default", "strict"), pod("p")).await.expect(201);
    let create = audited.events().into_iter().find(|event| event["objectRef"]["resource"] == "pods").expect("the pod");
    assert_eq!(create["annotations"]["pod-security.kubernetes.io/enforce-policy"], "baseline:latest");
    let violations = create["annotations"]["pod-security.kubernetes.io/audit-violations"].as_str().unwrap();
    assert!(violations.starts_with("would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false"), "{violations}");
}

#[tokio::test]
async fn a_policy_that_says_nothing_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = |file: &Path| Audit::open(file, Backends { log: Some(LogOptions { path: "-".into(), ..LogOptions::default() }), webhook: None }, Arc::new(api::world::SystemClock)).map(drop).unwrap_err().to_string();
    let file = folder.path().join("policy.yaml");
    assert!(open(&file).starts_with("failed to read file path"));
    std::fs::write(&file, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []\n").unwrap();
    assert_eq!(open(&file), format!("loaded illegal policy with 0 rules: from file {}", file.display()));
}

#[tokio::test]
async fn components_of_this_process_are_told_of_too() {
    use client::{Body, Target, Transport, WriteOptions};
    let audited = Audited::start("omitStages: [RequestReceived]\nrules: [{level: RequestResponse, verbs: [create, delete]}]\n").await;
    let local = server::Local::new(audited.server.api.clone(), "system:kube-scheduler");
    let target = Target { group: String::new(), version: "v1".into(), plural: "configmaps".into(), namespace: Some("default".into()), name: None, subresource: None };
    local.create(&target, Body::Value(config_map("made")), &WriteOptions::default()).await.unwrap();
    assert!(local.create(&target, Body::Value(config_map("made")), &WriteOptions::default()).await.is_err());
    let events: Vec<Value> = audited.events().into_iter().filter(|event| event["user"]["username"] == "system:kube-scheduler").collect();
    assert_eq!(events.iter().map(|event| event["responseStatus"]["code"].as_u64().unwrap()).collect::<Vec<_>>(), [201, 409]);
    assert_eq!((&events[0]["requestURI"], &events[0]["objectRef"]["name"], &events[0]["responseObject"]["kind"]), (&json!(CONFIG_MAPS), &json!("made"), &json!("ConfigMap")));
}

#[tokio::test]
async fn who_cannot_say_who_they_are() {
    let audited = Audited::start("rules: [{level: Metadata}]\n").await;
    audited.server.call("GET", CONFIG_MAPS, &[("authorization", "Bearer nonsense")], "").await.expect(401);
    let events = audited.events();
    let refused = events.iter().find(|event| event["responseStatus"]["code"] == 401).expect("the refusal");
    assert_eq!((&refused["stage"], &refused["responseStatus"]["message"]), (&json!("ResponseStarted"), &json!("Authentication failed, attempted: bearer")));
}

fn webhook(client: &Value, mode: AuditWebhookMode, max_batch_size: usize) -> AuditWebhookOptions {
    AuditWebhookOptions {
        hook: Hook::from_json(client).unwrap(),
        mode,
        initial_backoff: Duration::from_millis(1),
        batch: AuditBatchOptions { buffer_size: 1, max_batch_size, max_batch_wait: Duration::from_secs(3600), throttle_qps: None, throttle_burst: 1 },
        truncation: None,
    }
}

/// A server whose every request goes to a webhook.
async fn sending(options: AuditWebhookOptions) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    std::fs::write(&file, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- {level: None, nonResourceURLs: [/metrics]}\n- {level: Metadata}\n").unwrap();
    let audit = Audit::open(&file, Backends { log: None, webhook: Some(options) }, Arc::new(api::world::SystemClock)).unwrap();
    Server::start_with(|config| config.audit = Some(audit)).await
}

async fn counted(server: &Server, line: &str) -> bool {
    String::from_utf8(server.get("/metrics").await.expect(200).body.to_vec()).unwrap().lines().any(|known| known.starts_with(line))
}

#[tokio::test]
async fn a_webhook_has_every_event_before_the_answer() {
    let listener = Listener::start(|_, _| Some(json!({}))).await;
    let server = sending(webhook(&listener.client("/audit"), AuditWebhookMode::BlockingStrict, 1)).await;
    server.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    let asked = listener.asked.lock().clone();
    assert_eq!(asked.iter().map(|(_, list)| (list["kind"].as_str().unwrap(), list["apiVersion"].as_str().unwrap(), list["items"][0]["stage"].as_str().unwrap())).collect::<Vec<_>>(), [("EventList", "audit.k8s.io/v1", "RequestReceived"), ("EventList", "audit.k8s.io/v1", "ResponseComplete")]);
    assert!(counted(&server, "apiserver_audit_event_total 2").await && counted(&server, "apiserver_audit_level_total{level=\"Metadata\"} 1").await);
}

#[tokio::test]
async fn a_request_that_must_be_audited_and_cannot_is_refused() {
    // Nobody listens there.
    let strict = webhook(&json!({"url": "https://127.0.0.1:1/audit"}), AuditWebhookMode::BlockingStrict, 1);
    let lenient = AuditWebhookOptions { mode: AuditWebhookMode::Blocking, ..strict.clone() };
    let server = sending(strict).await;
    let refused = server.post(CONFIG_MAPS, config_map("a")).await.expect(500);
    assert!(refused.message().ends_with("failed to store audit event"), "{}", refused.message());
    assert!(server.store.get("/registry/configmaps/default/a").is_none());
    assert!(counted(&server, "apiserver_audit_requests_rejected_total 1").await && counted(&server, "apiserver_audit_error_total{plugin=\"webhook\"} 1").await);
    let server = sending(lenient).await;
    server.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    assert!(counted(&server, "apiserver_audit_error_total{plugin=\"webhook\"} 2").await);
}

#[tokio::test]
async fn events_are_sent_together_and_what_does_not_fit_is_lost() {
    let listener = Listener::start(|path, _| (path == "/audit").then(|| json!({}))).await;
    let mut options = webhook(&listener.client("/audit"), AuditWebhookMode::Batch, 4);
    options.batch.buffer_size = 100;
    let server = sending(options).await;
    server.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    server.get(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    while listener.asked.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    let asked = listener.asked.lock().clone();
    assert_eq!((asked.len(), asked[0].1["items"].as_array().unwrap().len()), (1, 4));
    // One that never answers: what waits has an end, requests do not wait.
    let server = sending(webhook(&listener.client("/silent"), AuditWebhookMode::Batch, 1)).await;
    for _ in 0..20 {
        server.get(CONFIG_MAPS).await.expect(200);
    }
    assert!(counted(&server, "apiserver_audit_error_total{plugin=\"webhook\"} ").await);
}

#[tokio::test]
async fn a_log_in_batches_has_every_event_in_its_order_and_large_ones_shortened() {
    let audited = Audited::start_with("rules:\n- {level: RequestResponse}\n", |options| {
        options.batch = Some(AuditBatchOptions::LOG);
        options.truncation = Some(AuditTruncation { max_event_size: 4096, max_batch_size: 4096 });
    })
    .await;
    audited.server.post(CONFIG_MAPS, json!({"metadata": {"name": "large"}, "data": {"k": "x".repeat(8192)}})).await.expect(201);
    audited.server.post(CONFIG_MAPS, config_map("small")).await.expect(201);
    // Nobody waited for the log: it has them when it has them.
    while audited.stages(CONFIG_MAPS).len() < 4 {
        tokio::task::yield_now().await;
    }
    assert_eq!(audited.stages(CONFIG_MAPS), ["RequestReceived", "ResponseComplete", "RequestReceived", "ResponseComplete"]);
    let completed: Vec<Value> = audited.events().into_iter().filter(|event| event["verb"] == "create" && event["stage"] == "ResponseComplete").collect();
    assert_eq!((&completed[0]["annotations"]["audit.k8s.io/truncated"], completed[0].get("requestObject"), completed[0].get("responseObject")), (&json!("true"), None, None));
    assert_eq!((completed[1]["annotations"].get("audit.k8s.io/truncated"), &completed[1]["requestObject"]["metadata"]["name"]), (None, &json!("small")));
}
