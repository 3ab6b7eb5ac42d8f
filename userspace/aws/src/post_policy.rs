//! S3's POST policies: a form whose fields authorise the upload of the file in it. The policy is checked by the
//! placeholder, written anew with our credentials in it, and signed again; its other conditions stay, and S3 checks them.
//!
//! The form is read strictly and written anew from what was read, so that nobody reads it in another way.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html>

mod multipart;

use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header, request::Parts};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{
    AwsCredentials, HostKind, HostMatch, Placeholder, RequestAuth, S3At, Scope, SignError, TokenField, VerifyError,
    canonical::write_encoded,
    request_auth::single,
    sign::{derive, format_date, parse_date},
};
use multipart::Form;

const NOT_READ: VerifyError = VerifyError::Form("its policy can't be read");
/// Fields that authorise, of both versions.
const AUTHORISING: [&str; 8] = [
    "awsaccesskeyid",
    "policy",
    "signature",
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-signature",
];

/// A form with a policy, read; not believed before [`verify`](Self::verify).
pub struct PostPolicy {
    form: Form,
    policy: Value,
    access_key_id: String,
    signed: Signed,
    /// Of the signature, or where it has none, of the host.
    region: String,
}

enum Signed {
    V2 { signature: Vec<u8> },
    V4 { day: String, stamp: String, signature: [u8; 32] },
}

impl std::fmt::Debug for PostPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostPolicy").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

impl PostPolicy {
    /// Whether a request is such a form, by its head.
    pub fn is(parts: &Parts, host: &HostMatch) -> bool {
        let kind = single(&parts.headers, "content-type").unwrap_or_default();
        host.is_s3()
            && parts.method == Method::POST
            && parts.uri.query().is_none()
            && RequestAuth::of(parts) == RequestAuth::None
            && kind.get(..19).is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/form-data"))
    }

    /// Reads it. `region` is for version 2, where the host's name has none.
    pub fn read(parts: &Parts, host: &HostMatch, region: &str, body: &Bytes) -> Result<Self, VerifyError> {
        let kind = single(&parts.headers, "content-type").unwrap_or_default();
        if parts.headers.contains_key(header::CONTENT_ENCODING) {
            return Err(VerifyError::Form("it is encoded"));
        }
        let form = Form::read(kind, body)?;
        let text = form.get("policy").ok_or(VerifyError::NotSupported("an S3 POST form without a policy"))?;
        let policy = BASE64_STANDARD.decode(text).map_err(|_| NOT_READ)?;
        let policy: Value = serde_json::from_slice(&policy).map_err(|_| NOT_READ)?;
        if !policy["conditions"].is_array() {
            return Err(NOT_READ);
        }
        let missing = |_: &str| VerifyError::Form("a field that authorises is missing or contradicts another");
        let field = |name: &str| form.get(name).ok_or_else(|| missing(name));
        let (access_key_id, signed, region) = if form.get("x-amz-signature").is_some() {
            let credential: Vec<&str> = field("x-amz-credential")?.split('/').collect();
            let [id, day, region, "s3", "aws4_request"] = credential[..] else { return Err(missing("")) };
            let stamp = field("x-amz-date")?;
            parse_date(stamp, day)?;
            let mut signature = [0; 32];
            hex::decode_to_slice(field("x-amz-signature")?, &mut signature).map_err(|_| missing(""))?;
            if field("x-amz-algorithm")? != "AWS4-HMAC-SHA256" || form.get("signature").is_some() {
                return Err(missing(""));
            }
            let word = |text: &str| text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            if !word(region) || host.region.as_deref().is_some_and(|of_host| of_host != region) {
                return Err(missing(""));
            }
            (id, Signed::V4 { day: day.to_owned(), stamp: stamp.to_owned(), signature }, region)
        } else {
            let signature = BASE64_STANDARD.decode(field("signature")?).map_err(|_| missing(""))?;
            (field("awsaccesskeyid")?, Signed::V2 { signature }, host.region.as_deref().unwrap_or(region))
        };
        let (access_key_id, region) = (access_key_id.to_owned(), region.to_owned());
        Ok(Self { form, policy, access_key_id, signed, region })
    }

    /// Whose key it names.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// Checks key, token and signature. That the policy has not expired and fits the form, S3 checks.
    pub fn verify(&self, placeholder: &Placeholder) -> Result<(), VerifyError> {
        if self.access_key_id != placeholder.access_key_id() {
            return Err(VerifyError::ForeignKey { access_key_id: self.access_key_id.chars().take(128).collect() });
        }
        let token = self.form.get("x-amz-security-token");
        if token != Some(placeholder.session_token()) || placeholder.token_field() != TokenField::Security {
            return Err(VerifyError::Token);
        }
        let policy = self.form.get("policy").unwrap_or_default().as_bytes();
        let secret = placeholder.secret_access_key();
        let right = match &self.signed {
            Signed::V4 { day, signature, .. } => {
                hmac::verify(&derive(secret, day, &self.region, "s3"), policy, signature)
            }
            Signed::V2 { signature } => {
                let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
                hmac::verify(&key, policy, signature)
            }
        };
        right.map_err(|_| VerifyError::Mismatch)
    }

    /// The head of the PUT that would do the same, to be decoded and decided by; it goes nowhere.
    pub fn as_put(&self, parts: &Parts, host: &HostMatch) -> Result<Parts, VerifyError> {
        let key = self.form.get("key").filter(|key| !key.is_empty()).ok_or(VerifyError::Form("it has no key"))?;
        if key.contains("${filename}") {
            return Err(VerifyError::NotSupported("an S3 POST form whose key is the file's name"));
        }
        let bucket = parts.uri.path().trim_end_matches('/');
        let in_host = matches!(host.kind, HostKind::S3Bucket { at: S3At::Bucket, .. });
        if in_host != bucket.is_empty() || (!in_host && bucket.matches('/').count() != 1) {
            return Err(VerifyError::Form("its path is not a bucket's"));
        }
        let mut target = bucket.to_owned();
        for segment in key.split('/') {
            target.push('/');
            write_encoded(&mut target, segment.as_bytes());
        }
        let mut put = parts.clone();
        put.method = Method::PUT;
        put.uri = target.parse().map_err(|_| VerifyError::Form("its key fits no path"))?;
        for (name, value) in self.form.fields() {
            let name = match name.to_ascii_lowercase().as_str() {
                "acl" => "x-amz-acl".to_owned(),
                // A document here, and a query there: what matters is that there is one.
                "tagging" => "x-amz-tagging".to_owned(),
                name if AUTHORISING.contains(&name) => continue,
                name if name.starts_with("x-amz-") => name.to_owned(),
                _ => continue,
            };
            let value = if name == "x-amz-tagging" { "form" } else { value };
            let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) else {
                return Err(VerifyError::Form("a field fits no header field"));
            };
            if put.headers.insert(name, value).is_some() {
                return Err(VerifyError::Form("a field is a header field as well"));
            }
        }
        let day = format_date(OffsetDateTime::now_utc());
        let stub = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}/{}/s3/aws4_request, SignedHeaders=host, Signature={}",
            self.access_key_id,
            &day[..8],
            self.region,
            "0".repeat(64)
        );
        let stub = HeaderValue::from_str(&stub).map_err(|_| VerifyError::Form("its key is no key's id"))?;
        put.headers.insert(header::AUTHORIZATION, stub);
        put.headers.insert("x-amz-content-sha256", HeaderValue::from_static("UNSIGNED-PAYLOAD"));
        Ok(put)
    }

    /// What it is signed for.
    pub fn scope(&self) -> Scope {
        Scope { region: self.region.clone(), service: "s3".into() }
    }

    /// The form with our authority in the agent's place. Its boundary stays, its length changes.
    pub fn signed(&self, credentials: &AwsCredentials, now: OffsetDateTime) -> Result<Bytes, SignError> {
        let now = format_date(now);
        let (day, stamp) = match &self.signed {
            Signed::V4 { day, stamp, .. } => (day.as_str(), stamp.as_str()),
            Signed::V2 { .. } => (&now[..8], now.as_str()),
        };
        let mut ours = vec![
            ("x-amz-algorithm", "AWS4-HMAC-SHA256".to_owned()),
            ("x-amz-credential", format!("{}/{day}/{}/s3/aws4_request", credentials.access_key_id(), self.region)),
            ("x-amz-date", stamp.to_owned()),
        ];
        if let Some(token) = credentials.session_token() {
            ours.push(("x-amz-security-token", token.to_owned()));
        }
        let mut policy = self.policy.clone();
        let conditions = policy["conditions"].as_array_mut().ok_or(SignError::Header)?;
        conditions.retain_mut(stays);
        conditions.extend(ours.iter().map(|(name, value)| json!({ (*name): value })));
        let policy = BASE64_STANDARD.encode(policy.to_string());
        let key = derive(credentials.secret_access_key(), day, &self.region, "s3");
        let signature = hex::encode(hmac::sign(&key, policy.as_bytes()));
        ours.push(("policy", policy));
        ours.push(("x-amz-signature", signature));
        Ok(self.form.write(&AUTHORISING, &ours))
    }
}

/// Whether a condition is about something else than authority. Members of an object that are, are taken out of it.
fn stays(condition: &mut Value) -> bool {
    let authorises = |name: &str| AUTHORISING.contains(&name.to_ascii_lowercase().as_str());
    match condition {
        Value::Object(members) => {
            members.retain(|name, _| !authorises(name));
            !members.is_empty()
        }
        Value::Array(parts) => {
            !parts.get(1).and_then(Value::as_str).is_some_and(|name| authorises(name.trim_start_matches('$')))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use aws_credential_types::Credentials;
    use http::Request;
    use time::macros::datetime;

    use super::*;
    use crate::Catalog;

    const SECRET: &str = "the placeholder's secret";
    const ID: &str = "ASIAQWERTYUIOPASDFGH";
    const POLICY: &str = r#"{"expiration":"2030-01-01T00:00:00Z","conditions":[{"bucket":"b"},["starts-with","$key","up/"],
        ["content-length-range",0,100],{"acl":"private"},{"x-amz-algorithm":"AWS4-HMAC-SHA256"},
        {"x-amz-credential":"ASIAQWERTYUIOPASDFGH/20250601/eu-west-1/s3/aws4_request"},
        ["eq","$X-Amz-Date","20250601T120000Z"],{"x-amz-security-token":"token"}]}"#;

    fn fields(policy: &str) -> Vec<(String, String)> {
        let policy = BASE64_STANDARD.encode(policy);
        let signature = hex::encode(hmac::sign(&derive(SECRET, "20250601", "eu-west-1", "s3"), policy.as_bytes()));
        [
            ("key", "up/a b+c"),
            ("acl", "private"),
            ("x-amz-algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", "ASIAQWERTYUIOPASDFGH/20250601/eu-west-1/s3/aws4_request"),
            ("x-amz-date", "20250601T120000Z"),
            ("x-amz-security-token", "token"),
            ("policy", &policy),
            ("x-amz-signature", &signature),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    fn body(fields: &[(String, String)]) -> String {
        let head = |name: &str| format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"");
        let mut body = String::new();
        for (name, value) in fields {
            body.extend([&head(name), "\r\n\r\n", value, "\r\n"]);
        }
        body + "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f.txt\"\r\nContent-Type: text/plain\r\n\r\nthe file\r\n--XX--\r\n"
    }

    fn head(host: &str, path: &str) -> (Parts, HostMatch) {
        let request = Request::builder().method("POST").uri(path).header("host", host);
        let request = request.header("content-type", "multipart/form-data; boundary=XX");
        (request.body(()).unwrap().into_parts().0, Catalog::global().host(host).unwrap())
    }

    const HOST: &str = "b.s3.eu-west-1.amazonaws.com";

    fn read(body: String) -> Result<PostPolicy, VerifyError> {
        let (parts, host) = head(HOST, "/");
        assert!(PostPolicy::is(&parts, &host));
        PostPolicy::read(&parts, &host, "us-east-1", &body.into())
    }

    fn placeholder() -> Placeholder {
        Placeholder::fixed(ID, SECRET, "token")
    }

    #[test]
    fn a_form_is_checked_and_signed_again() {
        let form = read(body(&fields(POLICY))).unwrap();
        assert_eq!(form.verify(&placeholder()), Ok(()));
        let real = Credentials::new("AKIAREAL", "real secret", Some("real-token".into()), None, "test");
        let sent = form.signed(&AwsCredentials::new(real), datetime!(2025-06-01 12:05 UTC)).unwrap();
        let text = String::from_utf8(sent.to_vec()).unwrap();
        assert!(!text.contains(ID) && !text.contains("\r\ntoken\r\n") && text.contains("\r\nreal-token\r\n"), "{text}");
        assert!(
            text.contains("\r\n\r\nthe file\r\n--XX--\r\n")
                && text.contains("filename=\"f.txt\"\r\nContent-Type: text/plain")
        );
        // What came out is right by our key: taken for an agent's, it passes once more.
        let again = read(text).unwrap();
        assert_eq!(again.verify(&Placeholder::fixed("AKIAREAL", "real secret", "real-token")), Ok(()));
        let conditions = again.policy["conditions"].as_array().unwrap();
        assert_eq!(again.policy["expiration"], "2030-01-01T00:00:00Z");
        assert!(
            conditions.contains(&json!(["starts-with", "$key", "up/"]))
                && conditions.contains(&json!({"acl": "private"}))
        );
        assert!(conditions.contains(&json!({"x-amz-security-token": "real-token"})), "{conditions:?}");
        assert_eq!(conditions.len(), 8);
    }

    #[test]
    fn it_is_decided_as_the_put_that_it_is() {
        let (parts, host) = head(HOST, "/");
        let put = read(body(&fields(POLICY))).unwrap().as_put(&parts, &host).unwrap();
        let call = Catalog::global().decode(&host, &put, None, &RequestAuth::of(&put), None).unwrap();
        assert_eq!(call.resources, ["arn:aws:s3:::b/up/a b+c"]);
        let actions: Vec<&str> = call.actions.iter().map(|it| &*it.name).collect();
        assert!(actions.contains(&"s3:PutObject") && actions.contains(&"s3:PutObjectAcl"), "{actions:?}");
        let (parts, host) = head("s3.eu-west-1.amazonaws.com", "/b");
        let put = read(body(&fields(POLICY))).unwrap().as_put(&parts, &host).unwrap();
        let call = Catalog::global().decode(&host, &put, None, &RequestAuth::of(&put), None).unwrap();
        assert_eq!(call.resources, ["arn:aws:s3:::b/up/a b+c"]);
        let (elsewhere, host) = head(HOST, "/x");
        assert!(read(body(&fields(POLICY))).unwrap().as_put(&elsewhere, &host).is_err());
        let mut named = fields(POLICY);
        named[0].1 = "up/${filename}".into();
        assert!(matches!(read(body(&named)).unwrap().as_put(&parts, &host), Err(VerifyError::NotSupported(_))));
    }

    #[test]
    fn what_is_not_the_sessions_own_is_not_believed() {
        let form = read(body(&fields(POLICY))).unwrap();
        let verify = |id: &str, secret: &str, token: &str| form.verify(&Placeholder::fixed(id, secret, token));
        assert_eq!(verify(ID, "guessed", "token"), Err(VerifyError::Mismatch));
        assert_eq!(verify(ID, SECRET, "other"), Err(VerifyError::Token));
        assert!(matches!(verify("ASIAOTHER", SECRET, "token"), Err(VerifyError::ForeignKey { .. })));
        let changed = |name: &str, value: &str| {
            let mut fields = fields(POLICY);
            fields.iter_mut().find(|it| it.0.eq_ignore_ascii_case(name)).unwrap().1 = value.into();
            read(body(&fields)).and_then(|form| form.verify(&placeholder()))
        };
        let wider = BASE64_STANDARD.encode(POLICY.replace("up/", ""));
        assert_eq!(changed("policy", &wider), Err(VerifyError::Mismatch));
        for (name, value) in [
            ("policy", "!"),
            ("policy", "e30="),
            ("x-amz-algorithm", "AWS4-ECDSA-P256-SHA256"),
            ("x-amz-credential", "ASIAQWERTYUIOPASDFGH/20250601/eu-west-1/sqs/aws4_request"),
            ("x-amz-credential", "ASIAQWERTYUIOPASDFGH/20250601/us-east-1/s3/aws4_request"),
            ("x-amz-date", "20250602T120000Z"),
            ("x-amz-signature", "zz"),
        ] {
            assert!(changed(name, value).is_err(), "{name}={value}");
        }
        let mut twice = fields(POLICY);
        twice.push(("KEY".into(), "elsewhere".into()));
        assert!(read(body(&twice)).is_err());
        let none = vec![("key".to_owned(), "k".to_owned())];
        assert!(matches!(read(body(&none)), Err(VerifyError::NotSupported(_))));
    }

    #[test]
    fn version_two_becomes_version_four() {
        let policy = BASE64_STANDARD.encode(
            r#"{"expiration":"2030-01-01T00:00:00Z","conditions":[{"bucket":"b"},{"x-amz-security-token":"token"}]}"#,
        );
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, SECRET.as_bytes());
        let signature = BASE64_STANDARD.encode(hmac::sign(&key, policy.as_bytes()));
        let fields = [
            ("key", "k"),
            ("AWSAccessKeyId", ID),
            ("policy", &policy),
            ("signature", &signature),
            ("x-amz-security-token", "token"),
        ];
        let form = read(body(&fields.map(|(name, value)| (name.to_owned(), value.to_owned())))).unwrap();
        assert_eq!(form.verify(&placeholder()), Ok(()));
        assert_eq!(form.verify(&Placeholder::fixed(ID, "guessed", "token")), Err(VerifyError::Mismatch));
        let real = AwsCredentials::new(Credentials::new("AKIAREAL", "real secret", None, None, "test"));
        let sent = form.signed(&real, datetime!(2025-06-01 12:05 UTC)).unwrap();
        let text = String::from_utf8(sent.to_vec()).unwrap();
        assert!(!text.to_lowercase().contains("awsaccesskeyid") && !text.contains("security-token"), "{text}");
        assert!(text.contains("AKIAREAL/20250601/eu-west-1/s3/aws4_request"), "{text}");
    }
}
