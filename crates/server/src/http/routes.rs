//! From a request to whoever answers it: authentication, authorisation, then resources, discovery, health.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::api::{Status, discovery, openapi};
use http::request::Parts;
use http::{HeaderValue, Method};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::answer::{self, Answer};
use super::counted::Counted;
use super::negotiate::{Asked, Endpoint, Shape};
use super::resource;
use super::{audited, compress, documents, held, impersonation, spent};
use crate::aggregator;
use crate::api::Api;
use crate::audit::{AUDIT_ID, Record};
use crate::authentication::{Presented, User, service_accounts};
use crate::authorization::Attributes;
use crate::duration::{self, go_duration};
use crate::flow_control::{FlowControl, Kind, Request};
use crate::health;
use crate::jwt::PublicKey;
use crate::lifecycle::Seat;
use crate::path::{self, Query, ResourcePath, Route};
use crate::scrape;

/// How much of a refused request's body is read, and for how long.
const MAX_DRAIN_BYTES: usize = 256 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Paths that nobody needs a role for (upstream's `--authorization-always-allow-paths`).
const PUBLIC: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// Served whatever the method; so are groups by themselves.
const ANY_METHOD: [&str; 3] = ["", "/apis", "/openapi/v2"];

pub async fn handle(api: Arc<Api>, presented: Presented, seat: &mut Seat, request: http::Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let late = api.lifecycle.too_late(seat, &parts);
    let id = api.request_ids.of(&parts.headers);
    let shown_id = HeaderValue::from_str(&id);
    let (head, gzip) = (parts.method == Method::HEAD, compress::accepted(&parts));
    let mut body = Some(body);
    let query = Query::parse(parts.uri.query().unwrap_or(""));
    let asked = Asked::of(&parts, &query, api.config.cbor);
    let mut counted = None;
    let (routed, spent) = match late {
        Some(refusal) => (Ok(refusal), Default::default()),
        None => spent::followed(route(api, presented, seat, &id, parts, query, &asked, &mut body, &mut counted)).await,
    };
    let mut answer = routed.unwrap_or_else(|status| answer::refusal(&status, &asked));
    if let Some(counted) = counted {
        answer = counted.answered(answer, spent);
    }
    if let Ok(id) = shown_id {
        answer.headers_mut().insert(AUDIT_ID, id);
    }
    if let Some(unread) = body.filter(|body| !body.is_end_stream()) {
        drain(unread).await;
    }
    if head {
        answer::without_body(&mut answer);
        return answer;
    }
    if gzip { compress::gzip(answer).await } else { answer }
}

/// A client that is still sending when it is refused would see a broken stream instead of the refusal.
async fn drain(mut body: Incoming) {
    let mut left = MAX_DRAIN_BYTES;
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len()));
            if left == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, read).await;
}

#[allow(clippy::too_many_arguments, reason = "all that was found out about one request")]
async fn route(
    api: Arc<Api>,
    presented: Presented,
    seat: &mut Seat,
    id: &str,
    mut parts: Parts,
    query: Query,
    asked: &Asked,
    body: &mut Option<Incoming>,
    counted: &mut Option<Counted>,
) -> Result<Answer, Status> {
    let path = parts.uri.path().to_owned();
    let found = path::parse(&path);
    let asked_for = match &found {
        Route::Resource(target) => attributes(&parts.method, target, &query),
        Route::Other => Attributes { verb: parts.method.as_str().to_ascii_lowercase(), path, ..Attributes::default() },
    };
    let kind = kind(&asked_for);
    if kind != Kind::Ordinary {
        seat.let_go(kind == Kind::LongRunning);
    }
    *counted = api.requests.begin(&parts, &found, &asked_for, &query, kind);
    let begun = Instant::now();
    let authenticated = api.authenticate(&presented, &parts.headers, parts.uri.path()).await;
    let tried = presented.refused || presented.ends.is_some() || parts.headers.contains_key(http::header::AUTHORIZATION);
    api.measured.authenticated(&authenticated, &presented, tried, api.clock.now().as_second(), begun.elapsed());
    let user = authenticated.inspect_err(|status| audited::unknown(&api, id, &parts, &found, &asked_for, status))?;
    let Some(record) = audited::begin(&api, id, &parts, &found, &asked_for, &user).await? else {
        return serve(api, user, found, asked_for, kind, parts, query, asked, body).await;
    };
    parts.extensions.insert(record.clone());
    let serving = serve(api, user, found, asked_for, kind, parts, query, asked, body);
    Ok(audited::complete(record, kind, asked, serving).await)
}

/// A request whose sender is known.
#[allow(clippy::too_many_arguments, reason = "all that was found out about one request")]
async fn serve(api: Arc<Api>, user: Arc<User>, found: Route, asked_for: Attributes, kind: Kind, parts: Parts, query: Query, asked: &Asked, body: &mut Option<Incoming>) -> Result<Answer, Status> {
    let time = time(&api, &query, kind)?;
    let authenticated = user.clone();
    let (user, constraint) = impersonation::apply(&api, user, &parts.headers, &asked_for).await?;
    if let Some(record) = parts.extensions.get::<Arc<Record>>().filter(|_| user != authenticated) {
        record.impersonated(&user, constraint.as_deref());
    }
    let target = if let Route::Resource(target) = &found { Some(target) } else { None };
    let request = Request { attributes: &asked_for, target, query: &query };
    let until = Instant::now() + time;
    let begun = Instant::now();
    let entered = FlowControl::enter(&api, &user, &request, kind, time).await;
    api.measured.filter("priorityandfairness", begun.elapsed());
    let pass = match entered {
        Ok(pass) => pass,
        Err(turned_away) => return Ok(turned_away),
    };
    let answering = answer_to(api, user, found, asked_for, parts, query, asked, body);
    let answered = if kind == Kind::Ordinary {
        timeout_at(until, answering).await.unwrap_or_else(|_| {
            spent::terminated();
            Err(Status::timeout("request did not complete within the allotted timeout", 0))
        })
    } else {
        answering.await
    };
    let Some(pass) = pass else { return answered };
    let mut answer = answered.unwrap_or_else(|status| answer::refusal(&status, asked));
    pass.mark(&mut answer);
    if kind == Kind::Ordinary && pass.holds() && answer.body().size_hint().exact().is_none() {
        return Ok(held::until_sent(answer, pass));
    }
    Ok(answer)
}

/// Streams do not count as requests for long, or at all (`BasicLongRunningRequestCheck`).
fn kind(asked: &Attributes) -> Kind {
    match (asked.verb.as_str(), asked.subresource.as_str()) {
        (_, "attach" | "exec" | "proxy" | "log" | "portforward") => Kind::LongRunning,
        ("watch", _) => Kind::Watch,
        _ => Kind::Ordinary,
    }
}

/// What the request may take: what it asks for, within what the server gives.
fn time(api: &Api, query: &Query, kind: Kind) -> Result<Duration, Status> {
    let most = api.config.request_timeout;
    let Some(text) = query.get("timeout").filter(|text| !text.is_empty() && kind == Kind::Ordinary) else { return Ok(most) };
    let wanted = go_duration(text).ok_or_else(|| Status::bad_request(format!("invalid timeout specified in the request URL - {}", duration::why_not(text))))?;
    Ok(if wanted.is_zero() { most } else { wanted.min(most) })
}

#[allow(clippy::too_many_arguments, reason = "all that was found out about one request")]
async fn answer_to(api: Arc<Api>, user: Arc<User>, found: Route, asked_for: Attributes, parts: Parts, query: Query, asked: &Asked, body: &mut Option<Incoming>) -> Result<Answer, Status> {
    match found {
        Route::Resource(target) => {
            audited::require(&api, &parts, &user, &asked_for).await?;
            if let Some(remote) = aggregator::remote(&api, &target.group, &target.version) {
                return aggregator::relay(&api, &remote, &user, parts, body).await;
            }
            resource::handle(api, user, target, query, parts, asked, body).await
        }
        Route::Other => {
            let path = asked_for.path.clone();
            if !PUBLIC.contains(&path.as_str()) {
                audited::require(&api, &parts, &user, &asked_for).await?;
            }
            if let Some(remote) = aggregator::path_owner(&api, &path) {
                return aggregator::relay(&api, &remote, &user, parts, body).await;
            }
            let answer = other(&api, &path, &query, &parts, asked)?;
            let group = path.strip_prefix("/apis/").is_some_and(|rest| !rest.trim_end_matches('/').contains('/'));
            // What upstream's plain mux serves does not look at the method; what is not there is not there for any.
            let any = answer.status() == http::StatusCode::NOT_FOUND || ANY_METHOD.contains(&path.trim_end_matches('/')) || group || health::is_asked(&path);
            if any || matches!(parts.method, Method::GET | Method::HEAD) { Ok(answer) } else { Err(answer::method_not_allowed()) }
        }
    }
}

fn attributes(method: &Method, target: &ResourcePath, query: &Query) -> Attributes {
    let watch = target.watch || query.flag("watch");
    let verb = match *method {
        Method::GET | Method::HEAD if target.name.is_none() && watch => "watch",
        Method::GET | Method::HEAD if target.name.is_none() => "list",
        Method::GET | Method::HEAD if watch && target.subresource.is_none() => "watch",
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if target.name.is_none() => "deletecollection",
        Method::DELETE => "delete",
        _ => "",
    };
    Attributes::of(verb, target, query.get("fieldSelector").unwrap_or_default())
}

/// Everything that is no resource.
fn other(api: &Arc<Api>, path: &str, query: &Query, parts: &Parts, asked: &Asked) -> Result<Answer, Status> {
    let trimmed = path.trim_end_matches('/');
    if health::is_asked(path) {
        return Ok(health::answer(api, path, query.flag("verbose")).map_or_else(answer::no_page, |(code, body)| answer::text(code, body)));
    }
    let rows = api.serving.rows();
    let each = || rows.all().iter().map(|row| &**row);
    let found = |value: Option<Value>| match value {
        Some(value) => Ok(asked.wanted(Endpoint::Plain)?.value(200, &value)),
        None => Ok(answer::no_page()),
    };
    let pieces: Vec<&str> = trimmed.split('/').filter(|part| !part.is_empty()).collect();
    match pieces.as_slice() {
        ["version"] => Ok(answer::raw_json(200, &health::version(api))),
        ["metrics"] => Ok(answer::bytes(200, crate::metrics::CONTENT_TYPE, scrape::metrics(api))),
        ["metrics", "slis"] => Ok(answer::bytes(200, crate::metrics::CONTENT_TYPE, scrape::indicators(api))),
        [] => Ok(answer::raw_json(200, &json!({"paths": root_paths(api)}))),
        ["api"] | ["apis"] => {
            let core = pieces[0] == "api";
            if let Some(wanted) = asked.wanted(Endpoint::Discovery).ok().filter(|wanted| wanted.shape == Shape::Discovery) {
                let value = if core { discovery::aggregated_core(each(), "v2") } else { aggregator::aggregated(api, discovery::aggregated_apis(each(), "v2")) };
                return Ok(documents::aggregated(&wanted, &value, parts));
            }
            let address = format!("{}:{}", api.config.advertise_address, api.config.secure_port);
            found(Some(if core { discovery::core_versions(&address) } else { aggregator::group_list(api, discovery::group_list(each())) }))
        }
        ["api", "v1"] => found(discovery::resource_list(each(), "", "v1")),
        ["api", _] => Err(Status::no_route()),
        ["apis", group] => found(aggregator::group(api, group, discovery::group(each(), group))),
        ["apis", group, version] => match discovery::resource_list(each(), group, version) {
            None if discovery::group(each(), group).is_some() => Err(Status::no_route()),
            list => found(list),
        },
        ["openapi", rest @ ..] => aside(|| openapi(api, rest, parts, query, asked)),
        [".well-known", "openid-configuration"] => {
            let mut algorithms: Vec<&str> = service_accounts::keys(&api.config).into_iter().map(PublicKey::algorithm).collect();
            algorithms.sort_unstable();
            algorithms.dedup();
            let address = SocketAddr::new(api.config.advertise_address, api.config.secure_port);
            let document = json!({"issuer": api.config.service_account_issuer, "jwks_uri": format!("https://{address}/openid/v1/jwks"), "response_types_supported": ["id_token"], "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": algorithms});
            Ok(kept_an_hour(answer::bytes(200, "application/json", document.to_string())))
        }
        ["openid", "v1", "jwks"] => {
            let keys: Vec<Value> = service_accounts::keys(&api.config).into_iter().map(PublicKey::jwk).collect();
            Ok(kept_an_hour(answer::bytes(200, "application/jwk-set+json", json!({"keys": keys}).to_string())))
        }
        _ => Ok(answer::no_page()),
    }
}

/// Keys change seldom: whoever verifies tokens need not ask each time.
fn kept_an_hour(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(http::header::CACHE_CONTROL, http::HeaderValue::from_static("public, max-age=3600"));
    answer
}

/// On a thread of its own, which ends with it: what it took of memory goes with the thread, where one that lives on would keep tens of MiB for its next such work.
fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let done = std::thread::scope(|scope| scope.spawn(work).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Documents are made when asked for and dropped again: they are large, and few ask.
fn openapi(api: &Arc<Api>, rest: &[&str], parts: &Parts, query: &Query, asked: &Asked) -> Result<Answer, Status> {
    let rows = api.serving.rows();
    let each = || rows.all().iter().map(|row| &**row);
    match rest {
        ["v2"] => Ok(documents::openapi_v2(asked, parts, || aggregator::v2(api, openapi::v2(each())))),
        ["v3"] => Ok(documents::openapi_v3_index(&aggregator::v3_index(api, openapi::v3_index(each())))),
        ["v3", path @ ..] => {
            let name = path.join("/");
            let hash = openapi::v3_hash(each(), &name).ok_or_else(Status::no_route)?;
            let document = || match path {
                ["api", version] => openapi::v3_group(each(), "", version),
                ["apis", group, version] => openapi::v3_group(each(), group, version),
                _ => openapi::v3_around(each(), &name),
            };
            documents::openapi_v3(parts, query, &name, &hash, document).ok_or_else(Status::no_route)
        }
        _ => Err(Status::no_route()),
    }
}

fn root_paths(api: &Api) -> Vec<String> {
    let rows = api.serving.rows();
    let mut paths: Vec<String> = vec!["/.well-known/openid-configuration".into(), "/api".into(), "/apis".into(), "/healthz".into(), "/livez".into(), "/metrics".into(), "/metrics/slis".into(), "/openapi/v2".into(), "/openapi/v3".into(), "/openapi/v3/".into(), "/openid/v1/jwks".into(), "/readyz".into(), "/version".into()];
    paths.push("/apis/".into());
    paths.extend(health::paths(api));
    for row in rows.all() {
        if row.group.is_empty() {
            paths.push(format!("/api/{}", row.version));
        } else {
            paths.push(format!("/apis/{}", row.group));
            paths.push(format!("/apis/{}/{}", row.group, row.version));
        }
    }
    paths.sort();
    paths.dedup();
    paths
}
