//! Services that only say whether a request is signed as the SDK's own signer would have signed it.

use std::{fmt::Write as _, time::SystemTime};

use aws_credential_types::Credentials;
use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac,
};
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

/// Whether this is such a service's name: objects on Outposts, which are signed by S3's rules under another name.
pub fn is_for(host: &str) -> bool {
    host.contains(".s3-outposts.")
}

/// Whether the signature is right, or how it is refused.
pub fn check(head: &Parts, host: &str, body: &[u8], id: &str, secret: &str) -> Result<Result<(), Answer>, BoxError> {
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let field = text("authorization");
    let member = |name: &str| field.split(name).nth(1).and_then(|rest| rest.split(',').next()).unwrap_or_default();
    let scope: Vec<&str> = member("Credential=").split('/').collect();
    let [key, _, region, service, "aws4_request"] = scope[..] else {
        return Ok(Err(backend::text_answer(StatusCode::FORBIDDEN, "text/plain", "not signed\n".to_owned())));
    };
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let all = member("SignedHeaders=");
    if all.split(';').any(|name| name == AUTHORITY) {
        let hash = match text("x-amz-content-sha256") {
            "" => hex::encode(digest(&SHA256, body)),
            said => said.to_owned(),
        };
        let right = by_authority(head, host, all, &hash, secret, &scope);
        return Ok(if key == id && member("Signature=") == right { Ok(()) } else { Err(wrong(&right, head)) });
    }
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
    let url = format!("https://{host}{}", target(head));
    let body = SignableBody::Precomputed(payload);
    let signable = SignableRequest::new(head.method.as_str(), &url, headers.into_iter(), body)?;
    let right = sign(signable, &params)?.signature().to_owned();
    if key == id && member("Signature=") == right {
        return Ok(Ok(()));
    }
    Ok(Err(wrong(&right, head)))
}

fn target(head: &Parts) -> &str {
    head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
}

fn wrong(right: &str, head: &Parts) -> Answer {
    let why = format!("the signature should be {right} for {}\n", target(head));
    backend::text_answer(StatusCode::FORBIDDEN, "text/plain", why)
}

/// What clients sign in the place of `host` that speak HTTP/2.
const AUTHORITY: &str = ":authority";

/// The signature of a request without a query, by hand: the SDK's signer always signs `host`.
fn by_authority(head: &Parts, host: &str, names: &str, hash: &str, secret: &str, scope: &[&str]) -> String {
    let mut canonical = format!("{}\n", head.method);
    for byte in head.uri.path().bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            canonical.push(char::from(byte));
        } else {
            let _ = write!(canonical, "%{byte:02X}");
        }
    }
    canonical.push_str("\n\n");
    let mut stamp = "";
    for name in names.split(';') {
        let value = head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let value = if name == AUTHORITY { host } else { value };
        if name == "x-amz-date" {
            stamp = value;
        }
        let _ = writeln!(canonical, "{name}:{value}");
    }
    let _ = write!(canonical, "\n{names}\n{hash}");
    let scope = &scope[1..];
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{stamp}\n{}\n{}",
        scope.join("/"),
        hex::encode(digest(&SHA256, canonical.as_bytes()))
    );
    hex::encode(hmac(&key(secret, scope), &to_sign))
}

/// What a secret signs by in a scope.
pub fn key(secret: &str, scope: &[&str]) -> Vec<u8> {
    scope.iter().fold(format!("AWS4{secret}").into_bytes(), |key, part| hmac(&key, part))
}

/// HMAC by SHA-256.
pub fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}
