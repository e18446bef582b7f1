//! `kubectl certificate approve` and `deny`.

use serde_json::{Value, json};

use crate::builder::{self, FILES, Found};
use crate::command::{command, family};
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, switch, text};
use crate::printers::{self, OUTPUT};
use crate::session::Session;

const FLAGS: &[Flag] = &[switch("force", "Update the CSR even if it is already approved."), text("selector", "", "Selector (label query) to filter on.").short('l')];
family!(CERTIFICATE, "certificate", "Modify certificate resources", [&APPROVE, &DENY]);
command!(APPROVE, "approve", [], "(-f FILENAME | NAME) [options]", "Approve a certificate signing request", [FLAGS, FILES, OUTPUT], approve);
command!(DENY, "deny", [], "(-f FILENAME | NAME) [options]", "Deny a certificate signing request", [FLAGS, FILES, OUTPUT], deny);

async fn approve(session: &Session, args: &Args) -> Result<()> {
    decide(session, args, ["Approved", "Denied"], "KubectlApprove", "This CSR was approved by kubectl certificate approve.", "approved").await
}

async fn deny(session: &Session, args: &Args) -> Result<()> {
    decide(session, args, ["Denied", "Approved"], "KubectlDeny", "This CSR was denied by kubectl certificate deny.", "denied").await
}

async fn decide(session: &Session, args: &Args, [kind, opposite]: [&str; 2], reason: &str, message: &str, verb: &str) -> Result<()> {
    if args.positional.is_empty() && !builder::has_files(args) {
        return fail("one or more CSRs must be specified as <name> or -f <filename>");
    }
    let words: Vec<String> = args.positional.iter().map(|name| if name.contains('/') { name.clone() } else { format!("certificatesigningrequests.certificates.k8s.io/{name}") }).collect();
    let mut errors = Vec::new();
    for found in builder::resolve(session, args, &words).await? {
        let outcome = async {
            let found: Found = found?;
            let mut object = found.object.clone();
            let conditions = object.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
            if conditions.iter().any(|condition| condition["type"] == opposite) {
                return Err(Error::Message(format!("certificate signing request {:?} is already {opposite}", found.name)));
            }
            if !conditions.iter().any(|condition| condition["type"] == kind) || args.on("force") {
                let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                let mut conditions = conditions;
                conditions.retain(|condition| condition["type"] != kind);
                conditions.push(json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastUpdateTime": now}));
                object["status"]["conditions"] = conditions.into();
                object = session.put(&found.sub("approval"), &object).await?;
            }
            printers::said(args, &object, &found.label(), verb)
        };
        if let Err(error) = outcome.await {
            errors.push(error);
        }
    }
    builder::gather(errors)
}
