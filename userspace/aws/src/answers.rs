//! Answers that carry temporary credentials or tokens: each is replaced by a placeholder, so that role chaining and logging
//! in to registries work and the agent holds nothing real.
//!
//! The answer is read whole and written anew from what was read, so that nothing can be in it that was not looked at.
//! What can't be read, or carries a part of credentials and not all, is refused.

mod cbor;
mod json;
mod scan;
mod tokens;
mod xml;

pub use scan::{SecretFound, SecretScan};

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use chaperone_model::{Call, SessionId};
use http::{HeaderMap, header::CONTENT_ENCODING, header::CONTENT_TYPE};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{AwsCredentials, VendedCredentials, tokens::TokenKind};

/// The largest answer with credentials that is held to be rewritten, in bytes. STS's have 2 KiB.
pub const MAX_CREDENTIALS_ANSWER: usize = 256 * 1024;

/// Operations whose answers carry an access key id, a secret key and a session token: all of botocore 1.44.5's models
/// whose output has a structure with members so named. They are called alike everywhere but for their case, and Cognito's
/// `SecretKey`.
const ISSUING: [(&str, &[&str]); 15] = [
    ("account-access-runtime", &["GetRoleCredentials"]),
    ("cloudwatchomni", &["GetSpaceCredentialsForOrganization", "GetSpaceDataAccess"]),
    ("codepipeline", &["GetJobDetails", "GetThirdPartyJobDetails", "PollForJobs"]),
    ("cognito-identity", &["GetCredentialsForIdentity"]),
    ("datazone", &["GetConnection", "GetEnvironmentCredentials"]),
    (
        "deadline",
        &[
            "AssumeFleetRoleForRead",
            "AssumeFleetRoleForWorker",
            "AssumeQueueRoleForRead",
            "AssumeQueueRoleForUser",
            "AssumeQueueRoleForWorker",
        ],
    ),
    ("eks-auth", &["AssumeRoleForPodIdentity"]),
    ("gamelift", &["CreateBuild", "GetComputeAccess", "RequestUploadCredentials"]),
    (
        "lakeformation",
        &[
            "AssumeDecoratedRoleWithSAML",
            "GetTemporaryDataLocationCredentials",
            "GetTemporaryGlueFunctionCredentials",
            "GetTemporaryGluePartitionCredentials",
            "GetTemporaryGlueTableCredentials",
        ],
    ),
    ("s3", &["CreateSession"]),
    ("s3control", &["GetDataAccess"]),
    ("signin", &["CreateOAuth2Token"]),
    ("ssm", &["GetAccessToken"]),
    ("sso", &["GetRoleCredentials"]),
    (
        "sts",
        &[
            "AssumeRole",
            "AssumeRoleWithSAML",
            "AssumeRoleWithWebIdentity",
            "AssumeRoot",
            "GetDelegatedAccessToken",
            "GetFederationToken",
            "GetSessionToken",
        ],
    ),
];

/// Whether the call's answer carries temporary credentials, whatever the call may turn out to be.
pub fn issues_credentials(call: &Call) -> bool {
    let issues = |service: &str, operation: &str| {
        ISSUING.iter().any(|(name, operations)| *name == service && operations.contains(&operation))
    };
    issues(&call.service, &call.operation)
        || call.candidates.iter().any(|name| name.split_once(':').is_some_and(|(service, name)| issues(service, name)))
}

/// Why an answer with credentials can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It is compressed, which it was asked not to be.
    #[error("the answer that carries credentials is compressed")]
    Encoded,
    /// Some of them are there and others not, or not as text.
    #[error("the answer carries a part of credentials only, which can't be replaced")]
    Partial,
    /// It is larger than what is held.
    #[error("the answer that carries credentials, or a presigned URL, is larger than {MAX_CREDENTIALS_ANSWER} bytes")]
    TooLarge,
    /// It can't be read.
    #[error("the answer that carries credentials is not {0}")]
    Unreadable(&'static str),
}

/// Replaces the credentials in an answer by placeholders.
pub struct CredentialRewriter<'a> {
    /// Where they are kept.
    pub keys: &'a VendedCredentials,
    /// Whose they are.
    pub session: SessionId,
    /// The account of whoever asked, for credentials that are of the same.
    pub account: Option<&'a str>,
    /// What was asked.
    pub call: &'a VendingCall,
}

/// What of a call matters for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VendingCall {
    /// The credentials are for S3 Express, and their token goes into a field of its own.
    express: bool,
    /// They are of the same account as those that asked.
    same_account: bool,
    /// It is no key but a token.
    token: Option<TokenKind>,
}

impl VendingCall {
    /// `None` where the answer carries no credentials.
    pub fn of(call: &Call) -> Option<Self> {
        let token = TokenKind::of(&call.service, &call.operation);
        (token.is_some() || issues_credentials(call)).then(|| Self {
            express: call.service == "s3",
            same_account: matches!(&*call.operation, "CreateSession" | "GetSessionToken" | "GetFederationToken"),
            token,
        })
    }
}

/// One set, as it is in an answer.
struct Real {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    expiry: Option<SystemTime>,
}

/// One set, as the agent gets it.
struct Given {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
}

impl CredentialRewriter<'_> {
    /// The answer's body with placeholders in it. Its length changes.
    pub fn rewrite(&self, headers: &HeaderMap, body: &[u8]) -> Result<Vec<u8>, AnswerError> {
        if body.len() > MAX_CREDENTIALS_ANSWER {
            return Err(AnswerError::TooLarge);
        }
        if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return Err(AnswerError::Encoded);
        }
        let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        let kind = String::from_utf8_lossy(kind).to_ascii_lowercase();
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(body.to_vec());
        }
        if let Some(token) = self.call.token {
            tokens::rewrite(body, self, token)
        } else if kind.contains("cbor") {
            cbor::rewrite(body, self)
        } else if body.trim_ascii_start().starts_with(b"<") {
            xml::rewrite(body, self)
        } else {
            json::rewrite(body, self)
        }
    }

    /// `arn`: the first name in the answer that says whose the credentials are.
    fn give(&self, real: Real, arn: Option<&str>) -> Given {
        let expiry = real.expiry;
        let inner =
            Credentials::new(real.access_key_id, real.secret_access_key, Some(real.session_token), expiry, "answer");
        let mut credentials = AwsCredentials::new(inner);
        let named = arn.and_then(account_of);
        if let Some(account) = named.or(self.account.filter(|_| self.call.same_account)) {
            credentials = credentials.with_account(account);
        }
        if self.call.express {
            credentials = credentials.for_s3_express();
        }
        let key = self.keys.issue(self.session, credentials);
        let placeholder = key.placeholder();
        Given {
            access_key_id: placeholder.access_key_id().to_owned(),
            secret_access_key: placeholder.secret_access_key().to_owned(),
            session_token: placeholder.session_token().to_owned(),
        }
    }
}

/// Which member of credentials a name is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    AccessKeyId,
    SecretAccessKey,
    SessionToken,
    Expiration,
}

impl Part {
    fn of(name: &str) -> Option<Self> {
        let is = |text: &str| name.eq_ignore_ascii_case(text);
        if is("AccessKeyId") {
            Some(Self::AccessKeyId)
        } else if is("SecretAccessKey") || is("SecretKey") {
            Some(Self::SecretAccessKey)
        } else if is("SessionToken") {
            Some(Self::SessionToken)
        } else if is("Expiration") || is("ExpirationTime") || is("ExpiresAt") {
            Some(Self::Expiration)
        } else {
            None
        }
    }
}

/// Collects a structure's members; either all three are there, or none.
#[derive(Default)]
struct Parts {
    texts: [Option<String>; 3],
    expiry: Option<SystemTime>,
}

impl Parts {
    /// False: the member is there twice.
    fn text(&mut self, part: Part, text: &str) -> bool {
        let place = match part {
            Part::AccessKeyId => 0,
            Part::SecretAccessKey => 1,
            Part::SessionToken => 2,
            Part::Expiration => {
                self.expiry = OffsetDateTime::parse(text, &Rfc3339).ok().map(SystemTime::from);
                return true;
            }
        };
        self.texts[place].replace(text.to_owned()).is_none()
    }

    /// Seconds since 1970, or milliseconds, as IAM Identity Center has them.
    fn expires(&mut self, number: f64) {
        let seconds = if number > 1e11 { number / 1000.0 } else { number };
        let after = Duration::try_from_secs_f64(seconds).ok();
        self.expiry = after.and_then(|after| SystemTime::UNIX_EPOCH.checked_add(after));
    }

    fn real(self) -> Result<Option<Real>, AnswerError> {
        match self.texts {
            // An id alone only names a key.
            [_, None, None] => Ok(None),
            [Some(access_key_id), Some(secret_access_key), Some(session_token)] => {
                Ok(Some(Real { access_key_id, secret_access_key, session_token, expiry: self.expiry }))
            }
            _ => Err(AnswerError::Partial),
        }
    }
}

impl Given {
    fn part(&self, part: Part) -> Option<&str> {
        match part {
            Part::AccessKeyId => Some(&self.access_key_id),
            Part::SecretAccessKey => Some(&self.secret_access_key),
            Part::SessionToken => Some(&self.session_token),
            Part::Expiration => None,
        }
    }
}

/// The account of `arn:aws:sts::123456789012:assumed-role/…`.
fn account_of(arn: &str) -> Option<&str> {
    let mut parts = arn.split(':');
    let (scheme, service, account) = (parts.next()?, parts.nth(1)?, parts.nth(1)?);
    (scheme == "arn" && service == "sts" && account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit()))
        .then_some(account)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    // Shaped as the examples in AWS's API references for STS AssumeRole, Cognito GetCredentialsForIdentity, IAM Identity
    // Center GetRoleCredentials and S3 CreateSession.
    const STS: &str = r#"<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleResult>
    <AssumedRoleUser>
      <Arn>arn:aws:sts::210987654321:assumed-role/demo/John</Arn>
      <AssumedRoleId>ARO123EXAMPLE123:John</AssumedRoleId>
    </AssumedRoleUser>
    <Credentials>
      <AccessKeyId>ASIAIOSFODNN7EXAMPLE</AccessKeyId>
      <SecretAccessKey>wJalrXUtnFEMI/K7MDENG&#x2F;bPxRfiCYzEXAMPLEKEY</SecretAccessKey>
      <SessionToken>AQoDYXdzEPT//////////wEXAMPLE+a&amp;b==</SessionToken>
      <Expiration>2019-11-09T13:34:41Z</Expiration>
    </Credentials>
    <PackedPolicySize>6</PackedPolicySize>
  </AssumeRoleResult>
</AssumeRoleResponse>"#;
    const S3: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<CreateSessionResult><Credentials><SessionToken>realtoken\
        </SessionToken><SecretAccessKey>realsecret/key</SecretAccessKey><AccessKeyId>ASIAREAL</AccessKeyId><Expiration>\
        2023-11-28T00:00:00Z</Expiration></Credentials></CreateSessionResult>";
    const COGNITO: &str = r#"{"Credentials":{"AccessKeyId":"ASIAREAL","Expiration":1.747310447E9,"SecretKey":"realsecret/key",
        "SessionToken":"realtoken"},"IdentityId":"us-west-2:12345678"}"#;
    const SSO: &str = r#"{"roleCredentials":{"accessKeyId":"ASIAREAL","secretAccessKey":"realsecret/key","sessionToken":"realtoken",
        "expiration":1747310447000}}"#;
    // Long enough that no placeholder's random letters are ever one of them.
    const REAL: [&str; 6] = ["ASIAREAL", "ASIAIOSFODNN7EXAMPLE", "realsecret", "wJalrXUtn", "AQoDYXdzE", "realtoken"];

    fn rewrite(keys: &VendedCredentials, kind: &str, body: &[u8]) -> Result<Vec<u8>, AnswerError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(kind).unwrap());
        let call = VendingCall { express: false, same_account: false, token: None };
        let session = SessionId::from_bytes([1; 16]);
        CredentialRewriter { keys, session, account: Some("123456789012"), call: &call }.rewrite(&headers, body)
    }

    /// The text between two others.
    fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
        text.split_once(before).and_then(|(_, rest)| rest.split_once(after)).unwrap_or_else(|| panic!("{text}")).0
    }

    fn holds_nothing_real(text: &str) {
        for real in REAL {
            assert!(!text.contains(real), "{real} in {text}");
        }
    }

    #[test]
    fn stss_answer_carries_a_placeholder_and_is_otherwise_the_same() {
        let keys = VendedCredentials::default();
        let out = String::from_utf8(rewrite(&keys, "text/xml", STS.as_bytes()).unwrap()).unwrap();
        holds_nothing_real(&out);
        let key = keys.get(between(&out, "<AccessKeyId>", "<")).unwrap();
        assert_eq!(between(&out, "<SecretAccessKey>", "<"), key.placeholder().secret_access_key());
        assert_eq!(between(&out, "<SessionToken>", "<"), key.placeholder().session_token());
        let real = key.credentials();
        assert_eq!(real.access_key_id(), "ASIAIOSFODNN7EXAMPLE");
        assert_eq!(
            real.secret_access_key(),
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY",
            "character references are read"
        );
        assert_eq!(real.session_token(), Some("AQoDYXdzEPT//////////wEXAMPLE+a&b=="));
        assert_eq!(real.account(), Some("210987654321"), "the role's, not the asker's");
        assert_eq!(real.expiry().map(OffsetDateTime::from), Some(time::macros::datetime!(2019-11-09 13:34:41 UTC)));
        let secret = |text: &str| {
            let (head, rest) = text.split_once("<AccessKeyId>").unwrap();
            (head.to_owned(), rest.split_once("<Expiration>").unwrap().1.to_owned())
        };
        assert_eq!(secret(&out), secret(STS), "the rest stays byte for byte");
    }

    #[test]
    fn every_protocols_shape_is_rewritten() {
        for (kind, body, names) in [
            ("application/xml", S3, ["<AccessKeyId>", "<SecretAccessKey>", "<SessionToken>"]),
            ("application/x-amz-json-1.1", COGNITO, ["\"AccessKeyId\":\"", "\"SecretKey\":\"", "\"SessionToken\":\""]),
            ("application/json", SSO, ["\"accessKeyId\":\"", "\"secretAccessKey\":\"", "\"sessionToken\":\""]),
            // What its kind doesn't tell, its beginning does.
            ("", SSO, ["\"accessKeyId\":\"", "\"secretAccessKey\":\"", "\"sessionToken\":\""]),
        ] {
            let keys = VendedCredentials::default();
            let out = String::from_utf8(rewrite(&keys, kind, body.as_bytes()).unwrap()).unwrap();
            holds_nothing_real(&out);
            let end = if body.starts_with('<') { "<" } else { "\"" };
            let given = names.map(|name| between(&out, name, end));
            let key = keys.get(given[0]).unwrap();
            assert_eq!(given[1..], [key.placeholder().secret_access_key(), key.placeholder().session_token()]);
            assert_eq!(
                (key.credentials().access_key_id(), key.credentials().session_token()),
                ("ASIAREAL", Some("realtoken"))
            );
            let expiry = key.credentials().expiry().map(|at| OffsetDateTime::from(at).year());
            assert!(matches!(expiry, Some(2023 | 2025)), "{expiry:?}");
            assert!(out.contains("xpiration"), "{out}");
        }
    }

    #[test]
    fn cbor_is_rewritten_too() {
        use ciborium::Value::{Array, Float, Map, Tag, Text};
        let text = |text: &str| Text(text.into());
        let set = |id: &str| {
            Map(vec![
                (text("accessKeyId"), text(id)),
                (text("secretAccessKey"), text("realsecret/key")),
                (text("sessionToken"), text("realtoken")),
                (text("expiration"), Tag(1, Box::new(Float(1_747_310_447.0)))),
            ])
        };
        let jobs = Map(vec![(text("jobs"), Array(vec![set("ASIAREAL"), set("ASIAREAL2"), Map(vec![])]))]);
        let mut body = Vec::new();
        ciborium::into_writer(&jobs, &mut body).unwrap();
        let keys = VendedCredentials::default();
        let out = rewrite(&keys, "application/cbor", &body).unwrap();
        holds_nothing_real(&String::from_utf8_lossy(&out));
        let read: ciborium::Value = ciborium::from_reader(&out[..]).unwrap();
        let jobs = read.as_map().unwrap()[0].1.as_array().unwrap();
        let id = |at: usize| jobs[at].as_map().unwrap()[0].1.as_text().unwrap();
        assert_eq!(keys.get(id(0)).unwrap().credentials().access_key_id(), "ASIAREAL");
        assert_eq!(keys.get(id(1)).unwrap().credentials().access_key_id(), "ASIAREAL2");
        assert_eq!(jobs[0].as_map().unwrap()[3].1, Tag(1, Box::new(Float(1_747_310_447.0))), "the time stays");
        assert!(OffsetDateTime::from(keys.get(id(0)).unwrap().credentials().expiry().unwrap()).year() == 2025);
        for end in 0..body.len() {
            assert!(rewrite(&keys, "application/cbor", &body[..end]).is_err() || end == 0, "cut at {end}");
        }
        for bad in [
            &b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff"[..],
            b"\x7b\x00\x00\x00\xff\xff\xff\xff\xffx",
            &[0x81; 5000],
            b"\xa0\xa0",
        ] {
            assert_eq!(rewrite(&keys, "application/cbor", bad), Err(AnswerError::Unreadable("CBOR")));
        }
    }

    #[test]
    fn what_cant_be_replaced_whole_is_refused() {
        let keys = VendedCredentials::default();
        let of = |body: &str| rewrite(&keys, "text/plain", body.as_bytes());
        for body in [
            r#"{"a":{"SecretAccessKey":"s"}}"#,
            r#"{"a":[{"accessKeyId":"A","secretAccessKey":"s"}]}"#,
            r#"{"SessionToken":"t"}"#,
            r#"{"accessKeyId":"A","AccessKeyId":"B","secretAccessKey":"s","sessionToken":"t"}"#,
            r#"{"accessKeyId":"A","secretAccessKey":["s"],"sessionToken":"t"}"#,
            "<a><b><SecretAccessKey>s</SecretAccessKey></b></a>",
            "<a><c><AccessKeyId>A</AccessKeyId><SecretAccessKey>s</SecretAccessKey></c><SessionToken>t</SessionToken></a>",
            "<a><SecretAccessKey>s<x/></SecretAccessKey></a>",
            "<SecretAccessKey>s</SecretAccessKey>",
        ] {
            assert_eq!(of(body), Err(AnswerError::Partial), "{body}");
        }
        for body in [
            "<a>",
            "</a>",
            "<a></b>",
            "<!DOCTYPE a [<!ENTITY x 'y'>]><a/>",
            "<a><!-- --></a>",
            "<a><?x?></a>",
            "<a><Arn>&unknown;</Arn></a>",
            "x",
            "{",
            "{\"a\":1}}",
            "\u{feff}{}",
            &"[".repeat(1000),
            &"<a>".repeat(100),
        ] {
            assert!(matches!(of(body), Err(AnswerError::Unreadable(_))), "{body}");
        }
        assert!(matches!(rewrite(&keys, "text/xml", b"<a>\xff</a>"), Err(AnswerError::Unreadable(_))));
        assert_eq!(of(&" ".repeat(MAX_CREDENTIALS_ANSWER + 1)), Err(AnswerError::TooLarge));
        // CDATA is text as well.
        let cdata = STS.replace("ASIAIOSFODNN7EXAMPLE", "<![CDATA[ASIAIOSFODNN7EXAMPLE]]>");
        holds_nothing_real(&String::from_utf8(of(&cdata).unwrap()).unwrap());
        // Of members with one name only the last is seen by anybody.
        let twice = r#"{"roleCredentials":{"accessKeyId":"ASIAREAL"},"roleCredentials":{}}"#;
        assert_eq!(of(twice).unwrap(), br#"{"roleCredentials":{}}"#);
        assert_eq!(of("").unwrap(), b"");
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let call = VendingCall { express: false, same_account: false, token: None };
        let issuer = CredentialRewriter { keys: &keys, session: SessionId::new(), account: None, call: &call };
        assert_eq!(issuer.rewrite(&headers, b"{}"), Err(AnswerError::Encoded));
    }

    #[test]
    fn the_account_is_the_askers_only_where_it_must_be() {
        let account = |same_account, express| {
            let keys = VendedCredentials::default();
            let call = VendingCall { express, same_account, token: None };
            let issuer = CredentialRewriter {
                keys: &keys,
                session: SessionId::new(),
                account: Some("123456789012"),
                call: &call,
            };
            let out = String::from_utf8(issuer.rewrite(&HeaderMap::new(), S3.as_bytes()).unwrap()).unwrap();
            let key = keys.get(between(&out, "<AccessKeyId>", "<")).unwrap();
            (key.credentials().account().map(str::to_owned), key.placeholder().token_field())
        };
        assert_eq!(account(true, true), (Some("123456789012".into()), crate::TokenField::S3Session));
        assert_eq!(account(false, false), (None, crate::TokenField::Security));
    }
}
