//! The parts of the control plane as Prometheus meets them: a pod gets a node, and the scheduler's and the controllers' counters have moved, on ports of their own, for those who may ask.

mod running;

use std::time::Duration;

use api::k8s::api::core::v1::{Event, Namespace, Node, Pod, ServiceAccount};
use api::Typed;
use client::kubeconfig::Config;
use client::{Client, HttpClient, HttpTransport, Informer, PatchKind};
use http::Method;
use running::{Server, free_port};
use serde_json::{Value, json};

/// Nothing takes longer, on however slow a machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn ask(config: &Config, port: u16, path: &str) -> (u16, String) {
    let config = Config { server: format!("https://127.0.0.1:{port}"), ..config.clone() };
    let response = HttpClient::new(&config, "prometheus").expect("a client").request(Method::GET, path, &[], "").await.expect("an answer");
    (response.status, String::from_utf8(response.bytes().await.expect("a body").to_vec()).expect("text"))
}

/// It may be there already.
async fn made<T: Typed + api::k8s::Resource>(client: &Client, namespace: Option<&str>, object: Value) {
    let object = T::from_value(&object).expect("an object");
    if let Err(status) = client.of::<T>(namespace).create(&object).await {
        assert!(status.is_already_exists(), "{status}");
    }
}

#[tokio::test]
async fn a_pod_that_is_scheduled_is_counted() {
    let data = tempfile::tempdir().expect("a folder");
    let (port, of_scheduler, of_controllers) = (free_port(), free_port(), free_port());
    let more = ["--scheduler-secure-port".to_owned(), of_scheduler.to_string(), "--controllers-secure-port".to_owned(), of_controllers.to_string()];
    let _server = Server::start(data.path(), port, &more);
    let config = Config::load(Some(&data.path().join("admin.conf"))).expect("the kubeconfig");
    let client = Client::new(std::sync::Arc::new(HttpTransport::new(HttpClient::new(&config, "test").expect("a client"))), "test");
    made::<Namespace>(&client, None, json!({"metadata": {"name": "default"}})).await;
    made::<ServiceAccount>(&client, Some("default"), json!({"metadata": {"name": "default"}})).await;
    made::<Node>(&client, None, json!({"metadata": {"name": "one"}})).await;
    // A patch, for the controllers write to it as well.
    let status = json!({"status": {"allocatable": {"cpu": "4", "memory": "4Gi", "pods": "10"}, "capacity": {"cpu": "4", "memory": "4Gi", "pods": "10"}}});
    client.of::<Node>(None).patch_status("one", PatchKind::Merge, status).await.expect("it is written");
    let tolerates = json!([{"operator": "Exists"}]);
    made::<Pod>(&client, Some("default"), json!({"metadata": {"name": "web"}, "spec": {"tolerations": tolerates, "containers": [{"name": "c", "image": "none"}]}})).await;
    // It is told after it was counted.
    let events = Informer::<Event>::of(&client, Some("default")).start();
    let told = events.until(|cache| cache.list().iter().any(|event| event.reason.as_deref() == Some("Scheduled")));
    tokio::time::timeout(PATIENCE, told).await.expect("the pod gets the node");

    let (code, scheduler) = ask(&config, of_scheduler, "/metrics").await;
    assert_eq!(code, 200, "{scheduler}");
    let has = |text: &str, line: &str| assert!(text.lines().any(|written| written == line), "{line}\nnot in\n{text}");
    has(&scheduler, r#"scheduler_schedule_attempts_total{profile="default-scheduler",result="scheduled"} 1"#);
    has(&scheduler, "scheduler_pod_scheduling_attempts_count 1");
    has(&scheduler, r#"scheduler_pending_pods{queue="active"} 0"#);
    has(&scheduler, r#"scheduler_framework_extension_point_duration_seconds_count{extension_point="Bind",profile="default-scheduler",status="Success"} 1"#);
    has(&scheduler, r#"leader_election_master_status{name="kube-scheduler"} 1"#);
    assert!(scheduler.contains(&format!("rest_client_requests_total{{code=\"201\",host=\"127.0.0.1:{port}\",method=\"POST\"}}")), "{scheduler}");
    let (code, controllers) = ask(&config, of_controllers, "/metrics").await;
    assert_eq!(code, 200, "{controllers}");
    has(&controllers, r#"leader_election_master_status{name="kube-controller-manager"} 1"#);
    assert!(controllers.contains("workqueue_adds_total{name=\"namespace\"}") && controllers.contains("workqueue_depth{name=\"deployment\"}"), "{controllers}");
    assert!(!controllers.contains("scheduler_") && !scheduler.contains("workqueue_"), "each its own");

    // Without a name one may know that it is well, and no more.
    let nobody = Config { client_identity: None, ..config.clone() };
    assert_eq!(ask(&nobody, of_scheduler, "/healthz").await, (200, "ok".to_owned()));
    assert_eq!(ask(&nobody, of_scheduler, "/metrics").await.0, 403);
    assert_eq!(ask(&config, of_controllers, "/configz").await.0, 200);
    assert_eq!(ask(&config, of_controllers, "/api").await.0, 404);
}
