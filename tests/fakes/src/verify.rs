//! Services that only say whether a request is signed as the SDK's own signer would have signed it.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_lc_rs::digest::{SHA256, digest};
use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
        UriPathNormalizationMode, sign,
    },
    sign::v4::SigningParams,
};
use http::{StatusCode, request::Parts};
use time::{PrimitiveDateTime, macros::format_description};

use crate::{
    backend::{self, Answer},
    server::BoxError,
};

/// Whether this is such a service's name: Bedrock's models, whose ids have colons, and objects on Outposts, which are signed
/// by S3's rules under another name.
pub fn is_for(host: &str) -> bool {
    host.starts_with("bedrock-runtime.") || host.contains(".s3-outposts.")
}

/// 200 if the signature is right.
pub fn answer(head: &Parts, host: &str, body: &[u8], id: &str, secret: &str) -> Result<Answer, BoxError> {
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let field = text("authorization");
    let member = |name: &str| field.split(name).nth(1).and_then(|rest| rest.split(',').next()).unwrap_or_default();
    let scope: Vec<&str> = member("Credential=").split('/').collect();
    let [key, _, region, service, "aws4_request"] = scope[..] else {
        return Ok(backend::text_answer(StatusCode::FORBIDDEN, "text/plain", "not signed\n".to_owned()));
    };
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let time: SystemTime = PrimitiveDateTime::parse(text("x-amz-date"), format)?.assume_utc().into();
    let identity = Credentials::new(id, secret, None, None, "lab").into();
    let mut settings = SigningSettings::default();
    if host.contains(".s3-outposts.") {
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    }
    let payload = if text("x-amz-content-sha256").is_empty() {
        hex::encode(digest(&SHA256, body))
    } else {
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        text("x-amz-content-sha256").to_owned()
    };
    let params = SigningParams::builder().identity(&identity).region(region).name(service);
    let params = params.time(time).settings(settings).build()?.into();
    // Date and checksum are the signer's to add.
    let names = member("SignedHeaders=").split(';');
    let names = names.filter(|name| !["host", "x-amz-content-sha256", "x-amz-date"].contains(name));
    let headers: Vec<_> = names.map(|name| (name, text(name))).collect();
    let target = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let url = format!("https://{host}{target}");
    let body = SignableBody::Precomputed(payload);
    let signable = SignableRequest::new(head.method.as_str(), &url, headers.into_iter(), body)?;
    let right = sign(signable, &params)?.signature().to_owned();
    if key == id && member("Signature=") == right {
        return Ok(backend::text_answer(StatusCode::OK, "application/json", String::new()));
    }
    let why = format!("the SDK's signer says {right} for {target}\n");
    Ok(backend::text_answer(StatusCode::FORBIDDEN, "text/plain", why))
}
