//! Presigned URLs: their signatures checked, and the request made a header-signed one, so that everything after this
//! meets one shape. What AWS would take from the query as if it were a header field becomes one, so that what is decoded
//! and decided is what AWS reads.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html> and, for version 2,
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/RESTAuthentication.html#RESTAuthenticationQueryStringAuth>

mod v2;

use http::{
    HeaderName, HeaderValue, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE},
    request::Parts,
};
use percent_encoding::percent_decode_str;
use time::{Duration, OffsetDateTime};

use crate::{
    HostKind, HostMatch, PathRules, Placeholder, RequestAuth, S3At, Signer, TokenField, VerifyError,
    request_auth::{HeaderAuthority, X_AMZ_CONTENT_SHA256, single},
    sign::{Hashed, MAX_CLOCK_SKEW, check_hash, format_date, hex_is, parse_date},
};

/// AWS takes no more than a week.
const MAX_EXPIRES: i64 = 7 * 24 * 60 * 60;
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
/// A query with more is none that a client made.
const MAX_PAIRS: usize = 200;

/// A presigned request, taken apart; not believed before [`verify`](Self::verify).
pub struct Presigned {
    /// The request as it was signed.
    signed: Parts,
    how: How,
}

#[derive(Debug)]
enum How {
    V2(v2::Signed),
    V4(V4),
}

/// What a query of version 4 says.
struct V4 {
    /// Key id, day, region and service.
    scope: [String; 4],
    signed_headers: String,
    signature: [u8; 32],
    stamp: String,
    expires: i64,
    token: Option<String>,
    /// Which of the two tokens it is.
    token_field: TokenField,
    /// `x-amz-content-sha256`, where it is said: a hash, or that there is none.
    payload: Option<String>,
}

impl std::fmt::Debug for V4 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("V4").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Presigned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Presigned").field(&self.how).finish()
    }
}

impl Presigned {
    /// Takes a presigned request apart and makes it a header-signed one, whose `Authorization` field stands in for ours:
    /// it is not one that AWS would take. Fails when it can't be read in one way only.
    ///
    /// `region` is for version 2, which has none in its signature, where the host's name has none either.
    pub fn take(parts: &mut Parts, host: &HostMatch, region: &str, now: OffsetDateTime) -> Result<Self, VerifyError> {
        match RequestAuth::of(parts) {
            RequestAuth::Presigned { .. } => Self::v4(parts),
            RequestAuth::PresignedV2 { .. } | RequestAuth::HeaderV2 { .. } => Self::v2(parts, host, region, now),
            other => Err(VerifyError::NotSupported(other.describe())),
        }
    }

    /// The same, good for so long after it was signed, whatever it says itself.
    pub(crate) fn lasting(mut self, time: Duration) -> Self {
        if let How::V4(v4) = &mut self.how {
            v4.expires = time.whole_seconds();
        }
        self
    }

    /// Checks signature, session token and expiry. `body_sha256` is needed where the payload is signed.
    pub fn verify(
        &self,
        signer: &Signer,
        body_sha256: Option<&[u8; 32]>,
        placeholder: &Placeholder,
        now: OffsetDateTime,
    ) -> Result<(), VerifyError> {
        match &self.how {
            How::V2(signed) => signed.verify(placeholder, now),
            How::V4(V4 {
                scope: [id, date, region, service],
                signed_headers,
                signature,
                stamp,
                expires,
                token,
                token_field,
                payload,
            }) => {
                if id != placeholder.access_key_id() {
                    return Err(VerifyError::ForeignKey { access_key_id: id.chars().take(128).collect() });
                }
                if token.as_deref() != Some(placeholder.session_token()) || *token_field != placeholder.token_field() {
                    return Err(VerifyError::Token);
                }
                let at = parse_date(stamp, date)?;
                if at - now > MAX_CLOCK_SKEW {
                    return Err(VerifyError::Date("it is of the future"));
                }
                if now - at > Duration::seconds(*expires) {
                    return Err(VerifyError::Date("it has expired"));
                }
                let header =
                    HeaderAuthority { access_key_id: id, date, region, service, signed_headers, signature: *signature };
                let payload = match payload.as_deref() {
                    Some(text) if text.starts_with("STREAMING-") => {
                        return Err(VerifyError::NotSupported("a presigned query with an aws-chunked body"));
                    }
                    Some(text) if text != UNSIGNED && body_sha256.is_some_and(|body| !hex_is(text, body)) => {
                        return Err(VerifyError::BodyMismatch);
                    }
                    Some(text) => {
                        if text != UNSIGNED {
                            check_hash(text)?;
                        }
                        Hashed::Text(text)
                    }
                    None => Hashed::Body(body_sha256.ok_or(VerifyError::BodyNeeded)?),
                };
                signer.verify_head(&self.signed, &header, stamp, payload, placeholder).map(drop)
            }
        }
    }

    fn v4(parts: &mut Parts) -> Result<Self, VerifyError> {
        const UNREADABLE: VerifyError = VerifyError::Presigned("it can't be read");
        let mut query = Query::of(parts)?;
        let mut take = |name: &'static str| query.take(name);
        if take("x-amz-algorithm")?.as_deref() != Some("AWS4-HMAC-SHA256") {
            return Err(VerifyError::NotSupported("a presigned query of another algorithm than AWS4-HMAC-SHA256"));
        }
        let credential = take("x-amz-credential")?.ok_or(UNREADABLE)?;
        let stamp = take("x-amz-date")?.ok_or(VerifyError::Date("no X-Amz-Date"))?;
        let expires = take("x-amz-expires")?.ok_or(VerifyError::Date("no X-Amz-Expires"))?;
        let signed_headers = take("x-amz-signedheaders")?.ok_or(UNREADABLE)?;
        let signature = take("x-amz-signature")?.ok_or(UNREADABLE)?;
        let (token, token_field) = match (take("x-amz-security-token")?, take("x-amz-s3session-token")?) {
            (Some(_), Some(_)) => return Err(VerifyError::Token),
            (None, Some(token)) => (Some(token), TokenField::S3Session),
            (token, None) => (token, TokenField::Security),
        };
        let expires: i64 = Some(expires)
            .filter(|text| !text.is_empty() && text.len() <= 6 && text.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .filter(|expires| (1..=MAX_EXPIRES).contains(expires))
            .ok_or(VerifyError::Date("X-Amz-Expires is not 1 to 604800"))?;

        let stub =
            format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={signed_headers}, Signature={signature}");
        let stub = HeaderValue::from_str(&stub).map_err(|_| UNREADABLE)?;
        let mut signed = parts.clone();
        signed.uri = without_signature(&parts.uri)?;
        query.lift(parts)?;
        parts.headers.insert(AUTHORIZATION, stub);
        let mut v4 = match RequestAuth::of(parts) {
            RequestAuth::Header(HeaderAuthority { access_key_id, date, region, service, signature, .. }) => {
                let scope = [access_key_id, date, region, service].map(str::to_owned);
                V4 { scope, signed_headers, signature, stamp, expires, token, token_field, payload: None }
            }
            RequestAuth::Malformed(problem) => return Err(VerifyError::Presigned(problem)),
            _ => return Err(UNREADABLE),
        };
        if PathRules::of(&v4.scope[3]) == PathRules::S3 && !parts.headers.contains_key(X_AMZ_CONTENT_SHA256) {
            parts.headers.insert(X_AMZ_CONTENT_SHA256, HeaderValue::from_static(UNSIGNED));
        }
        let payload =
            parts.headers.contains_key(X_AMZ_CONTENT_SHA256).then(|| single(&parts.headers, X_AMZ_CONTENT_SHA256));
        v4.payload = payload.map(|text| text.map(str::to_owned).ok_or(UNREADABLE)).transpose()?;
        Ok(Self { signed, how: How::V4(v4) })
    }

    fn v2(parts: &mut Parts, host: &HostMatch, region: &str, now: OffsetDateTime) -> Result<Self, VerifyError> {
        let bucket = match &host.kind {
            HostKind::S3Path => None,
            HostKind::S3Bucket { bucket, at: S3At::Bucket } => Some(bucket.as_str()),
            _ => return Err(VerifyError::NotSupported("Signature Version 2 outside of S3")),
        };
        let mut query = Query::of(parts)?;
        let signed = parts.clone();
        let how = if parts.headers.contains_key(AUTHORIZATION) {
            v2::Signed::take_field(parts, &query, bucket)?
        } else {
            let how = v2::Signed::take(parts, &mut query, bucket)?;
            query.lift(parts)?;
            how
        };
        let today = format_date(now);
        let region = host.region.as_deref().unwrap_or(region);
        let content_type = if parts.headers.contains_key(CONTENT_TYPE) { "content-type;" } else { "" };
        let stub = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}/{region}/s3/aws4_request, SignedHeaders={content_type}host, Signature={}",
            how.access_key_id,
            &today[..8],
            "0".repeat(64)
        );
        let stub = HeaderValue::from_str(&stub).map_err(|_| VerifyError::Presigned("it can't be read"))?;
        parts.headers.insert(AUTHORIZATION, stub);
        if !parts.headers.contains_key(X_AMZ_CONTENT_SHA256) {
            parts.headers.insert(X_AMZ_CONTENT_SHA256, HeaderValue::from_static(UNSIGNED));
        }
        Ok(Self { signed, how: How::V2(how) })
    }
}

/// The members of a query. What authorises is taken out of it; the rest goes on.
pub(crate) struct Query {
    /// Name as it is matched: decoded, in lower case where it is one of AWS's; the value, decoded; and both as they came.
    pub pairs: Vec<(String, Vec<u8>, String)>,
}

impl Query {
    pub fn of(parts: &Parts) -> Result<Self, VerifyError> {
        let query = parts.uri.query().unwrap_or_default();
        let mut pairs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            if pairs.len() == MAX_PAIRS {
                return Err(VerifyError::Presigned("its query has more than 200 members"));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = percent_decode_str(name).decode_utf8().map_err(|_| VerifyError::Presigned("it is not UTF-8"))?;
            let lower = name.to_ascii_lowercase();
            let name = if lower.starts_with("x-amz-") { lower } else { name.into_owned() };
            pairs.push((name, percent_decode_str(value).collect(), pair.to_owned()));
        }
        Ok(Self { pairs })
    }

    /// Takes a member out that may be there once.
    pub fn take(&mut self, name: &str) -> Result<Option<String>, VerifyError> {
        let Some(at) = self.pairs.iter().position(|(it, ..)| it == name) else { return Ok(None) };
        let (_, value, _) = self.pairs.remove(at);
        if self.pairs.iter().any(|(it, ..)| it == name) {
            return Err(VerifyError::Presigned("a member of its query comes twice"));
        }
        String::from_utf8(value).map(Some).map_err(|_| VerifyError::Presigned("it is not UTF-8"))
    }

    /// What is left becomes the request's query, and its `x-amz-*` members header fields, as which AWS reads them. Those
    /// that S3 doesn't read in a query go no further: as header fields they would mean something.
    fn lift(self, parts: &mut Parts) -> Result<(), VerifyError> {
        let mut rest = String::new();
        for (name, value, pair) in self.pairs {
            if is_unread(&name) {
                continue;
            }
            if !name.starts_with("x-amz-") {
                rest.push(if rest.is_empty() { '?' } else { '&' });
                rest.push_str(&pair);
                continue;
            }
            let field = HeaderName::from_bytes(name.as_bytes());
            let (Ok(field), Ok(value)) = (field, HeaderValue::from_bytes(&value)) else {
                return Err(VerifyError::Presigned("a member of its query fits no header field"));
            };
            if parts.headers.insert(field, value).is_some() {
                return Err(VerifyError::Presigned("a member of its query is a header field as well"));
            }
        }
        parts.uri = rebuilt(&parts.uri, &rest)?;
        Ok(())
    }
}

/// The members about checksums: S3 takes them from header fields alone. A presigned URL has them in its query because SDKs
/// move there whatever they would have sent, the AWS SDK for JavaScript even the checksum of the body that it didn't know.
///
/// <https://github.com/aws/aws-sdk-go-v2/issues/2610> and <https://github.com/localstack/localstack/pull/12164> saw S3
/// store objects that were others than such a member said.
fn is_unread(name: &str) -> bool {
    name.starts_with("x-amz-checksum-") || name == "x-amz-sdk-checksum-algorithm"
}

fn without_signature(uri: &Uri) -> Result<Uri, VerifyError> {
    let mut rest = String::new();
    for pair in uri.query().unwrap_or_default().split('&') {
        let name = percent_decode_str(pair.split('=').next().unwrap_or_default()).decode_utf8_lossy();
        if !name.eq_ignore_ascii_case("x-amz-signature") {
            rest.push(if rest.is_empty() { '?' } else { '&' });
            rest.push_str(pair);
        }
    }
    rebuilt(uri, &rest)
}

/// The same target with another query, `?` included.
pub(crate) fn rebuilt(uri: &Uri, query: &str) -> Result<Uri, VerifyError> {
    let mut parts = uri.clone().into_parts();
    let target = format!("{}{query}", uri.path()).parse();
    parts.path_and_query = Some(target.map_err(|_| VerifyError::Presigned("its target can't be read"))?);
    Uri::from_parts(parts).map_err(|_| VerifyError::Presigned("its target can't be read"))
}

#[cfg(test)]
mod tests {
    use http::Request;
    use serde::Deserialize;
    use time::macros::datetime;

    use super::*;
    use crate::{AwsCredentials, Catalog, Scope, wire_tests::placeholder};

    /// By boto3: `tests/data/presigned.py`.
    static URLS: &str = include_str!("../tests/data/presigned.json");
    /// By the AWS SDK for JavaScript: `tests/data/presigned.mjs`.
    static JS_URLS: &str = include_str!("../tests/data/presigned-js.json");
    const NOW: OffsetDateTime = datetime!(2025-06-01 12:00 UTC);

    #[derive(Clone, Deserialize)]
    struct Line {
        name: String,
        method: String,
        url: String,
        headers: std::collections::BTreeMap<String, String>,
    }

    fn lines() -> Vec<(String, Parts)> {
        let read = |text| -> Vec<Line> { serde_json::from_str(text).unwrap() };
        let lines = [read(URLS), read(JS_URLS)].concat();
        let request = |line: Line| {
            let uri: Uri = line.url.parse().unwrap();
            let target = uri.path_and_query().unwrap().as_str();
            let mut request = Request::builder().method(line.method.as_str()).uri(target);
            request = request.header("host", uri.authority().unwrap().as_str());
            for (name, value) in &line.headers {
                request = request.header(name, value);
            }
            (line.name, request.body(()).unwrap().into_parts().0)
        };
        lines.into_iter().map(request).collect()
    }

    fn line(name: &str) -> Parts {
        lines().into_iter().find(|it| it.0 == name).unwrap().1
    }

    fn host(parts: &Parts) -> HostMatch {
        Catalog::global().host(parts.headers["host"].to_str().unwrap()).unwrap()
    }

    const EMPTY: [u8; 32] = [
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae,
        0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
    ];

    fn verify(mut parts: Parts, now: OffsetDateTime) -> Result<(), VerifyError> {
        let host = host(&parts);
        let presigned = Presigned::take(&mut parts, &host, "eu-west-1", now)?;
        presigned.verify(&Signer::new(), Some(&EMPTY), &placeholder(), now)
    }

    fn with_target(name: &str, from: &str, to: &str) -> Parts {
        let mut parts = line(name);
        let target = parts.uri.to_string();
        assert!(target.contains(from), "{name}: {from}");
        parts.uri = target.replacen(from, to, 1).parse().unwrap();
        parts
    }

    #[test]
    fn what_sdks_presign_is_believed_while_it_lasts() {
        for (name, parts) in lines() {
            assert_eq!(verify(parts.clone(), NOW), Ok(()), "{name}");
            assert_eq!(verify(parts.clone(), NOW + Duration::minutes(59)), Ok(()), "{name}");
            let late = verify(parts.clone(), NOW + Duration::minutes(61));
            assert_eq!(late, Err(VerifyError::Date("it has expired")), "{name}");
            let mut other = parts.clone();
            other.method = http::Method::DELETE;
            assert_eq!(verify(other, NOW), Err(VerifyError::Mismatch), "{name}");
            let mut other = parts.clone();
            other.uri = parts.uri.to_string().replacen('?', "x?", 1).parse().unwrap();
            assert_eq!(verify(other, NOW), Err(VerifyError::Mismatch), "{name}");
            let wrong = Placeholder::fixed("ASIAQWERTYUIOPASDFGH", "guessed", "chaperone/placeholder-token");
            let mut taken = parts.clone();
            let presigned = Presigned::take(&mut taken, &host(&parts), "eu-west-1", NOW).unwrap();
            let error = presigned.verify(&Signer::new(), Some(&EMPTY), &wrong, NOW);
            assert_eq!(error, Err(VerifyError::Mismatch), "{name}");
            let stale = Placeholder::fixed("ASIAQWERTYUIOPASDFGH", placeholder().secret_access_key(), "another");
            assert_eq!(presigned.verify(&Signer::new(), Some(&EMPTY), &stale, NOW), Err(VerifyError::Token), "{name}");
            let foreign = Placeholder::mint(chaperone_model::SessionId::new());
            let error = presigned.verify(&Signer::new(), Some(&EMPTY), &foreign, NOW);
            assert!(matches!(error, Err(VerifyError::ForeignKey { .. })), "{name}");
        }
    }

    #[test]
    fn it_becomes_a_request_that_is_signed_in_its_head() {
        let real = aws_credential_types::Credentials::new("AKIAREAL", "secret", Some("real-token".into()), None, "t");
        for (name, mut parts) in lines() {
            let host = host(&parts);
            Presigned::take(&mut parts, &host, "eu-west-1", NOW).unwrap();
            let query = parts.uri.query().unwrap_or_default().to_ascii_lowercase();
            for member in ["x-amz-", "signature", "awsaccesskeyid", "expires=1", "content-type=text%2fx"] {
                assert!(!query.contains(member), "{name}: {query}");
            }
            let authority = RequestAuth::of(&parts);
            let RequestAuth::Header(header) = &authority else { panic!("{name}: {authority:?}") };
            let scope = Scope::of(header);
            let body = (!host.is_s3()).then_some(&b""[..]);
            let call = Catalog::global().decode(&host, &parts, body, &authority, None).unwrap();
            let expected = match name.split_once('-').unwrap().1 {
                "put" | "js-put" | "js-unhoisted" => "PutObject",
                "js-part" => "UploadPart",
                "copy" => "CopyObject",
                "sts" => "GetCallerIdentity",
                _ => "GetObject",
            };
            assert_eq!((&*call.operation, call.region.as_deref()), (expected, Some("eu-west-1")), "{name}");
            Signer::new().sign(&mut parts, Some(&EMPTY), &AwsCredentials::new(real.clone()), &scope, NOW).unwrap();
            let field = parts.headers["authorization"].to_str().unwrap();
            assert!(field.contains("Credential=AKIAREAL/20250601/eu-west-1/"), "{name}: {field}");
            for (field, value) in &parts.headers {
                let value = value.to_str().unwrap();
                assert!(!value.contains("placeholder") && !value.contains("ASIA"), "{name} {field}: {value}");
            }
            if name == "v4-put" || name == "v2-put" {
                assert_eq!(
                    (&parts.headers["x-amz-meta-a"], &parts.headers["content-type"]),
                    (&"1 2".parse().unwrap(), &"text/x".parse().unwrap())
                );
            }
        }
    }

    /// As tools sign that are older than version 4.
    #[test]
    fn a_field_of_version_2_is_believed_about_its_time_and_becomes_one_of_version_4() {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let own = placeholder();
        let request = |dated: &str, date: &str, path: &str, resource: &str| {
            let token = own.session_token();
            let amz = if dated == "x-amz-date" { format!("x-amz-date:{date}\n") } else { String::new() };
            let day = if dated == "date" { date } else { "" };
            let text = format!("PUT\n\ntext/x\n{day}\n{amz}x-amz-meta-a:1\nx-amz-security-token:{token}\n{resource}");
            let key = aws_lc_rs::hmac::Key::new(
                aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                own.secret_access_key().as_bytes(),
            );
            let signature = STANDARD.encode(aws_lc_rs::hmac::sign(&key, text.as_bytes()));
            let request = Request::put(path).header("host", "bucket.s3.amazonaws.com").header("content-type", "text/x");
            let request = request.header(dated, date).header("x-amz-meta-a", "1").header("x-amz-security-token", token);
            let field = format!("AWS {}:{signature}", own.access_key_id());
            request.header("authorization", field).body(()).unwrap().into_parts().0
        };
        let date = "Sun, 01 Jun 2025 12:00:00 +0000";
        for dated in ["date", "x-amz-date"] {
            let good = request(dated, date, "/k?acl", "/bucket/k?acl");
            assert_eq!(verify(good.clone(), NOW), Ok(()), "{dated}");
            let late = verify(good.clone(), NOW + Duration::minutes(16));
            assert!(matches!(late, Err(VerifyError::Skewed { .. })), "{late:?}");
            let mut other = good.clone();
            other.headers.insert("x-amz-meta-a", "2".parse().unwrap());
            assert_eq!(verify(other, NOW), Err(VerifyError::Mismatch));
            let mut taken = good.clone();
            Presigned::take(&mut taken, &host(&good), "eu-west-1", NOW).unwrap();
            assert!(matches!(RequestAuth::of(&taken), RequestAuth::Header(_)));
        }
        assert_eq!(verify(request("date", date, "/other", "/bucket/k"), NOW), Err(VerifyError::Mismatch));
        assert!(verify(request("date", "today", "/k", "/bucket/k"), NOW).is_err());
    }

    /// S3 holds it against the header field, whatever the query says.
    #[test]
    fn a_content_type_that_version_2_signed_must_be_there() {
        let mut parts = line("v2-put");
        assert_eq!(verify(parts.clone(), NOW), Ok(()));
        parts.headers.remove("content-type");
        assert_eq!(verify(parts, NOW), Err(VerifyError::Mismatch));
    }

    /// A field that hides in the query is one that decoding sees.
    #[test]
    fn what_aws_reads_as_header_fields_is_decoded_as_such() {
        let mut parts = with_target("v4-get", "?", "?x-amz-copy-source=other%2Fkey&");
        parts.method = http::Method::PUT;
        let host = host(&parts);
        Presigned::take(&mut parts, &host, "eu-west-1", NOW).unwrap();
        assert_eq!(parts.headers["x-amz-copy-source"], "other/key");
        let call = Catalog::global().decode(&host, &parts, None, &RequestAuth::of(&parts), None).unwrap();
        assert_eq!(call.operation, "CopyObject");
        let mut twice = with_target("v4-copy", "?", "?x-amz-copy-source=other%2Fkey&");
        let error = Presigned::take(&mut twice, &host, "eu-west-1", NOW).unwrap_err();
        assert!(matches!(error, VerifyError::Presigned(_)));
    }

    /// Nor does S3 read them there, so that the body needn't fit.
    #[test]
    fn checksums_in_the_query_do_not_become_header_fields() {
        for name in ["v4-js-put", "v4-js-part"] {
            let mut parts = line(name);
            assert!(parts.uri.query().unwrap().contains("x-amz-checksum-crc32="), "{name}");
            let host = host(&parts);
            Presigned::take(&mut parts, &host, "eu-west-1", NOW).unwrap();
            assert_eq!(parts.headers.keys().find(|field| field.as_str().contains("checksum")), None, "{name}");
        }
        // The field that a URL says is to be sent is S3's to check, whatever the query has besides.
        let mut parts = line("v4-js-unhoisted");
        let host = host(&parts);
        assert!(verify(parts.clone(), NOW).is_ok());
        Presigned::take(&mut parts, &host, "eu-west-1", NOW).unwrap();
        assert_eq!(parts.headers["x-amz-checksum-sha256"], "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=");
    }

    #[test]
    fn hostile_queries_are_refused() {
        let refused = |name: &str, from: &str, to: &str| verify(with_target(name, from, to), NOW).unwrap_err();
        for (from, to) in [
            ("X-Amz-Expires=3600", "X-Amz-Expires=604801"),
            ("X-Amz-Expires=3600", "X-Amz-Expires=0"),
            ("X-Amz-Expires=3600", "X-Amz-Expires=-1"),
            ("X-Amz-Expires=3600", "X-Amz-Expires=%2B36"),
            ("X-Amz-Expires=3600", "X-Amz-Expires=99999999999999999999"),
            ("X-Amz-Expires=3600&", ""),
            ("X-Amz-Date=20250601T120000Z", "X-Amz-Date=20250602T120000Z"),
            ("X-Amz-Date=20250601T120000Z", "X-Amz-Date=yesterday"),
        ] {
            assert!(matches!(refused("v4-get", from, to), VerifyError::Date(_)), "{to}");
        }
        for (from, to) in [
            ("X-Amz-Date=", "x-amz-date=20250601T120000Z&X-Amz-Date="),
            ("X-Amz-Signature=", "X-Amz-Signature=00&X-Amz-Signature="),
            ("X-Amz-Signature=", "X-Amz-Signature=zz"),
            ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=Host"),
            ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=host%0d%0ax%3ay"),
            ("ASIAQWERTYUIOPASDFGH%2F", "ASIAQWERTYUIOPASDFGH%2F%2F"),
            ("X-Amz-Security-Token=", "X-Amz-Security-Token=%ff"),
            ("?", "?%ff=1&"),
            ("?", "?x-amz-%0a=1&"),
            ("?", "?x-amz-meta-a=%0d%0ax:y&"),
        ] {
            assert!(matches!(refused("v4-get", from, to), VerifyError::Presigned(_)), "{to}");
        }
        let many = format!("?{}", "a&".repeat(300));
        assert!(matches!(refused("v4-get", "?", &many), VerifyError::Presigned(_)));
        assert!(matches!(
            refused("v4-get", "?", "?X-Amz-Content-Sha256=STREAMING-UNSIGNED-PAYLOAD-TRAILER&"),
            VerifyError::NotSupported(_)
        ));
        assert!(matches!(
            refused("v4-get", "=AWS4-HMAC-SHA256", "=AWS4-ECDSA-P256-SHA256"),
            VerifyError::NotSupported(_)
        ));
        assert_eq!(refused("v4-get", "?", "?versionId=1&"), VerifyError::Mismatch);
        let mut unsigned = line("v4-get");
        unsigned.headers.insert("x-amz-acl", HeaderValue::from_static("public-read"));
        assert_eq!(verify(unsigned, NOW), Err(VerifyError::Unsigned("x-amz-acl".into())));

        for (from, to) in [
            ("Expires=1748782800", "Expires=x"),
            ("&Expires=1748782800", ""),
            ("Expires=", "Expires=9999999999999999999"),
        ] {
            assert!(matches!(refused("v2-get", from, to), VerifyError::Date(_)), "{to}");
        }
        for (from, to) in [
            ("Signature=", "Signature=%21"),
            ("Signature=", "Signature=a&Signature="),
            ("&Expires=", "&Expires=1&Expires="),
        ] {
            assert!(matches!(refused("v2-get", from, to), VerifyError::Presigned(_)), "{to}");
        }
        assert_eq!(refused("v2-get", "Expires=1748782800", "Expires=1748782801"), VerifyError::Mismatch);
        assert_eq!(refused("v2-get", "?", "?versionId=2&"), VerifyError::Mismatch);
        assert_eq!(refused("v2-get", "?", "?x-amz-acl=public-read&"), VerifyError::Mismatch);
    }
}
