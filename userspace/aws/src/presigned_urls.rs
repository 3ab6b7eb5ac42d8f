//! Presigned URLs that AWS's own answers brought to a session: the layers of ECR's images, the code of Lambda's functions,
//! CodeArtifact's packages. Somebody else has signed them, so that they can't be signed again; what can be known is that AWS
//! gave exactly this one to this session, for reading, and until when. They live in memory, as long as their session does.

use std::{collections::HashMap, fmt};

use aws_lc_rs::digest;
use chaperone_model::Call;
use http::{
    HeaderMap, Method, Uri,
    header::{AUTHORIZATION, LOCATION},
    request::Parts,
};
use parking_lot::{Mutex, MutexGuard};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use crate::{Catalog, HostKind, HostMatch, endpoint::Endpoint, sign::parse_date};

/// So many URLs a session can have been given at once, some 200 bytes each. With one more, the one goes that ends first.
const MAX_HANDED: usize = 1024;
/// No URL is good for longer here, however long it says. ECR's last an hour, Lambda's ten minutes.
const MAX_LIFE: Duration = Duration::hours(1);
/// ECR's have some 2 KiB.
const MAX_URL: usize = 8 << 10;

/// A call whose answer may bring presigned URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresigningCall {
    /// By a redirection.
    Location,
    /// In a member of its JSON.
    Member(&'static [&'static str]),
}

impl PresigningCall {
    /// `None` for nearly every call. `host` is where it goes.
    pub fn of(call: &Call, host: &HostMatch) -> Option<Self> {
        match (&host.kind, &*call.service, &*call.operation) {
            (HostKind::Endpoint(Endpoint::Registry { .. }), _, "GetDownloadUrlForLayer")
            | (HostKind::Endpoint(Endpoint::Packages { .. }), _, "ReadFromRepository") => Some(Self::Location),
            (_, "ecr", "GetDownloadUrlForLayer") => Some(Self::Member(&["downloadUrl"])),
            (_, "lambda", "GetFunction") => Some(Self::Member(&["Code", "Location"])),
            (_, "lambda", "GetLayerVersion" | "GetLayerVersionByArn") => Some(Self::Member(&["Content", "Location"])),
            _ => None,
        }
    }

    /// The URL in an answer of this kind. `body` is not looked at where it redirects.
    pub fn url(self, headers: &HeaderMap, body: &[u8]) -> Option<String> {
        match self {
            Self::Location => headers.get(LOCATION)?.to_str().ok().map(str::to_owned),
            Self::Member(path) => {
                let answer: Value = serde_json::from_slice(body).ok()?;
                path.iter().try_fold(&answer, |value, name| value.get(name))?.as_str().map(str::to_owned)
            }
        }
    }
}

struct Handed {
    /// The call whose answer brought it.
    by: String,
    ends: OffsetDateTime,
}

/// All that one session was given, by the digests of host, path and query.
#[derive(Default)]
pub struct PresignedUrls(Mutex<HashMap<[u8; 32], Handed>>);

impl fmt::Debug for PresignedUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresignedUrls").field("count", &self.lock().len()).finish()
    }
}

impl PresignedUrls {
    /// Remembers a URL that AWS's answer to the call `by` brought, if it is a presigned one of S3's, for nothing but its host.
    pub fn note(&self, url: &str, by: &str, now: OffsetDateTime) -> bool {
        let Some((digest, ends)) = taken(url, now) else { return false };
        let mut urls = self.lock();
        if urls.len() >= MAX_HANDED && !urls.contains_key(&digest) {
            let first = urls.iter().min_by_key(|(_, handed)| handed.ends).map(|(digest, _)| *digest);
            first.map(|digest| urls.remove(&digest));
        }
        urls.insert(digest, Handed { by: by.to_owned(), ends });
        true
    }

    /// By which call's answer the session was given exactly what this request reads, while it lasts. `host` is the one name
    /// that the request is for.
    pub fn given(&self, parts: &Parts, host: &str, now: OffsetDateTime) -> Option<String> {
        if parts.method != Method::GET || parts.headers.contains_key(AUTHORIZATION) {
            return None;
        }
        let target = parts.uri.path_and_query()?.as_str();
        let urls = self.lock();
        urls.get(&digest_of(host, target)).filter(|handed| now < handed.ends).map(|handed| handed.by.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Handed>> {
        self.0.lock()
    }
}

/// What a URL is known by, and when it ends.
fn taken(url: &str, now: OffsetDateTime) -> Option<([u8; 32], OffsetDateTime)> {
    if url.len() > MAX_URL {
        return None;
    }
    let uri: Uri = url.parse().ok()?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("https"))?.as_str();
    let host = authority.strip_suffix(":443").unwrap_or(authority).to_ascii_lowercase();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if !host.bytes().all(plain) {
        return None;
    }
    Catalog::global().host(&host).filter(HostMatch::is_s3)?;
    let query = uri.query()?;
    let only = |wanted: &str| {
        let mut values = query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(name, _)| {
            percent_decode_str(name).decode_utf8().is_ok_and(|name| name.eq_ignore_ascii_case(wanted))
        });
        let value = values.next().filter(|_| values.next().is_none())?.1;
        Some(percent_decode_str(value).decode_utf8().ok()?.into_owned())
    };
    let stamp = only("x-amz-date")?;
    let signed = parse_date(&stamp, stamp.get(..8)?).ok()?;
    let expires = only("x-amz-expires")?.parse().ok().filter(|seconds| (1..=604_800).contains(seconds))?;
    // A field that has to be sent with it would be the agent's to choose.
    let plain = only("x-amz-signedheaders")? == "host" && only("x-amz-signature").is_some();
    let ends = (signed + Duration::seconds(expires)).min(now + MAX_LIFE);
    (plain && now < ends).then(|| (digest_of(&host, uri.path_and_query().map_or("/", |it| it.as_str())), ends))
}

fn digest_of(host: &str, target: &str) -> [u8; 32] {
    let mut digest = digest::Context::new(&digest::SHA256);
    digest.update(host.as_bytes());
    digest.update(b"\n");
    digest.update(target.as_bytes());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.finish().as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};
    use time::macros::datetime;

    use super::*;
    use crate::RequestAuth;

    const NOW: OffsetDateTime = datetime!(2025-06-01 12:00 UTC);
    const HOST: &str = "prod-eu-west-1-starport-layer-bucket.s3.eu-west-1.amazonaws.com";
    /// Shaped as what ECR redirects to.
    const TARGET: &str = "/a1b2-111122223333-0a1b/3c4d?X-Amz-Security-Token=IQoJ%2Fx&X-Amz-Algorithm=AWS4-HMAC-SHA256&\
        X-Amz-Date=20250601T115900Z&X-Amz-SignedHeaders=host&X-Amz-Expires=3600&\
        X-Amz-Credential=ASIAFOREIGN%2F20250601%2Feu-west-1%2Fs3%2Faws4_request&X-Amz-Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7";

    fn parts(method: &str, target: &str) -> Parts {
        Request::builder().method(method).uri(target).header("host", HOST).body(()).unwrap().into_parts().0
    }

    fn given(urls: &PresignedUrls, method: &str, target: &str, now: OffsetDateTime) -> Option<String> {
        urls.given(&parts(method, target), HOST, now)
    }

    #[test]
    fn exactly_what_was_given_may_be_read_while_it_lasts() {
        let urls = PresignedUrls::default();
        assert!(urls.note(&format!("https://{HOST}{TARGET}"), "call-1", NOW));
        assert_eq!(given(&urls, "GET", TARGET, NOW), Some("call-1".into()));
        assert_eq!(given(&urls, "GET", TARGET, NOW + Duration::minutes(58)), Some("call-1".into()));
        assert_eq!(given(&urls, "GET", TARGET, NOW + Duration::minutes(59)), None, "it has ended");
        for method in ["HEAD", "PUT", "POST", "DELETE"] {
            assert_eq!(given(&urls, method, TARGET, NOW), None, "{method}");
        }
        for (from, to) in [
            ("?", "?x=1&"),
            ("3c4d", "3c4e"),
            ("3c4d", "%33c4d"),
            ("&X-Amz-Expires=3600", ""),
            ("Expires=3600", "Expires=3601"),
            ("5d672d", "5d672e"),
        ] {
            assert_eq!(given(&urls, "GET", &TARGET.replacen(from, to, 1), NOW), None, "{to}");
        }
        let other = "other.s3.eu-west-1.amazonaws.com";
        assert_eq!(urls.given(&parts("GET", TARGET), other, NOW), None, "another host");
        assert_eq!(PresignedUrls::default().given(&parts("GET", TARGET), HOST, NOW), None, "another session");
        let mut signed = parts("GET", TARGET);
        signed.headers.insert(AUTHORIZATION, HeaderValue::from_static("AWS4-HMAC-SHA256 x"));
        assert_eq!(urls.given(&signed, HOST, NOW), None);
        assert!(!format!("{urls:?}").contains("Signature"));
    }

    #[test]
    fn other_urls_are_not_remembered() {
        let url = format!("https://{HOST}{TARGET}");
        let long = format!("{url}&x={}", "x".repeat(MAX_URL));
        for (from, to) in [
            ("https:", "http:"),
            (HOST, "example.com"),
            (HOST, "sts.eu-west-1.amazonaws.com"),
            (HOST, "prod.s3.eu-west-1.amazonaws.com:8443"),
            (HOST, "user@prod.s3.eu-west-1.amazonaws.com"),
            ("SignedHeaders=host", "SignedHeaders=host%3Bx-amz-acl"),
            ("&X-Amz-SignedHeaders=host", ""),
            ("X-Amz-Expires=3600", "X-Amz-Expires=0"),
            ("X-Amz-Expires=3600", "X-Amz-Expires=30"),
            ("X-Amz-Expires=3600", "X-Amz-Expires=3600&x-amz-expires=3600"),
            ("X-Amz-Date=20250601T115900Z", "X-Amz-Date=yesterday"),
            ("X-Amz-Signature=", "X-Amz-Signatur="),
            (TARGET, "/public"),
            (&url, &long),
            (&url, "not a url"),
        ] {
            let urls = PresignedUrls::default();
            assert!(!urls.note(&url.replacen(from, to, 1), "call-1", NOW), "{to}");
            assert!(urls.lock().is_empty());
        }
        // A week is no reason to remember it for so long.
        let urls = PresignedUrls::default();
        let target = TARGET.replace("Expires=3600", "Expires=604800");
        assert!(urls.note(&format!("https://{HOST}{target}"), "call-1", NOW));
        assert!(given(&urls, "GET", &target, NOW + Duration::minutes(59)).is_some());
        assert!(given(&urls, "GET", &target, NOW + Duration::minutes(61)).is_none());
    }

    #[test]
    fn a_session_is_given_so_many_and_the_first_to_end_go() {
        let urls = PresignedUrls::default();
        let target = |n: usize| TARGET.replace("3c4d", &format!("{n}")).replace("=3600", &format!("={}", 600 + n));
        for n in 0..MAX_HANDED * 2 {
            assert!(urls.note(&format!("https://{HOST}{}", target(n)), "call-1", NOW));
        }
        assert_eq!(urls.lock().len(), MAX_HANDED);
        assert!(given(&urls, "GET", &target(0), NOW).is_none());
        assert!(given(&urls, "GET", &target(MAX_HANDED * 2 - 1), NOW).is_some());
    }

    #[test]
    fn urls_are_where_these_calls_have_them() {
        let of = |method: &str, host: &str, target: &str, fields: &[(&str, &str)]| {
            let mut request = Request::builder().method(method).uri(target).header("host", host);
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            let parts = request.body(()).unwrap().into_parts().0;
            let host = Catalog::global().host(host).unwrap();
            let call = Catalog::global().decode(&host, &parts, Some(b"{}"), &RequestAuth::None, None).unwrap();
            PresigningCall::of(&call, &host)
        };
        let registry = "111122223333.dkr.ecr.eu-west-1.amazonaws.com";
        assert_eq!(of("GET", registry, "/v2/app/blobs/sha256:ab", &[]), Some(PresigningCall::Location));
        assert_eq!(of("GET", registry, "/v2/app/manifests/latest", &[]), None);
        let target = [
            ("x-amz-target", "AmazonEC2ContainerRegistry_V20150921.GetDownloadUrlForLayer"),
            ("content-type", "application/x-amz-json-1.1"),
        ];
        let layer = of("POST", "api.ecr.eu-west-1.amazonaws.com", "/", &target).unwrap();
        let none = HeaderMap::new();
        assert_eq!(layer.url(&none, br#"{"downloadUrl":"https://x","layerDigest":"y"}"#), Some("https://x".into()));
        let lambda = of("GET", "lambda.eu-west-1.amazonaws.com", "/2015-03-31/functions/f", &[]).unwrap();
        assert_eq!(lambda.url(&none, br#"{"Code":{"Location":"https://x"}}"#), Some("https://x".into()));
        for other in [&b"{"[..], b"{}", br#"{"Code":[]}"#, br#"{"Code":{"Location":1}}"#] {
            assert_eq!(lambda.url(&none, other), None);
        }
        let mut redirects = HeaderMap::new();
        redirects.insert(LOCATION, HeaderValue::from_static("https://x"));
        assert_eq!(PresigningCall::Location.url(&redirects, b""), Some("https://x".into()));
    }
}
