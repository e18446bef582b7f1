//! Descriptions as the real kubectl printed them, of objects and lists as the server gave them (`cases`): what is fetched, and every space.
//!
//! The texts are kubectl 1.33's where 1.36 prints the same; the node's has lost its kube-proxy version, which 1.36 no longer shows.

use api::Status;
use futures_util::future::BoxFuture;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde_json::{Value, json};

use super::command::wanted;
use super::{Fetch, Related, command, text};

/// Answers with what was recorded, and with nothing else.
struct Recorded<'a>(&'a Value);

impl Fetch for Recorded<'_> {
    fn list<'a>(&'a self, path: &'a str, query: &'a [(String, String)]) -> BoxFuture<'a, Result<Vec<Value>, Status>> {
        let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let name = format!("{path}?{}", query.join("&"));
        let items = self.0.get(&name).and_then(Value::as_array).cloned().ok_or_else(|| Status::bad_request(name));
        Box::pin(async move { items })
    }
}

fn at(time: &str) -> Zoned {
    time.parse::<Timestamp>().expect("a time").to_zoned(TimeZone::UTC)
}

macro_rules! cases {
    ($($name:literal),* $(,)?) => { [$(($name, include_str!(concat!("cases/", $name, ".json")), include_str!(concat!("cases/", $name, ".txt")))),*] };
}

#[tokio::test]
async fn as_the_real_one() {
    let cases = cases![
        "pod", "pod-full", "deployment", "stateful-set", "job", "node", "service", "endpoint-slice", "ingress", "network-policy", "role", "persistent-volume", "claim", "storage-class", "autoscaler",
        "namespace", "signing-request", "lease",
    ];
    for (name, case, want) in cases {
        let case: Value = serde_json::from_str(case).expect("a case");
        let field = |field: &str| case[field].as_str().expect("a text");
        let (group, kind, object) = (field("group"), field("kind"), &case["object"]);
        // Lists that may be missing would hide a wrong question.
        for query in wanted(group, kind, object, true) {
            Recorded(&case["lists"]).list(&query.path, &query.query).await.unwrap_or_else(|status| panic!("{name} asks for {}", status.message));
        }
        let got = command(&Recorded(&case["lists"]), group, kind, object, true, &at(field("now"))).await.expect("a description");
        assert_eq!(got, want, "{name}");
    }
}

#[test]
fn events_tell_how_often() {
    let event = |extra: Value| {
        let mut event = json!({"type": "Warning", "reason": "BackOff", "message": "boom \n", "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:05:00Z", "source": {"component": "kubelet"}});
        event.as_object_mut().expect("an object").extend(extra.as_object().cloned().unwrap_or_default());
        event
    };
    let cases = [
        (json!({}), "10m   kubelet  boom"),
        (json!({"count": 4}), "5m (x4 over 10m)  kubelet  boom"),
        (json!({"involvedObject": {"fieldPath": "spec.containers{c}"}}), "10m   kubelet  spec.containers{c}: boom"),
        (json!({"source": {}, "reportingComponent": "me", "eventTime": "2026-01-01T00:08:00.000000Z", "series": {"count": 9, "lastObservedTime": "2026-01-01T00:09:00.000000Z"}}), "60s (x9 over 2m)  me    boom"),
    ];
    for (extra, want) in cases {
        let related = Related { events: Some(vec![event(extra)]), ..Related::default() };
        let got = text("", "ConfigMap", &json!({}), &related, &at("2026-01-01T00:10:00Z"));
        let row = got.lines().last().unwrap_or_default();
        assert_eq!(row.trim_start(), format!("Warning  BackOff  {want}"));
    }
}

#[test]
fn without_events() {
    for (related, want) in [(None, ""), (Some(Vec::new()), "Events:          <none>\n")] {
        let related = Related { events: related, ..Related::default() };
        let got = text("scheduling.k8s.io", "PriorityClass", &json!({"metadata": {"name": "high"}, "value": 7, "preemptionPolicy": "Never"}), &related, &at("2026-01-01T00:00:00Z"));
        assert_eq!(got, format!("Name:              high\nValue:             7\nGlobalDefault:     false\nPreemptionPolicy:  Never\nDescription:       \nAnnotations:       <none>\n{}", want.replace("Events:          ", "Events:            ")));
    }
}

#[test]
fn anything_can_be_described() {
    let odd = [json!(null), json!({}), json!({"metadata": [], "spec": 3, "status": "x"}), json!({"spec": {"containers": [null, 4], "template": {"spec": {"volumes": [{}]}}}, "rules": [1]})];
    for (group, kind) in [
        ("", "Pod"), ("", "Node"), ("", "Secret"), ("", "ConfigMap"), ("", "Service"), ("", "Endpoints"), ("", "PersistentVolume"), ("", "LimitRange"), ("apps", "Deployment"), ("apps", "StatefulSet"),
        ("batch", "Job"), ("batch", "CronJob"), ("networking.k8s.io", "Ingress"), ("networking.k8s.io", "NetworkPolicy"), ("certificates.k8s.io", "CertificateSigningRequest"),
        ("rbac.authorization.k8s.io", "Role"), ("autoscaling", "HorizontalPodAutoscaler"), ("x.io", "Other"),
    ] {
        for object in &odd {
            let related = Related { pods: Some(odd.to_vec()), events: Some(odd.to_vec()), ..Related::default() };
            text(group, kind, object, &related, &at("2026-01-01T00:00:00Z"));
            wanted(group, kind, object, true);
        }
    }
}
