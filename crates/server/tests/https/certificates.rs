//! Client certificates nobody answers for: the connection stands, and each request is answered.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use pki::{Authority, Identity, Pki};
use server::StaticTokens;

use super::harness::{CONFIG_MAPS, Server};

async fn ask(connection: &mut SendRequest<Full<Bytes>>, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut request = http::Request::get(path).header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    connection.ready().await.unwrap();
    let answer = connection.send_request(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap();
    let code = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8_lossy(&body).into_owned())
}

fn of(authority: &Authority, user: &str, now: i64) -> Identity {
    authority.issue(&Pki::Client { user, groups: &["system:masters"] }, now).unwrap()
}

#[tokio::test]
async fn who_is_unknown_is_told_so() {
    let server = Server::start_with(|config| config.authentication.tokens = StaticTokens::parse("letmein,joe,1,system:masters").unwrap()).await;
    let now = jiff::Timestamp::now().as_second();
    let stranger = Authority::generate("stranger", now).unwrap();
    let mut connection = server.connect_as(&of(&stranger, "kubernetes-admin", now)).await;
    for path in [CONFIG_MAPS, "/version", "/healthz"] {
        let (code, body) = ask(&mut connection, path, &[]).await;
        assert!(code == 401 && body.contains("Unauthorized"), "{path}: {body}");
    }
    // A token is as good as from anybody.
    assert_eq!(ask(&mut connection, CONFIG_MAPS, &[("authorization", "Bearer letmein")]).await.0, 200);
    assert_eq!(ask(&mut connection, CONFIG_MAPS, &[("authorization", "Bearer wrong")]).await.0, 401);
}

#[tokio::test]
async fn what_has_ended_is_worth_nothing() {
    let now = jiff::Timestamp::now().as_second();
    // As old as it is, its authority lives: it was a client's, too.
    let old = Authority::generate("old", now - 2 * 366 * 24 * 3600).unwrap();
    let server = Server::start_with(|config| config.authentication.client_ca_pem = old.identity.certificate_pem.clone()).await;
    assert_eq!(ask(&mut server.connect_as(&of(&old, "jane", now)).await, CONFIG_MAPS, &[]).await.0, 200);
    let ended = of(&old, "jane", now - 2 * 366 * 24 * 3600);
    assert!(pki::Certificate::read(ended.certificate_pem.as_bytes()).unwrap().not_after < now);
    assert_eq!(ask(&mut server.connect_as(&ended).await, CONFIG_MAPS, &[]).await.0, 401);
    let to_come = of(&old, "jane", now + 24 * 3600);
    assert_eq!(ask(&mut server.connect_as(&to_come).await, CONFIG_MAPS, &[]).await.0, 401);
}

/// A certificate is no secret: who shows it must have its key.
#[tokio::test]
async fn a_certificate_without_its_key_is_no_connection() {
    let now = jiff::Timestamp::now().as_second();
    let authority = Authority::generate("clients", now).unwrap();
    let server = Server::start_with(|config| config.authentication.client_ca_pem = authority.identity.certificate_pem.clone()).await;
    let [jane, jill] = ["jane", "jill"].map(|user| of(&authority, user, now));
    assert!(server.answers_impostor(&jane, &jane).await);
    assert!(!server.answers_impostor(&jane, &jill).await);
}
