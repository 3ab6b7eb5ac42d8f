//! Signature Version 2 in a query, as boto3 presigns for S3 unless told otherwise.

use std::fmt::Write as _;

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, header::CONTENT_TYPE, request::Parts};
use time::OffsetDateTime;

use super::Query;
use crate::{Placeholder, VerifyError};

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// The members of a query that are a part of the resource, sorted: botocore's list, which is AWS's and a few more.
const SUBRESOURCES: [&str; 35] = [
    "accelerate",
    "acl",
    "analytics",
    "cors",
    "defaultObjectAcl",
    "delete",
    "inventory",
    "lifecycle",
    "location",
    "logging",
    "metrics",
    "notification",
    "object-lock",
    "partNumber",
    "policy",
    "replication",
    "requestPayment",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "restore",
    "select",
    "select-type",
    "storageClass",
    "tagging",
    "torrent",
    "uploadId",
    "uploads",
    "versionId",
    "versioning",
    "versions",
    "website",
];

/// What a query of version 2 says.
pub(super) struct Signed {
    pub(super) access_key_id: String,
    signature: Vec<u8>,
    expires: i64,
    token: Option<String>,
    canonical: String,
}

impl std::fmt::Debug for Signed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signed").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

impl Signed {
    /// Takes what authorises out of the query. `bucket` is the one in the host's name.
    pub(super) fn take(parts: &mut Parts, query: &mut Query, bucket: Option<&str>) -> Result<Self, VerifyError> {
        let access_key_id = query.take("AWSAccessKeyId")?.unwrap_or_default();
        let signature = query.take("Signature")?.unwrap_or_default();
        let expires = query.take("Expires")?.unwrap_or_default();
        let signature =
            STANDARD.decode(signature).map_err(|_| VerifyError::Presigned("its signature is not base64"))?;
        for name in [CONTENT_TYPE, CONTENT_MD5] {
            // botocore signs them and puts them into the query; S3 looks at the header fields alone.
            query.take(name.as_str())?;
        }
        let canonical = canonical(parts, query, bucket, &expires)?;
        let token = query.take("x-amz-security-token")?;
        let expires = Some(expires)
            .filter(|text| !text.is_empty() && text.len() <= 12 && text.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .ok_or(VerifyError::Date("Expires is not a time in seconds"))?;
        Ok(Self { access_key_id, signature, expires, token, canonical })
    }

    pub(super) fn verify(&self, placeholder: &Placeholder, now: OffsetDateTime) -> Result<(), VerifyError> {
        if self.access_key_id != placeholder.access_key_id() {
            return Err(VerifyError::ForeignKey { access_key_id: self.access_key_id.chars().take(128).collect() });
        }
        if self.token.as_deref() != Some(placeholder.session_token()) {
            return Err(VerifyError::Token);
        }
        if now.unix_timestamp() > self.expires {
            return Err(VerifyError::Date("it has expired"));
        }
        // Broken as a hash, SHA-1 still makes a sound HMAC; and AWS's version 2 has no other.
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, placeholder.secret_access_key().as_bytes());
        hmac::verify(&key, self.canonical.as_bytes(), &self.signature).map_err(|_| VerifyError::Mismatch)
    }
}

/// The string that is signed.
fn canonical(parts: &Parts, query: &Query, bucket: Option<&str>, expires: &str) -> Result<String, VerifyError> {
    let text = |value: &HeaderValue| {
        let text = std::str::from_utf8(value.as_bytes());
        text.map(|text| text.trim().to_owned()).map_err(|_| VerifyError::Presigned("a header field is not UTF-8"))
    };
    let one = |name: &HeaderName| parts.headers.get(name).map_or(Ok(String::new()), text);
    let mut out = format!("{}\n{}\n{}\n{expires}\n", parts.method, one(&CONTENT_MD5)?, one(&CONTENT_TYPE)?);
    let mut fields: Vec<(String, String)> = Vec::new();
    for name in parts.headers.keys().filter(|name| name.as_str().starts_with("x-amz-")) {
        let values: Result<Vec<String>, _> = parts.headers.get_all(name).iter().map(text).collect();
        fields.push((name.as_str().to_owned(), values?.join(",")));
    }
    for (name, value, _) in query.pairs.iter().filter(|(name, ..)| name.starts_with("x-amz-")) {
        fields.push((name.clone(), String::from_utf8_lossy(value).trim().to_owned()));
    }
    fields.sort();
    for (name, value) in fields {
        let _ = writeln!(out, "{name}:{value}");
    }
    if let Some(bucket) = bucket {
        out.push('/');
        out.push_str(bucket);
    }
    out.push_str(parts.uri.path());
    let mut members: Vec<_> =
        query.pairs.iter().filter(|(name, ..)| SUBRESOURCES.binary_search(&name.as_str()).is_ok()).collect();
    members.sort_by(|one, other| one.0.cmp(&other.0));
    for (i, (name, value, pair)) in members.into_iter().enumerate() {
        out.push(if i == 0 { '?' } else { '&' });
        out.push_str(name);
        if pair.contains('=') {
            out.push('=');
            out.push_str(&String::from_utf8_lossy(value));
        }
    }
    Ok(out)
}
