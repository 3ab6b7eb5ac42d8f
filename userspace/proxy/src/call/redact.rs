//! What of a head is recorded: everything but authority.

use chaperone_model::Head;
use http::{HeaderMap, Uri, Version};

const REDACTED: &str = "<redacted>";

/// Fields whose values let their bearer act.
const SECRET_FIELDS: [&str; 9] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
    "x-amz-copy-source-server-side-encryption-customer-key",
    "x-amz-security-token",
    "x-amz-server-side-encryption-customer-key",
    "x-amz-s3session-token",
    "x-api-key",
];

/// Query parameters that do the same (presigned URLs of versions 4 and 2).
const SECRET_PARAMETERS: [&str; 4] = ["x-amz-security-token", "x-amz-s3session-token", "x-amz-signature", "signature"];

/// The head, as it is recorded.
pub(crate) fn head(version: Version, headers: &HeaderMap) -> Head {
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let secret = SECRET_FIELDS.contains(&name.as_str()) || name.as_str().ends_with("-token");
        let value = if secret { REDACTED.to_owned() } else { String::from_utf8_lossy(value.as_bytes()).into_owned() };
        // Where an answer leads may be a presigned URL.
        let value = match value.split_once('?') {
            Some((path, query)) if *name == http::header::LOCATION => redacted(path, query),
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
            Some((name, _)) if SECRET_PARAMETERS.iter().any(|secret| name.eq_ignore_ascii_case(secret)) => {
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
