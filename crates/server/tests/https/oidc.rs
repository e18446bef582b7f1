//! Users of OIDC issuers: discovery, keys that rotate, claims that map.

use std::sync::Arc;

use base64::Engine as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use server::{Issuer, TokenKey, parse_authentication_configuration};

use crate::harness::Server;
use crate::listener::Listener;

const SELF: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

fn key() -> TokenKey {
    TokenKey::from_pkcs8(&TokenKey::generate().unwrap()).unwrap()
}

#[tokio::test]
async fn users_of_an_issuer() {
    let (first, second) = (key(), key());
    let published = Arc::new(Mutex::new(json!({"keys": [first.public().jwk()]})));
    let url = Arc::new(Mutex::new(String::new()));
    let listener = {
        let (published, url) = (published.clone(), url.clone());
        Listener::start(move |path, _| {
            Some(match path {
                "/.well-known/openid-configuration" => json!({"issuer": *url.lock(), "jwks_uri": format!("{}/keys", *url.lock())}),
                _ => published.lock().clone(),
            })
        })
        .await
    };
    let issuer = format!("https://127.0.0.1:{}", listener.port);
    *url.lock() = issuer.clone();
    let authority = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(&listener.bundle).unwrap()).unwrap();
    let config = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": [{
        "issuer": {"url": issuer, "audiences": ["kubernetes"], "certificateAuthority": authority},
        "claimMappings": {"username": {"claim": "sub", "prefix": "oidc:"}, "groups": {"expression": "claims.groups"}},
        "claimValidationRules": [{"expression": "claims.tenant == 'ours'", "message": "another tenant"}]}]});
    let (issuers, _) = parse_authentication_configuration(config.to_string().as_bytes()).unwrap();
    let server = Server::start_with(|config| config.authentication.issuers = issuers.into_iter().map(Issuer::new).map(Arc::new).collect()).await;

    let now = jiff::Timestamp::now().as_second();
    let claims = |change: Value| {
        let mut claims = json!({"iss": issuer, "aud": "kubernetes", "sub": "jane", "groups": ["dev"], "tenant": "ours", "exp": now + 3600});
        for (key, value) in change.as_object().unwrap() {
            claims[key] = value.clone();
        }
        claims
    };
    let ask = async |token: &str| server.call("POST", SELF, &[("authorization", &format!("Bearer {token}")), ("content-type", "application/json")], "{}").await;
    let jane = first.sign(&claims(json!({}))).unwrap();
    assert_eq!(ask(&jane).await.expect(201).json()["status"]["userInfo"], json!({"username": "oidc:jane", "groups": ["dev", "system:authenticated"]}));
    ask(&jane).await.expect(201);
    assert_eq!(listener.asked.lock().iter().map(|(path, _)| path.clone()).collect::<Vec<_>>(), ["/.well-known/openid-configuration", "/keys"]);

    let why = async |token: &str| server.post(REVIEWS, json!({"spec": {"token": token}})).await.expect(201).json()["status"]["error"].as_str().unwrap_or("").to_owned();
    for (change, want) in [
        (json!({"tenant": "theirs"}), "oidc: error evaluating claim validation expression: validation expression 'claims.tenant == 'ours'' failed: another tenant"),
        (json!({"aud": "else"}), "oidc: verify token: oidc: expected audience \"kubernetes\" got [\"else\"]"),
        (json!({"exp": 1000}), "oidc: verify token: oidc: token is expired (Token Expiry: 1970-01-01T00:16:40Z)"),
    ] {
        let token = first.sign(&claims(change)).unwrap();
        assert_eq!(why(&token).await, format!("[invalid bearer token, {want}]"));
        ask(&token).await.expect(401);
    }
    // Another key is asked for when it is met, and refused as long as the issuer does not own up to it.
    let later = second.sign(&claims(json!({"sub": "joe"}))).unwrap();
    assert!(why(&later).await.contains("failed to verify id token signature"));
    *published.lock() = json!({"keys": [second.public().jwk()]});
    assert_eq!(ask(&later).await.expect(201).json()["status"]["userInfo"]["username"], "oidc:joe");
    ask(&jane).await.expect(401);
}
