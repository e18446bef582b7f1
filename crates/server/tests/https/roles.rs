//! Default roles and bindings over a restart: what they lack comes back, what people added stays.

use serde_json::{Value, json};

use crate::harness::Server;

const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node-proxier";
const BINDING: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:basic-user";
const LEFT_ALONE: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node-problem-detector";
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

#[tokio::test]
async fn default_roles_are_made_whole_at_the_start() {
    let first = Server::start().await;
    let rules = |object: &Value| object["rules"].as_array().unwrap().clone();
    let expected = rules(&first.get(ROLE).await.expect(200).json());
    let own = json!({"verbs": ["get"], "apiGroups": ["own"], "resources": ["things"]});
    let merge = "merge-patch+json";
    first.patch(ROLE, merge, json!({"rules": [own]})).await.expect(200);
    first.patch(BINDING, merge, json!({"subjects": []})).await.expect(200);
    first.patch(LEFT_ALONE, merge, json!({"rules": [], "metadata": {"annotations": {AUTO_UPDATE: "false"}}})).await.expect(200);
    let unchanged = first.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/view").await.json();

    let second = Server::start_over(first.store.clone(), |_| {}).await;
    let found = rules(&second.get(ROLE).await.expect(200).json());
    assert_eq!(found[0], own);
    assert!(found.len() > expected.len());
    assert_eq!(second.get(BINDING).await.json()["subjects"][0]["name"], "system:authenticated");
    assert!(second.get(LEFT_ALONE).await.json()["rules"].as_array().is_none_or(Vec::is_empty));
    assert_eq!(second.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/view").await.json(), unchanged);
    // What lacks nothing is not written again.
    let revision = second.store.revision();
    let authority = second.api.config().ca_pem.clone();
    let third = Server::start_over(second.store.clone(), |config| config.ca_pem = authority).await;
    assert_eq!(third.store.revision(), revision);
}
