//! What counts as wrong, told once each, with the request that shows it.

use std::collections::BTreeMap;
use std::fmt;

use super::requests::Request;

/// More kinds of findings are not told.
const MOST: usize = 40;
/// A client whose requests are not answered so many times in a row has lost its server.
const MOST_UNANSWERED: usize = 3;

#[derive(Debug, Clone)]
pub struct Finding {
    pub what: String,
    pub request: Request,
    pub times: usize,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 1500;
        let body: String = String::from_utf8_lossy(&self.request.body).chars().take(SHOWN).collect();
        let headers: String = self.request.headers.iter().map(|(name, value)| format!(" -H '{name}: {value}'")).collect();
        let path: String = self.request.path.chars().take(SHOWN).collect();
        write!(f, "{} times: {}\n  curl -X {}{headers} '{path}' -d '{body}'", self.times, self.what, self.request.method)
    }
}

#[derive(Default)]
pub struct Findings {
    by_shape: BTreeMap<String, Finding>,
    unanswered: usize,
}

/// 5xx that upstream answers too, in these words, because that is what they mean.
fn upstreams(request: &Request, code: u16, message: &str) -> bool {
    // Ways to nodes and pods that are not there.
    let onward = ["/proxy", "/exec", "/attach", "/portforward", "/log"].iter().any(|part| request.template.contains(part));
    // What does not fit its schema cannot be applied (fieldmanager/structuredmerge.go answers with a bare error, which is a 500).
    let applied = message.contains("failed to create typed patch object");
    // A resourceVersion that is no number: upstream's versioner makes no Status of its error.
    let unread = message.contains("strconv.ParseUint: parsing");
    // A strategic patch that contradicts its kind (endpoints/handlers/patch.go `interpretStrategicMergePatchError` passes most errors on as they are).
    let strategic = request.headers.iter().any(|(_, value)| value.contains("strategic")) && ["map: ", "expected a ", "unknown patch type", "unable to find api field", "delete patch type"].iter().any(|words| message.contains(words));
    // A revision that is still to come: wait for it, or ask again (storage `NewTooLargeResourceVersionError`).
    let early = code == 504 && message.contains("Too large resource version");
    (onward && matches!(code, 500 | 502 | 503 | 504) && !message.contains("panicked")) || applied || unread || early || strategic || code == 501
}

fn shape(text: &str) -> String {
    let mut quoted = false;
    let kept = text.chars().filter(|character| {
        quoted ^= *character == '"';
        !quoted && !character.is_ascii_digit()
    });
    kept.take(120).collect()
}

impl Findings {
    /// Looks at an answer; false when there is no server any more.
    pub fn judge(&mut self, request: &Request, answered: Result<(u16, Vec<u8>), String>) -> bool {
        match answered {
            Ok((code, body)) => {
                self.unanswered = 0;
                if code >= 500 {
                    let text = String::from_utf8_lossy(&body).into_owned();
                    let message = serde_json::from_str::<serde_json::Value>(&text).ok().and_then(|value| Some(value["message"].as_str()?.to_owned())).unwrap_or(text);
                    if !upstreams(request, code, &message) {
                        let shown: String = message.chars().take(600).collect();
                        self.add(Finding { what: format!("{code} for {} {}: {shown}", request.method, request.template), request: request.clone(), times: 1 });
                    }
                }
            }
            // The client itself refused to send it.
            Err(error) if error.contains("invalid uri") || error.contains("uri too long") || error.contains("failed to parse header") => {}
            Err(error) => {
                self.unanswered += 1;
                self.add(Finding { what: format!("no answer to {} {}: {error}", request.method, request.template), request: request.clone(), times: 1 });
            }
        }
        self.unanswered < MOST_UNANSWERED
    }

    pub fn add(&mut self, finding: Finding) {
        let shape = shape(&finding.what);
        let room = self.by_shape.len() < MOST;
        match self.by_shape.get_mut(&shape) {
            Some(known) => known.times += finding.times,
            None if room => drop(self.by_shape.insert(shape, finding)),
            None => {}
        }
    }

    pub fn take(self) -> Vec<Finding> {
        self.by_shape.into_values().collect()
    }
}
