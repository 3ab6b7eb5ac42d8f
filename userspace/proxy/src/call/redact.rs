//! What of a head is recorded: every field by its name, and the values of those that are known to carry no authority.
//!
//! New ways to carry a token appear without anybody's telling us (`x-amz-sso_bearer_token` was one), so that what is not
//! listed here is not recorded. Of queries, whose names are those of operations' members, it is the other way round: the
//! `X-Amz-` ones must be listed, and of the rest those that sound like a secret are left out.

use std::{borrow::Cow, sync::LazyLock};

use chaperone_model::Head;
use foldhash::HashSet;
use http::{HeaderMap, Uri, Version};

/// Its value may be an address with a query, too.
const COPY_SOURCE: http::HeaderName = http::HeaderName::from_static("x-amz-copy-source");
const REDACTED: &str = "<redacted>";

/// Fields whose values are recorded. Sorted.
#[rustfmt::skip]
const CLEAR_FIELDS: &[&str] = &[
    "accept", "accept-encoding", "accept-language", "accept-ranges", "age", "allow", "alt-svc",
    "amz-sdk-invocation-id", "amz-sdk-request", "cache-control", "connection", "content-disposition",
    "content-encoding", "content-language", "content-length", "content-location", "content-md5", "content-range",
    "content-type", "date", "etag", "expect", "expires", "from", "host", "if-match", "if-modified-since",
    "if-none-match", "if-range", "if-unmodified-since", "keep-alive", "last-modified", "location", "origin", "pragma",
    "range", "retry-after", "sec-websocket-protocol", "sec-websocket-version", "server", "smithy-protocol", "te",
    "traceparent", "tracestate", "trailer", "transfer-encoding", "upgrade", "user-agent", "vary", "via",
    "x-amz-abort-date", "x-amz-abort-rule-id", "x-amz-account-id", "x-amz-acl", "x-amz-algorithm", "x-amz-apigw-id",
    "x-amz-archive-description", "x-amz-bucket-object-lock-enabled", "x-amz-bucket-region",
    "x-amz-bypass-governance-retention", "x-amz-cf-id", "x-amz-cf-pop", "x-amz-client-context",
    "x-amz-content-sha256", "x-amz-copy-source", "x-amz-copy-source-range", "x-amz-copy-source-version-id",
    "x-amz-date", "x-amz-decoded-content-length", "x-amz-delete-marker", "x-amz-error-code", "x-amz-error-message",
    "x-amz-event-type", "x-amz-executed-version", "x-amz-expected-bucket-owner", "x-amz-expiration",
    "x-amz-function-error", "x-amz-function-name", "x-amz-id-2", "x-amz-invocation-type", "x-amz-log-type",
    "x-amz-max-parts", "x-amz-mfa-serial", "x-amz-missing-meta", "x-amz-mp-parts-count", "x-amz-object-attributes",
    "x-amz-object-ownership", "x-amz-part-number-marker", "x-amz-region-set", "x-amz-replication-status",
    "x-amz-request-charged", "x-amz-request-id", "x-amz-request-payer", "x-amz-restore",
    "x-amz-sdk-checksum-algorithm", "x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-bucket-key-enabled", "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-sha256-tree-hash", "x-amz-source-expected-bucket-owner", "x-amz-storage-class", "x-amz-tagging",
    "x-amz-tagging-count", "x-amz-target", "x-amz-trailer", "x-amz-transition-default-minimum-object-size",
    "x-amz-user-agent", "x-amz-version-id", "x-amz-website-redirect-location", "x-amzn-errortype",
    "x-amzn-query-mode", "x-amzn-remapped-content-length", "x-amzn-remapped-date", "x-amzn-requestid",
    "x-amzn-sagemaker-custom-attributes", "x-amzn-sagemaker-target-model", "x-amzn-sagemaker-target-variant",
    "x-amzn-trace-id", "x-cache", "x-content-type-options", "x-frame-options", "x-request-id",
];

/// … and those that begin so.
const CLEAR_PREFIXES: &[&str] = &[
    "x-amz-checksum-",
    "x-amz-copy-source-if-",
    "x-amz-grant-",
    "x-amz-meta-",
    "x-amz-object-lock-",
    "x-amzn-bedrock-",
];

/// Parameters of a query that begin with `X-Amz-`, and are recorded: those of presigned URLs.
const CLEAR_PARAMETERS: &[&str] = &[
    "x-amz-algorithm",
    "x-amz-content-sha256",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-signedheaders",
];

/// What a parameter of any other name has in it that isn't recorded.
const SECRET_WORDS: &[&str] = &[
    "apikey",
    "assertion",
    "auth",
    "bearer",
    "credential",
    "jwt",
    "passphrase",
    "passw",
    "privatekey",
    "secret",
    "session",
    "signature",
    "token",
];

fn is_clear_field(name: &str) -> bool {
    /// Every field of every head is looked up.
    static CLEAR: LazyLock<HashSet<&str>> = LazyLock::new(|| CLEAR_FIELDS.iter().copied().collect());
    CLEAR.contains(name) || CLEAR_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn is_clear_parameter(name: &str) -> bool {
    let name = decoded(name).to_ascii_lowercase();
    if name.starts_with("x-amz") {
        return CLEAR_PARAMETERS.contains(&name.as_str());
    }
    let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    !SECRET_WORDS.iter().any(|word| letters.contains(word)) && letters != "sig" && letters != "code"
}

/// The name without percent-encoding, by which another reader knows it.
fn decoded(name: &str) -> Cow<'_, str> {
    if !name.contains(['%', '+']) {
        return name.into();
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, after @ ..] = rest {
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        rest = after;
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high << 4 | low).unwrap_or_default());
                rest = &after[2..];
            }
            (b'+', ..) => bytes.push(b' '),
            (byte, ..) => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

/// The head, as it is recorded.
pub(crate) fn head(version: Version, headers: &HeaderMap) -> Head {
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let clear = is_clear_field(name.as_str());
        let value = if clear { String::from_utf8_lossy(value.as_bytes()).into_owned() } else { REDACTED.to_owned() };
        // Where an answer leads may be a presigned URL.
        let value = match value.split_once('?') {
            Some((path, query)) if [http::header::LOCATION, COPY_SOURCE].contains(name) => redacted(path, query),
            _ => value,
        };
        (name.as_str().to_owned(), value)
    };
    Head { version: format!("{version:?}"), headers: headers.iter().map(field).collect() }
}

/// Path and query, as they are recorded.
pub(crate) fn target(uri: &Uri) -> String {
    match uri.query() {
        Some(query) => redacted(uri.path(), query),
        None => uri.path().to_owned(),
    }
}

fn redacted(path: &str, query: &str) -> String {
    let mut text = format!("{path}?");
    for (index, pair) in query.split('&').enumerate() {
        if index > 0 {
            text.push('&');
        }
        match pair.split_once('=') {
            Some((name, _)) if !is_clear_parameter(name) => {
                text.push_str(name);
                text.push('=');
                text.push_str(REDACTED);
            }
            _ => text.push_str(pair),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_to_be_harmless_is_not_recorded() {
        assert!(CLEAR_FIELDS.is_sorted());
        let mut headers = HeaderMap::new();
        let secret = [
            "authorization",
            "cookie",
            "x-amz-sso_bearer_token",
            "x-amz-security-token",
            "x-amz-mfa",
            "x-goog-api-key",
            "x-amz-server-side-encryption-customer-key",
            "x-api-key",
            "x-some-new-thing",
            "x-amz-date-token",
            "sec-websocket-key",
            "x-amz-server-side-encryption-context",
        ];
        for name in secret {
            headers.insert(name, "s3cr3t".parse().unwrap());
        }
        let clear = ["user-agent", "x-amz-target", "x-amz-meta-owner", "x-amz-checksum-crc32", "x-amzn-requestid"];
        for name in clear {
            headers.insert(name, "known".parse().unwrap());
        }
        let recorded = head(Version::HTTP_11, &headers);
        assert_eq!(recorded.headers.len(), secret.len() + clear.len(), "every field by its name");
        for (name, value) in &recorded.headers {
            assert_eq!(value, if clear.contains(&name.as_str()) { "known" } else { REDACTED }, "{name}");
        }
        for (query, wanted) in [
            ("x-amz-sso_bearer_token=t", "x-amz-sso_bearer_token=<redacted>"),
            ("x-amz-sso%5Fbearer%5Ftoken=t", "x-amz-sso%5Fbearer%5Ftoken=<redacted>"),
            ("X%2DAmz-Security-Token=t&a=b", "X%2DAmz-Security-Token=<redacted>&a=b"),
            ("X-Amz-New=t", "X-Amz-New=<redacted>"),
            ("Action=A&Master+User%50assword=p", "Action=A&Master+User%50assword=<redacted>"),
            ("AWSAccessKeyId=AKIA&Signature=s&Expires=1", "AWSAccessKeyId=AKIA&Signature=<redacted>&Expires=1"),
            ("access_token=t&client_secret=s&sig=x", "access_token=<redacted>&client_secret=<redacted>&sig=<redacted>"),
            ("list-type=2&prefix=a%20b&delimiter=/", "list-type=2&prefix=a%20b&delimiter=/"),
        ] {
            let uri: Uri = format!("/k?{query}").parse().unwrap();
            assert_eq!(target(&uri), format!("/k?{wanted}"));
        }
    }

    #[test]
    fn authority_is_not_recorded() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "AWS4-HMAC-SHA256 Credential=…".parse().unwrap());
        headers.insert("x-amz-date", "20260101T000000Z".parse().unwrap());
        headers.insert("x-vault-token", "s.abc".parse().unwrap());
        let recorded = head(Version::HTTP_11, &headers);
        assert_eq!(recorded.version, "HTTP/1.1");
        headers.insert("location", "https://b.s3.amazonaws.com/k?X-Amz-Signature=abc&x=1".parse().unwrap());
        let recorded_too = head(Version::HTTP_11, &headers);
        let location = recorded_too.headers.iter().find(|it| it.0 == "location").unwrap();
        assert_eq!(location.1, "https://b.s3.amazonaws.com/k?X-Amz-Signature=<redacted>&x=1");
        let of = |name: &str| recorded.headers.iter().find(|it| it.0 == name).unwrap().1.as_str();
        assert_eq!((of("authorization"), of("x-vault-token")), (REDACTED, REDACTED));
        assert_eq!(of("x-amz-date"), "20260101T000000Z");
        let uri: Uri = "/k?X-Amz-Signature=abc&x=1&X-Amz-Security-Token=t&y".parse().unwrap();
        assert_eq!(target(&uri), "/k?X-Amz-Signature=<redacted>&x=1&X-Amz-Security-Token=<redacted>&y");
    }
}
