//! Signature Version 2 in a form, which SimpleDB alone has no other for. It is checked, and made anew in the same place.
//!
//! <https://docs.aws.amazon.com/AmazonSimpleDB/latest/DeveloperGuide/HMACAuth.html>

use std::fmt;

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, request::Parts};
use percent_encoding::percent_decode_str;
use time::{Duration, OffsetDateTime, PrimitiveDateTime, macros::format_description};

use crate::{
    AwsCredentials, HostMatch, MAX_CLOCK_SKEW, Placeholder, RequestAuth, SignError, VerifyError,
    canonical::write_encoded,
    request_auth::{host_field, single},
};

/// The services, by botocore's names.
const SERVICES: [&str; 1] = ["sdb"];
/// More members than any call has: 25 items of 256 attributes, with three each.
const MAX_PAIRS: usize = 20_000;
/// What authorises, and is said anew.
const OWN: [&str; 7] =
    ["AWSAccessKeyId", "Expires", "SecurityToken", "Signature", "SignatureMethod", "SignatureVersion", "Timestamp"];
const STAMP: &[time::format_description::BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

/// A form that is signed inside. All of it is the agent's claim.
pub struct SignedForm {
    /// Names and values, decoded, but for what authorises.
    pairs: Vec<(String, String)>,
    /// The same as they came.
    rest: String,
    own: Vec<(String, String)>,
    host: String,
    path: String,
}

impl fmt::Debug for SignedForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedForm").field("access_key_id", &self.access_key_id()).finish_non_exhaustive()
    }
}

impl SignedForm {
    /// Whether a request may be one, by its head.
    pub fn may_be(parts: &Parts, host: &HostMatch) -> bool {
        let kind = single(&parts.headers, "content-type").unwrap_or_default();
        parts.method == Method::POST
            && parts.uri.query().is_none()
            && RequestAuth::of(parts) == RequestAuth::None
            && kind.starts_with("application/x-www-form-urlencoded")
            && host.services().any(|name| SERVICES.contains(&name))
    }

    /// Reads it; `None` if nothing in it signs.
    pub fn read(parts: &Parts, body: &[u8]) -> Result<Option<Self>, VerifyError> {
        const UNREADABLE: VerifyError = VerifyError::Form("it can't be read in one way");
        let text = std::str::from_utf8(body).ok().filter(|text| text.is_ascii()).ok_or(UNREADABLE)?;
        let (mut pairs, mut own, mut rest) = (Vec::new(), Vec::new(), String::new());
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if pairs.len() == MAX_PAIRS {
                return Err(VerifyError::Form("it has more than 20,000 members"));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = |text: &str| {
                let text = text.replace('+', " ");
                percent_decode_str(&text).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| UNREADABLE)
            };
            let member = (decoded(name)?, decoded(value)?);
            if OWN.contains(&member.0.as_str()) {
                if own.iter().any(|(name, _)| *name == member.0) {
                    return Err(VerifyError::Form("a member that authorises comes twice"));
                }
                own.push(member);
                continue;
            }
            if !rest.is_empty() {
                rest.push('&');
            }
            rest.push_str(pair);
            pairs.push(member);
        }
        if !own.iter().any(|(name, _)| name == "Signature") {
            return Ok(None);
        }
        let host = host_field(parts).ok_or(VerifyError::Unsigned("host".into()))?.to_ascii_lowercase();
        Ok(Some(Self { pairs, rest, own, host, path: parts.uri.path().to_owned() }))
    }

    fn own(&self, name: &str) -> Option<&str> {
        self.own.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// Whose key it names.
    pub fn access_key_id(&self) -> &str {
        self.own("AWSAccessKeyId").unwrap_or_default()
    }

    /// The form without what authorises: what there is to decide by.
    pub fn rest(&self) -> &[u8] {
        self.rest.as_bytes()
    }

    /// Whether this placeholder signed it, about now.
    pub fn verify(&self, placeholder: &Placeholder, now: OffsetDateTime) -> Result<(), VerifyError> {
        if self.access_key_id() != placeholder.access_key_id() {
            return Err(VerifyError::ForeignKey { access_key_id: self.access_key_id().chars().take(128).collect() });
        }
        if self.own("SecurityToken") != Some(placeholder.session_token()) {
            return Err(VerifyError::Token);
        }
        let read = |name| self.own(name).map(|text| date_of(text).ok_or(VerifyError::Date("it can't be read")));
        match (read("Timestamp").transpose()?, read("Expires").transpose()?) {
            (Some(signed), None) if (now - signed).abs() > MAX_CLOCK_SKEW => {
                return Err(VerifyError::Skewed { signed, now });
            }
            (None, Some(until)) if now > until || until - now > Duration::days(1) => {
                return Err(VerifyError::Date("it has expired, or holds for more than a day"));
            }
            (Some(_), None) | (None, Some(_)) => {}
            _ => return Err(VerifyError::Date("not exactly one of Timestamp and Expires")),
        }
        let algorithm = match (self.own("SignatureVersion"), self.own("SignatureMethod")) {
            (Some("2"), Some("HmacSHA256")) => hmac::HMAC_SHA256,
            (Some("2"), Some("HmacSHA1")) => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            _ => return Err(VerifyError::NotSupported("a form that isn't signed by version 2 and HMAC")),
        };
        let signature =
            STANDARD.decode(self.own("Signature").unwrap_or_default()).map_err(|_| VerifyError::Mismatch)?;
        let key = hmac::Key::new(algorithm, placeholder.secret_access_key().as_bytes());
        let signed = self.own.iter().filter(|(name, _)| name != "Signature");
        hmac::verify(&key, self.to_sign(signed).as_bytes(), &signature).map_err(|_| VerifyError::Mismatch)
    }

    /// The form by these credentials.
    pub fn signed(&self, credentials: &AwsCredentials, now: OffsetDateTime) -> Result<Bytes, SignError> {
        let stamp = now.to_offset(time::UtcOffset::UTC).format(STAMP).map_err(|_| SignError::Credentials)?;
        let member = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut own = vec![
            member("AWSAccessKeyId", credentials.access_key_id()),
            member("SignatureMethod", "HmacSHA256"),
            member("SignatureVersion", "2"),
            member("Timestamp", &stamp),
        ];
        own.extend(credentials.session_token().map(|token| member("SecurityToken", token)));
        let key = hmac::Key::new(hmac::HMAC_SHA256, credentials.secret_access_key().as_bytes());
        let signature = STANDARD.encode(hmac::sign(&key, self.to_sign(own.iter()).as_bytes()));
        own.push(member("Signature", &signature));
        let mut form = self.rest.clone();
        for (name, value) in &own {
            if !form.is_empty() {
                form.push('&');
            }
            push(&mut form, name, value);
        }
        Ok(form.into())
    }

    fn to_sign<'a>(&'a self, own: impl Iterator<Item = &'a (String, String)>) -> String {
        let mut all: Vec<&(String, String)> = self.pairs.iter().chain(own).collect();
        all.sort();
        let path = if self.path.is_empty() { "/" } else { &self.path };
        let mut out = format!("POST\n{}\n{path}\n", self.host);
        for (at, (name, value)) in all.into_iter().enumerate() {
            if at > 0 {
                out.push('&');
            }
            push(&mut out, name, value);
        }
        out
    }
}

fn push(out: &mut String, name: &str, value: &str) {
    write_encoded(out, name.as_bytes());
    out.push('=');
    write_encoded(out, value.as_bytes());
}

/// As ISO 8601 has it, in UTC, with or without parts of a second.
fn date_of(text: &str) -> Option<OffsetDateTime> {
    let whole = text.strip_suffix('Z')?.split('.').next()?;
    PrimitiveDateTime::parse(&format!("{whole}Z"), STAMP).ok().map(PrimitiveDateTime::assume_utc)
}

#[cfg(test)]
mod tests {
    use aws_credential_types::Credentials;
    use http::Request;
    use time::macros::datetime;

    use super::*;
    use crate::Catalog;

    const NOW: OffsetDateTime = datetime!(2025-06-01 12:00 UTC);
    /// By botocore 1.44's `SigV2Auth`, with its clock at 12:00.
    const FORM: &str = "Action=PutAttributes&Version=2009-04-15&DomainName=d&ItemName=an+item~%C3%A9&Attribute.1.Name=a&Attribute.1.Value=1+%2B+1&Attribute.10.Name=b&Attribute.10.Value=%2F&AWSAccessKeyId=ASIAQWERTYUIOPASDFGH&SignatureVersion=2&SignatureMethod=HmacSHA256&Timestamp=2025-06-01T12%3A00%3A00Z&SecurityToken=chaperone%2Fx%2Ftoken&Signature=kTZEQvseMXTfEWlADV%2FvCGCEEBMAP%2Fgmf61G0mRTFDY%3D";

    fn own() -> Placeholder {
        Placeholder::fixed("ASIAQWERTYUIOPASDFGH", "secret", "chaperone/x/token")
    }

    fn parts(host: &str) -> Parts {
        let kind = "application/x-www-form-urlencoded; charset=utf-8";
        Request::post("/").header("host", host).header("content-type", kind).body(()).unwrap().into_parts().0
    }

    const HOST: &str = "sdb.eu-west-1.amazonaws.com";

    fn read(body: &str) -> SignedForm {
        SignedForm::read(&parts(HOST), body.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn what_botocore_signs_is_believed_and_made_anew() {
        let form = read(FORM);
        assert_eq!(form.verify(&own(), NOW), Ok(()));
        assert!(matches!(form.verify(&own(), NOW + Duration::minutes(16)), Err(VerifyError::Skewed { .. })));
        let host = Catalog::global().host(HOST).unwrap();
        assert!(SignedForm::may_be(&parts(HOST), &host));
        let call =
            Catalog::global().decode(&host, &parts(HOST), Some(form.rest()), &RequestAuth::None, Some("123456789012"));
        assert_eq!(call.unwrap().operation, "PutAttributes");
        let real = AwsCredentials::new(Credentials::new("AKIAREAL", "real", Some("t+1".into()), None, "test"));
        let ours = form.signed(&real, NOW).unwrap();
        let text = std::str::from_utf8(&ours).unwrap();
        assert!(!text.contains("ASIAQ") && !text.contains("chaperone"), "{text}");
        assert_eq!(read(text).verify(&Placeholder::fixed("AKIAREAL", "real", "t+1"), NOW), Ok(()));
    }

    #[test]
    fn what_was_changed_or_is_another_keys_is_not() {
        let verify = |body: &str| read(body).verify(&own(), NOW);
        assert_eq!(verify(&FORM.replace("PutAttributes", "DeleteDomain")), Err(VerifyError::Mismatch));
        assert_eq!(verify(&format!("{FORM}&Attribute.9.Name=x")), Err(VerifyError::Mismatch));
        assert_eq!(verify(&FORM.replace("token", "tokem")), Err(VerifyError::Token));
        assert!(matches!(verify(&FORM.replace("ASIAQ", "AKIAQ")), Err(VerifyError::ForeignKey { .. })));
        let guessed = Placeholder::fixed("ASIAQWERTYUIOPASDFGH", "guessed", "chaperone/x/token");
        assert_eq!(read(FORM).verify(&guessed, NOW), Err(VerifyError::Mismatch));
        assert!(verify(&FORM.replace("HmacSHA256", "None")).is_err());
        assert!(verify(&FORM.replace("Timestamp", "Time")).is_err());
        let twice = format!("{FORM}&Signature=x");
        assert!(SignedForm::read(&parts(HOST), twice.as_bytes()).is_err());
        assert!(SignedForm::read(&parts(HOST), b"Action=ListDomains").unwrap().is_none());
        for other in ["sqs.eu-west-1.amazonaws.com", "sts.amazonaws.com"] {
            assert!(!SignedForm::may_be(&parts(other), &Catalog::global().host(other).unwrap()), "{other}");
        }
    }
}
