//! The whole API by its own OpenAPI v3: valid and nearly valid requests for every path and verb; no answer may be 5xx, none may stay away.
//!
//! `operations` reads what can be asked; `bodies` makes objects from schemas; `requests` puts requests together; `report` tells what went wrong.

mod bodies;
mod operations;
mod report;
mod requests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use client::HttpClient;
use client::kubeconfig::Config;
use http::Method;
use serde_json::json;

use crate::random::Random;
use operations::Operations;
use report::Findings;
pub use report::Finding;
use requests::Request;

/// No answer takes longer: watches are asked to end after a second.
const PATIENCE: Duration = Duration::from_secs(60);
/// Clients at once.
const CLIENTS: usize = 4;
pub const NAMESPACE: &str = "fuzz";

#[derive(Debug, Clone, Default)]
pub struct Report {
    pub requests: u64,
    /// How many answers had which code.
    pub codes: BTreeMap<u16, u64>,
    pub operations: usize,
    pub findings: Vec<Finding>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let codes: Vec<String> = self.codes.iter().map(|(code, count)| format!("{code}: {count}")).collect();
        writeln!(f, "{} requests of {} operations; {}", self.requests, self.operations, codes.join(", "))?;
        self.findings.iter().try_for_each(|finding| write!(f, "\n{finding}\n"))
    }
}

async fn send(client: &HttpClient, request: &Request) -> Result<(u16, Vec<u8>), String> {
    let headers: Vec<(&str, &str)> = request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let answered = tokio::time::timeout(PATIENCE, async {
        let response = client.request(request.method.clone(), &request.path, &headers, request.body.clone()).await.map_err(|error| error.to_string())?;
        let code = response.status;
        // What upgrades the connection has no end of its own.
        let body = if code == 101 { Vec::new() } else { response.bytes().await.map_err(|error| format!("{code}, then {error}"))?.to_vec() };
        Ok((code, body))
    });
    answered.await.unwrap_or_else(|_| Err(format!("nothing came in {PATIENCE:?}")))
}

/// What the fuzzer needs to be there: a namespace of its own, and a custom kind with rules.
async fn prepare(client: &HttpClient) -> Result<()> {
    let made = [
        ("/api/v1/namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})),
        (
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.fuzz.coracle.example"},
                "spec": {"group": "fuzz.coracle.example", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"}, "versions": [{"name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}},
                "additionalPrinterColumns": [{"name": "N", "type": "integer", "jsonPath": ".spec.n"}], "selectableFields": [{"jsonPath": ".spec.s"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-validations": [{"rule": "!has(self.n) || self.n < 1000"}, {"rule": "!has(self.l) || self.l.all(x, x.matches('^[a-z]*$'))"}],
                    "properties": {"n": {"type": "integer", "default": 1}, "s": {"type": "string", "maxLength": 64}, "l": {"type": "array", "maxItems": 16, "x-kubernetes-list-type": "set", "items": {"type": "string", "maxLength": 16}},
                        "m": {"type": "object", "additionalProperties": {"type": "number"}}, "i": {"x-kubernetes-int-or-string": true}, "e": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}, "o": {"type": "object", "nullable": true}}},
                    "status": {"type": "object", "properties": {"n": {"type": "integer"}}}}}}}]}}),
        ),
    ];
    for (path, object) in made {
        let response = client.request(Method::POST, path, &[("content-type", "application/json")], object.to_string()).await?;
        let code = response.status;
        let body = response.bytes().await?;
        anyhow::ensure!(matches!(code, 201 | 409), "POST {path}: {code}: {}", String::from_utf8_lossy(&body));
    }
    Ok(())
}

/// Asks until `deadline`, and tells everything that went wrong.
pub async fn run(config: &Config, seed: u64, deadline: Instant) -> Result<Report> {
    let connect = || HttpClient::new(config, "coracle-fuzz");
    let first = connect()?;
    prepare(&first).await?;
    let operations = Arc::new(Operations::load(&first).await.context("reading the OpenAPI")?);
    anyhow::ensure!(!operations.is_empty(), "the OpenAPI has no operations");
    let count = operations.len();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let (client, operations) = (connect()?, operations.clone());
        tasks.spawn(async move {
            let mut random = Random::new(seed.wrapping_mul(CLIENTS as u64).wrapping_add(number as u64));
            let (mut report, mut findings) = (Report::default(), Findings::default());
            let mut names = requests::Names::default();
            while Instant::now() < deadline {
                let request = requests::make(&operations, &names, &mut random);
                let answered = send(&client, &request).await;
                report.requests += 1;
                if let Ok((code, body)) = &answered {
                    *report.codes.entry(*code).or_default() += 1;
                    names.learn(*code, body);
                }
                if !findings.judge(&request, answered) {
                    break;
                }
            }
            report.findings = findings.take();
            report
        });
    }
    let mut whole = Report { operations: count, ..Report::default() };
    let mut findings = Findings::default();
    while let Some(done) = tasks.join_next().await {
        let report = done.context("a client panicked")?;
        whole.requests += report.requests;
        report.codes.into_iter().for_each(|(code, count)| *whole.codes.entry(code).or_default() += count);
        report.findings.into_iter().for_each(|finding| findings.add(finding));
    }
    whole.findings = findings.take();
    Ok(whole)
}
