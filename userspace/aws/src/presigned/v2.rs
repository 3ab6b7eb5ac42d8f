//! Signature Version 2 for S3: in a query, as boto3 presigns unless told otherwise, and in the head, as `s3cmd
//! --signature-v2` and older tools have it.

use std::fmt::Write as _;

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderName, HeaderValue,
    header::{AUTHORIZATION, CONTENT_TYPE, DATE},
    request::Parts,
};
use time::{OffsetDateTime, PrimitiveDateTime, macros::format_description};

use super::Query;
use crate::{MAX_CLOCK_SKEW, Placeholder, VerifyError, request_auth::single};

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

/// When a signature holds.
enum Time {
    /// Until then, in seconds.
    Until(i64),
    /// About then.
    At(OffsetDateTime),
}

/// What a request of version 2 says.
pub(super) struct Signed {
    pub(super) access_key_id: String,
    signature: Vec<u8>,
    time: Time,
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
        Ok(Self { access_key_id, signature, time: Time::Until(expires), token, canonical })
    }

    /// Takes the `Authorization` field of version 2 out of the head. `bucket` is as above.
    pub(super) fn take_field(parts: &mut Parts, query: &Query, bucket: Option<&str>) -> Result<Self, VerifyError> {
        const UNREADABLE: VerifyError = VerifyError::Malformed("a Signature Version 2 that can't be read");
        let field = single(&parts.headers, AUTHORIZATION).ok_or(UNREADABLE)?;
        let (id, signature) =
            field.strip_prefix("AWS ").and_then(|rest| rest.trim().split_once(':')).ok_or(UNREADABLE)?;
        let (access_key_id, signature) = (id.to_owned(), STANDARD.decode(signature).map_err(|_| UNREADABLE)?);
        // The field of AWS's own, where there is one, is signed among its like, and the other one isn't.
        let dated = single(&parts.headers, "x-amz-date");
        let signed = if parts.headers.contains_key("x-amz-date") { None } else { single(&parts.headers, DATE) };
        let at = dated.or(signed).and_then(date_of).ok_or(VerifyError::Date("no Date, or one that can't be read"))?;
        let canonical = canonical(parts, query, bucket, signed.unwrap_or_default())?;
        let token = single(&parts.headers, "x-amz-security-token").map(str::to_owned);
        parts.headers.remove(AUTHORIZATION);
        Ok(Self { access_key_id, signature, time: Time::At(at), token, canonical })
    }

    pub(super) fn verify(&self, placeholder: &Placeholder, now: OffsetDateTime) -> Result<(), VerifyError> {
        if self.access_key_id != placeholder.access_key_id() {
            return Err(VerifyError::ForeignKey { access_key_id: self.access_key_id.chars().take(128).collect() });
        }
        if self.token.as_deref() != Some(placeholder.session_token()) {
            return Err(VerifyError::Token);
        }
        match self.time {
            Time::Until(expires) if now.unix_timestamp() > expires => return Err(VerifyError::Date("it has expired")),
            Time::At(signed) if (now - signed).abs() > MAX_CLOCK_SKEW => {
                return Err(VerifyError::Skewed { signed, now });
            }
            Time::Until(_) | Time::At(_) => {}
        }
        // Broken as a hash, SHA-1 still makes a sound HMAC; and AWS's version 2 has no other.
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, placeholder.secret_access_key().as_bytes());
        hmac::verify(&key, self.canonical.as_bytes(), &self.signature).map_err(|_| VerifyError::Mismatch)
    }
}

/// RFC 9110, 5.6.7, with the zone in either of the ways that tools write it.
fn date_of(text: &str) -> Option<OffsetDateTime> {
    let format = format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second]");
    let text = ["GMT", "UTC", "+0000", "-0000"].iter().find_map(|zone| text.strip_suffix(zone))?;
    PrimitiveDateTime::parse(text.trim_end(), format).ok().map(PrimitiveDateTime::assume_utc)
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
