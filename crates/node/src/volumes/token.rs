//! Service account tokens for projected volumes: TokenRequest, bound to the pod. Mirrors upstream's token manager.

use std::time::Duration;

use api::k8s::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use api::k8s::api::core::v1::{ServiceAccount, ServiceAccountTokenProjection};
use jiff::SignedDuration;

use crate::cx::Cx;
use crate::pod;

const DEFAULT_SECONDS: i64 = 3600;
/// A token is replaced when this much of its life is over, and every day at the latest.
const REFRESH_PERCENT: i32 = 80;
const REFRESH_AT_LATEST: SignedDuration = SignedDuration::from_hours(24);

pub struct Token {
    pub text: String,
    pub refresh_in: Duration,
}

pub async fn request(cx: &Cx, source: &ServiceAccountTokenProjection) -> Result<Token, String> {
    let spec = pod::spec(&cx.pod);
    let account = spec.service_account_name.clone().filter(|a| !a.is_empty()).unwrap_or_else(|| "default".to_owned());
    let seconds = source.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(source.audience.iter().filter(|a| !a.is_empty()).cloned().collect()),
            expiration_seconds: Some(seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(pod::name(&cx.pod).to_owned()),
                uid: Some(pod::uid(&cx.pod).to_owned()),
            }),
        }),
        ..TokenRequest::default()
    };
    let accounts = cx.node.client.of::<ServiceAccount>(Some(pod::namespace(&cx.pod)));
    let failed = |why: String| format!("failed to fetch token: {why}");
    let answer = accounts.create_subresource(&account, "token", &request).await.map_err(|error| failed(error.to_string()))?;
    let answer = answer.typed::<TokenRequest>().map_err(|error| failed(error.to_string()))?;
    let status = answer.status.as_ref().ok_or_else(|| failed("the answer has no status".to_owned()))?;
    let expires = status.expiration_timestamp.as_ref().ok_or_else(|| failed("the token does not expire".to_owned()))?;
    let life = expires.0.duration_since(cx.node.now());
    let refresh_in = (life * REFRESH_PERCENT / 100).min(REFRESH_AT_LATEST);
    let text = status.token.clone().ok_or_else(|| failed("the answer has no token".to_owned()))?;
    Ok(Token { text, refresh_in: Duration::try_from(refresh_in).unwrap_or_default() })
}
