//! What is decided elsewhere: webhooks that know tokens, webhooks that allow; and the admission plugins that are asked or not.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use jiff::SignedDuration;
use serde_json::{Value, json};
use server::{AuthorizationMode, AuthorizationWebhook, Hook, HookCredentials, Plugins, TokenWebhook, WebhookConfig, parse_authorization_configuration};

use crate::harness::{CONFIG_MAPS, PODS, SERVICES, Server, config_map, pod};
use crate::listener::Listener;

const SELF: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

fn hook(listener: &Listener) -> Hook {
    let authority = base64::engine::general_purpose::STANDARD.decode(&listener.bundle).unwrap();
    Hook::at(&format!("https://127.0.0.1:{}/review", listener.port), authority, HookCredentials { token: "mine".into(), ..HookCredentials::default() }).unwrap()
}

#[tokio::test]
async fn a_webhook_knows_tokens() {
    let listener = Listener::start(|_, review| {
        let known = review["spec"]["token"] == "secret";
        Some(json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": if known { json!({"authenticated": true, "user": {"username": "jane", "uid": "7", "groups": ["dev"]}}) } else { json!({"authenticated": false}) }}))
    })
    .await;
    let webhook = Arc::new(TokenWebhook::new(hook(&listener), "v1", SignedDuration::from_hours(1)));
    let server = Server::start_with(|config| config.authentication.webhook = Some(webhook)).await;
    let ask = async |token: &str| server.call("POST", SELF, &[("authorization", &format!("Bearer {token}")), ("content-type", "application/json")], "{}").await;
    for _ in 0..2 {
        assert_eq!(ask("secret").await.expect(201).json()["status"]["userInfo"], json!({"username": "jane", "uid": "7", "groups": ["dev", "system:authenticated"]}));
        ask("guess").await.expect(401);
    }
    // Each was asked about once.
    let asked = listener.asked.lock().clone();
    assert_eq!(asked.len(), 2);
    let metrics = String::from_utf8(server.get("/metrics").await.expect(200).body.to_vec()).unwrap();
    for line in [
        "authentication_token_cache_request_total{status=\"hit\"} 2",
        "authentication_token_cache_request_total{status=\"miss\"} 2",
        "authentication_token_cache_request_duration_seconds_count{status=\"miss\"} 2",
        "authentication_token_cache_fetch_total{status=\"ok\"} 2",
        "authentication_token_cache_active_fetch_count{status=\"in_flight\"} 0",
        "apiserver_delegated_authn_request_total{code=\"200\"} 2",
        "apiserver_delegated_authn_request_duration_seconds_count{code=\"200\"} 2",
    ] {
        assert!(metrics.lines().any(|known| known == line), "{line} is not in {metrics}");
    }
    assert_eq!((&asked[0].1["apiVersion"], &asked[0].1["spec"]["audiences"]), (&json!("authentication.k8s.io/v1"), &json!(["https://kubernetes.default.svc.cluster.local"])));
    assert_eq!(listener.heads.lock()[0]["authorization"], "Bearer mine");
}

#[tokio::test]
async fn a_webhook_allows_and_refuses() {
    let listener = Listener::start(|_, review| {
        let (user, resource) = (&review["spec"]["user"], &review["spec"]["resourceAttributes"]["resource"]);
        let status = match (user.as_str(), resource.as_str()) {
            (Some("jane"), Some("configmaps")) => json!({"allowed": true, "reason": "the webhook likes jane"}),
            (Some("joe"), _) => json!({"allowed": false, "denied": true, "reason": "joe is out"}),
            _ => json!({"allowed": false, "reason": "who?"}),
        };
        Some(json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "status": status}))
    })
    .await;
    let webhook = |fails_closed: bool, hook: Hook| {
        AuthorizationMode::Webhook(Arc::new(AuthorizationWebhook::new(WebhookConfig {
            name: "w".into(),
            hook,
            version: "v1".into(),
            timeout: Duration::from_secs(30),
            authorized_ttl: SignedDuration::from_hours(1),
            unauthorized_ttl: SignedDuration::from_hours(1),
            fails_closed,
            conditions: Vec::new(),
        })))
    };
    let mode = webhook(false, hook(&listener));
    let server = Server::start_with(|config| config.authorization = vec![mode, AuthorizationMode::Rbac]).await;
    let get = async |server: &Server, user: &str, path: &str| server.call("GET", path, &[("impersonate-user", user)], "").await;
    get(&server, "jane", CONFIG_MAPS).await.expect(200);
    get(&server, "jane", CONFIG_MAPS).await.expect(200);
    assert_eq!(listener.asked.lock().len(), 1);
    assert!(get(&server, "jane", PODS).await.expect(403).message().ends_with("in the namespace \"default\": who?"));
    // What roles would allow, a refusal before them does not.
    get(&server, "ann", "/version").await.expect(200);
    assert!(get(&server, "joe", "/version").await.expect(403).message().ends_with("cannot get path \"/version\": joe is out"));

    // Who cannot be asked has no opinion, or refuses.
    let nowhere = || Hook::at("https://127.0.0.1:1/review", Vec::new(), HookCredentials::default()).unwrap();
    for (fails_closed, code) in [(false, 200), (true, 403)] {
        let mode = webhook(fails_closed, nowhere());
        let server = Server::start_with(|config| config.authorization = vec![mode, AuthorizationMode::Rbac]).await;
        get(&server, "ann", "/version").await.expect(code);
    }
}

#[tokio::test]
async fn conditions_say_what_a_webhook_is_for() {
    let listener = Listener::start(|_, _| Some(json!({"status": {"allowed": true}}))).await;
    let config = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration", "authorizers": [
        {"type": "Webhook", "name": "w", "webhook": {"timeout": "30s", "subjectAccessReviewVersion": "v1", "matchConditionSubjectAccessReviewVersion": "v1", "failurePolicy": "Deny",
            "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": "w.conf"}, "matchConditions": [{"expression": "has(request.resourceAttributes)"}, {"expression": "request.resourceAttributes.resource == 'configmaps'"}]}},
        {"type": "RBAC", "name": "rbac"}]});
    let modes = parse_authorization_configuration(config.to_string().as_bytes(), &|file| if file == "w.conf" { Ok(hook(&listener)) } else { Err("no such file".into()) }).unwrap();
    let server = Server::start_with(|config| config.authorization = modes).await;
    let get = async |path: &str| server.call("GET", path, &[("impersonate-user", "jane")], "").await;
    get(CONFIG_MAPS).await.expect(200);
    get(PODS).await.expect(403);
    get("/version").await.expect(200);
    assert_eq!(listener.asked.lock().len(), 1);
}

#[tokio::test]
async fn plugins_are_asked_or_not() {
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let plugins = Plugins::new(&names(&["AlwaysPullImages", "DenyServiceExternalIPs", "OwnerReferencesPermissionEnforcement"]), &names(&["ServiceAccount"])).unwrap();
    let server = Server::start_with(|config| config.plugins = plugins).await;
    // No service account is looked for.
    let made = server.post(PODS, pod("p")).await.expect(201).json();
    assert_eq!((&made["spec"]["containers"][0]["imagePullPolicy"], made["spec"].get("serviceAccountName")), (&json!("Always"), None));
    let refused = server.post(SERVICES, json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "externalIPs": ["192.0.2.1"]}})).await.expect(403);
    assert_eq!(refused.message(), "services \"s\" is forbidden: Use of external IPs is denied by admission control");

    let rule = json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "patch"]}]});
    server.post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", rule).await.expect(201);
    let binding = json!({"metadata": {"name": "r"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}]});
    server.post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", binding).await.expect(201);
    let owned = |name: &str, block: bool| {
        let mut map = config_map(name);
        map["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": made["metadata"]["uid"], "blockOwnerDeletion": block}]);
        map
    };
    let jane = async |method: &str, path: &str, kind: &str, body: Value| server.call(method, path, &[("impersonate-user", "jane"), ("content-type", kind)], body.to_string()).await;
    jane("POST", CONFIG_MAPS, "application/json", owned("a", false)).await.expect(201);
    let refused = jane("POST", CONFIG_MAPS, "application/json", owned("b", true)).await.expect(403);
    assert_eq!(refused.message(), "configmaps \"b\" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>");
    let refused = jane("PATCH", &format!("{CONFIG_MAPS}/a"), "application/merge-patch+json", json!({"metadata": {"ownerReferences": null}})).await.expect(403);
    assert_eq!(refused.message(), "configmaps \"a\" is forbidden: cannot set an ownerRef on a resource you can't delete: , <nil>");
}
