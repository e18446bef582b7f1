//! Who may do what: default roles, tokens, escalation, aggregation.

use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, Server, config_map};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";

fn binding(name: &str, role: &str, user: &str) -> Value {
    json!({"metadata": {"name": name}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}, "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}]})
}

async fn token(server: &Server, account: &str) -> String {
    let made = server.post(&format!("/api/v1/namespaces/default/serviceaccounts/{account}/token"), json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {}})).await.expect(201).json();
    format!("Bearer {}", made["status"]["token"].as_str().unwrap())
}

#[tokio::test]
async fn a_service_accounts_token_opens_what_its_bindings_grant() {
    let server = Server::start().await;
    server.service_account("default").await;
    let bearer = token(&server, "default").await;
    let asked = [("authorization", bearer.as_str())];
    let refused = server.call("GET", CONFIG_MAPS, &asked, "").await.expect(403);
    assert_eq!(refused.message(), r#"configmaps is forbidden: User "system:serviceaccount:default:default" cannot list resource "configmaps" in API group "" in the namespace "default""#);
    let mut view = binding("b", "view", "");
    view["subjects"] = json!([{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]);
    server.post(BINDINGS, view).await.expect(201);
    server.call("GET", CONFIG_MAPS, &asked, "").await.expect(200);
    server.call("GET", "/api/v1/namespaces/default/secrets", &asked, "").await.expect(403);
    server.call("GET", "/api/v1/namespaces/kube-system/configmaps", &asked, "").await.expect(403);
    server.delete("/api/v1/namespaces/default/serviceaccounts/default").await.expect(200);
    server.call("GET", CONFIG_MAPS, &asked, "").await.expect(401);
    server.call("GET", CONFIG_MAPS, &[("authorization", "Bearer nonsense")], "").await.expect(401);
    server.call("GET", "/healthz", &[("anonymous", "yes")], "").await.expect(200);
    server.call("GET", CONFIG_MAPS, &[("anonymous", "yes")], "").await.expect(403);
}

#[tokio::test]
async fn a_role_for_one_name_allows_to_list_and_watch_by_it() {
    let server = Server::start().await;
    server.post(ROLES, json!({"metadata": {"name": "one"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"], "verbs": ["list", "deletecollection"]}]})).await.expect(201);
    let mut one = binding("one", "one", "jane");
    one["roleRef"]["kind"] = json!("Role");
    server.post(BINDINGS, one).await.expect(201);
    let jane = [("impersonate-user", "jane")];
    for (method, fields, code) in [("GET", "?fieldSelector=metadata.name%3Dmine", 200), ("GET", "?fieldSelector=metadata.name%3Dother", 403), ("GET", "", 403), ("DELETE", "?fieldSelector=metadata.name%3Dmine", 403)] {
        server.call(method, &format!("{CONFIG_MAPS}{fields}"), &jane, "").await.expect(code);
    }
}

#[tokio::test]
async fn nobody_grants_more_than_they_hold() {
    let server = Server::start().await;
    server.post(BINDINGS, binding("jane", "admin", "jane")).await.expect(201);
    let jane = [("impersonate-user", "jane"), ("content-type", "application/json")];
    let role = |rules: Value| json!({"metadata": {"name": "r"}, "rules": rules}).to_string();
    let held = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    server.call("POST", ROLES, &jane, role(held.clone())).await.expect(201);
    let more = json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list"]}]);
    let refused = server.call("PUT", &format!("{ROLES}/r"), &jane, role(more.clone())).await.expect(403);
    assert_eq!(
        refused.message(),
        "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"jane\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\" \"list\"]}"
    );
    server.call("POST", BINDINGS, &jane, binding("up", "cluster-admin", "jane").to_string()).await.expect(403);
    server.call("POST", BINDINGS, &jane, binding("fine", "view", "joe").to_string()).await.expect(201);
    // The verbs that lift it.
    server.post(ROLES, json!({"metadata": {"name": "lift"}, "rules": [{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "clusterroles"], "verbs": ["escalate", "bind"]}]})).await.expect(201);
    let mut lift = binding("lift", "lift", "jane");
    lift["roleRef"]["kind"] = json!("Role");
    server.post(BINDINGS, lift).await.expect(201);
    server.call("PUT", &format!("{ROLES}/r"), &jane, role(more)).await.expect(200);
    server.call("POST", BINDINGS, &jane, binding("up", "cluster-admin", "jane").to_string()).await.expect(201);
}

/// By a label a role's rules come into the aggregated ones: who does not hold them must not put it there.
#[tokio::test]
async fn a_label_grants_as_well() {
    let server = Server::start().await;
    let roles = format!("{RBAC}/clusterroles");
    let change = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["get", "create", "update", "patch"]}]);
    server.post(&roles, json!({"metadata": {"name": "changer"}, "rules": change})).await.expect(201);
    server.post(&roles, json!({"metadata": {"name": "secrets"}, "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]}]})).await.expect(201);
    server.post(&format!("{RBAC}/clusterrolebindings"), binding("jane", "changer", "jane")).await.expect(201);
    let jane = [("impersonate-user", "jane"), ("content-type", "application/merge-patch+json")];
    let patch = async |name: &str, patch: Value, code: u16| server.call("PATCH", &format!("{roles}/{name}"), &jane, patch.to_string()).await.expect(code);
    let label = json!({"metadata": {"labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}}});
    let refused = patch("secrets", label.clone(), 403).await;
    assert!(refused.message().contains("is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"*\"]}"), "{}", refused.message());
    // Of what they hold, and what is the garbage collector's.
    patch("changer", label, 200).await;
    patch("secrets", json!({"metadata": {"finalizers": ["example.com/f"]}}), 200).await;
    // Who aggregates, or ceases to.
    for aggregation in [json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}), Value::Null] {
        let refused = patch("view", json!({"aggregationRule": aggregation, "rules": []}), 403).await;
        assert!(refused.message().ends_with("must have cluster-admin privileges to use the aggregationRule"), "{}", refused.message());
    }
}

#[tokio::test]
async fn aggregated_roles_follow_what_they_select() {
    let server = Server::start().await;
    let roles = format!("{RBAC}/clusterroles");
    let mut watch = server.watch(&format!("{roles}?watch=1&fieldSelector=metadata.name%3Dview&resourceVersion={}", server.store.revision())).await;
    server.post(&roles, json!({"metadata": {"name": "more", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}}, "rules": [{"apiGroups": ["x.io"], "resources": ["things"], "verbs": ["get"]}]})).await.expect(201);
    let view = watch.next().await.unwrap();
    assert!(view["object"]["rules"].to_string().contains("x.io"));
    server.delete(&format!("{roles}/more")).await.expect(200);
    let view = watch.next().await.unwrap();
    assert!(!view["object"]["rules"].to_string().contains("x.io"));
}

#[tokio::test]
async fn everybody_may_ask_what_they_may() {
    let server = Server::start().await;
    server.post(BINDINGS, binding("jane", "view", "jane")).await.expect(201);
    let jane = [("impersonate-user", "jane"), ("content-type", "application/json")];
    let ask = async |verb: &str, resource: &str| {
        let review = json!({"spec": {"resourceAttributes": {"verb": verb, "resource": resource, "namespace": "default"}}}).to_string();
        server.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &jane, review).await.expect(201).json()["status"]["allowed"].as_bool().unwrap()
    };
    assert!(ask("get", "pods").await && !ask("delete", "pods").await && !ask("get", "secrets").await);
    let rules = server.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &jane, json!({"spec": {"namespace": "default"}}).to_string()).await.expect(201).json();
    assert!(rules["status"]["resourceRules"].to_string().contains("configmaps") && rules["status"]["nonResourceRules"].to_string().contains("/healthz"));
    server.call("POST", CONFIG_MAPS, &jane, config_map("a").to_string()).await.expect(403);
}

/// Constrained impersonation: as somebody else, but only for what was granted.
#[tokio::test]
async fn whoever_acts_as_another_does_what_was_granted() {
    let server = Server::start().await;
    server.service_account("default").await;
    let bearer = token(&server, "default").await;
    let role = |name: &str, rules: Value| json!({"metadata": {"name": name}, "rules": rules});
    let grant = |name: &str| json!({"metadata": {"name": name}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}, "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]});
    server
        .post(&format!("{RBAC}/clusterroles"), role("acts", json!([
            {"apiGroups": ["authentication.k8s.io"], "resources": ["users"], "resourceNames": ["jane"], "verbs": ["impersonate:user-info"]},
            {"apiGroups": ["authentication.k8s.io"], "resources": ["groups"], "verbs": ["impersonate:user-info"]},
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["impersonate-on:user-info:list"]}
        ])))
        .await
        .expect(201);
    server.post(&format!("{RBAC}/clusterrolebindings"), grant("acts")).await.expect(201);
    server.post(BINDINGS, binding("jane", "view", "jane")).await.expect(201);
    let ask = async |path: &str, headers: &[(&str, &str)]| server.call("GET", path, &[&[("authorization", bearer.as_str())], headers].concat(), "").await;
    let jane = ("impersonate-user", "jane");
    ask(CONFIG_MAPS, &[jane]).await.expect(200);
    let refused = ask(&format!("{CONFIG_MAPS}/a"), &[jane]).await.expect(403).message();
    assert_eq!(refused, r#"configmaps "a" is forbidden: User "system:serviceaccount:default:default" cannot impersonate-on:user-info:get resource "configmaps" in API group "" in the namespace "default""#);
    assert!(ask(CONFIG_MAPS, &[("impersonate-user", "bob")]).await.expect(403).message().contains(r#"cannot impersonate:user-info resource "users""#));
    ask(CONFIG_MAPS, &[jane, ("impersonate-group", "team")]).await.expect(200);
    assert!(ask(CONFIG_MAPS, &[jane, ("impersonate-group", "system:masters")]).await.expect(403).message().ends_with("impersonating the system:masters group is not allowed"));
    ask(CONFIG_MAPS, &[jane, ("impersonate-uid", "7")]).await.expect(403);
    // Nodes and accounts have modes of their own.
    ask(CONFIG_MAPS, &[("impersonate-user", "system:node:jane")]).await.expect(403);
    // Who may do all of it is judged as before; a node is in the group of nodes.
    let node = server.call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", &[("impersonate-user", "system:node:a"), ("content-type", "application/json")], "{}").await.expect(201).json();
    assert_eq!(node["status"]["userInfo"]["groups"], json!(["system:nodes", "system:authenticated"]));
    let nobody = server.call("GET", CONFIG_MAPS, &[("impersonate-group", "a")], "").await.expect(400);
    assert_eq!(nobody.message(), r#"requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"a"}, Extra:map[string][]string(nil)} without impersonating a user name"#);
}
