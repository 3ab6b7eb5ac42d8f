//! SigV4A: one signature for several regions, by a P-256 key that is derived from the secret key. For multi-region access
//! points, EventBridge's global endpoints and CloudFront's key value stores.
//!
//! The agent's is checked by the public key that belongs to its placeholder's secret, and ours is made over the same
//! region set, which is a signed header field and stays as it is.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use aws_lc_rs::{
    agreement::{ECDH_P256, PrivateKey},
    digest,
    signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey},
};
use aws_sigv4::sign::v4a;
use http::{header::AUTHORIZATION, request::Parts};
use time::OffsetDateTime;

use crate::{
    AwsCredentials, PathRules, Placeholder, SignError, Signer, VerifyError,
    canonical::HeaderForm,
    request_auth::{check_names, members, single},
    sign::{
        Hashed, authorize, canonical_request, check_time, kept, payload, prepare, push_hex, push_names, push_scope,
    },
};

const ALGORITHM: &str = "AWS4-ECDSA-P256-SHA256";
const UNSIGNED_TRAILER: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
/// DER of two numbers of 32 bytes.
const MAX_SIGNATURE: usize = 72;

/// A SigV4A `Authorization` field, taken apart: like SigV4's, without a region in its scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V4aAuth<'a> {
    /// The access key id.
    pub access_key_id: &'a str,
    /// The scope's date, `YYYYMMDD`.
    pub date: &'a str,
    /// The scope's service: the signing name.
    pub service: &'a str,
    signed_headers: &'a str,
    signature: Vec<u8>,
}

impl<'a> V4aAuth<'a> {
    /// What the request says; an error when it can't be read.
    pub fn of(parts: &'a Parts) -> Result<Self, VerifyError> {
        let field = single(&parts.headers, AUTHORIZATION).unwrap_or_default();
        Self::read(field).map_err(VerifyError::Malformed)
    }

    fn read(field: &'a str) -> Result<Self, &'static str> {
        let rest = field.strip_prefix(ALGORITHM).and_then(|rest| rest.strip_prefix(' ')).ok_or("not SigV4A")?;
        let [credential, signed, signature] = members(rest)?;
        let scope: Vec<&str> = credential.unwrap_or_default().splitn(5, '/').collect();
        let [access_key_id, date, service, "aws4_request"] = scope[..] else {
            return Err("a credential scope that is not id/date/service/aws4_request");
        };
        let token = |text: &str| {
            !text.is_empty()
                && text.len() <= 128
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        if ![access_key_id, date, service].iter().all(|part| token(part)) {
            return Err("a character in the credential scope that has no place there");
        }
        let signed_headers = signed.ok_or("no SignedHeaders in the Authorization field")?;
        check_names(signed_headers)?;
        let signature = signature.filter(|hex| hex.len() <= 2 * MAX_SIGNATURE).and_then(|hex| hex::decode(hex).ok());
        let signature = signature.ok_or("a signature that is not one of ECDSA in hexadecimal digits")?;
        Ok(Self { access_key_id, date, service, signed_headers, signature })
    }
}

impl Signer {
    /// Checks that the request is signed by this placeholder, here and now, as [`verify`](Self::verify) does.
    pub fn verify_v4a(
        &self,
        parts: &Parts,
        body_sha256: Option<&[u8; 32]>,
        placeholder: &Placeholder,
        now: OffsetDateTime,
    ) -> Result<HeaderForm, VerifyError> {
        let authority = V4aAuth::of(parts)?;
        if authority.access_key_id != placeholder.access_key_id() {
            return Err(VerifyError::ForeignKey { access_key_id: authority.access_key_id.to_owned() });
        }
        if single(&parts.headers, placeholder.token_field().name()) != Some(placeholder.session_token()) {
            return Err(VerifyError::Token);
        }
        if single(&parts.headers, "x-amz-region-set").is_none_or(str::is_empty) {
            return Err(VerifyError::Unsigned("x-amz-region-set".into()));
        }
        let stamp = single(&parts.headers, "x-amz-date").ok_or(VerifyError::Date("no x-amz-date field"))?;
        check_time(stamp, authority.date, now)?;
        let payload = match payload(parts, body_sha256)? {
            Hashed::Text(text) if text.starts_with("STREAMING-") && text != UNSIGNED_TRAILER => {
                return Err(VerifyError::NotSupported("a body whose chunks are signed by SigV4A"));
            }
            payload => payload,
        };
        let public = public_key(placeholder.access_key_id(), placeholder.secret_access_key());
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public.ok_or(VerifyError::Mismatch)?);
        for form in HeaderForm::of(&parts.headers, authority.signed_headers.split(';')) {
            let canonical = canonical_request(parts, authority.service, authority.signed_headers, payload, form)?;
            let to_sign = string_to_sign(&canonical, stamp, authority.date, authority.service);
            if public.verify(to_sign.as_bytes(), &authority.signature).is_ok() {
                return Ok(form);
            }
        }
        Err(VerifyError::Mismatch)
    }

    /// Takes the agent's authority out of the request and puts ours in, as [`sign`](Self::sign) does. The region set
    /// stays.
    pub fn sign_v4a(
        &self,
        parts: &mut Parts,
        body_sha256: Option<&[u8; 32]>,
        credentials: &AwsCredentials,
        now: OffsetDateTime,
    ) -> Result<(), SignError> {
        let (names, service) = {
            let authority =
                V4aAuth::of(parts).map_err(|_| SignError::NotSupported("a SigV4A signature that can't be read"))?;
            (kept(parts, authority.signed_headers), authority.service.to_owned())
        };
        let rules = PathRules::of_request(&service, parts);
        let prepared = prepare(parts, names, body_sha256, credentials, rules, now)?;
        let day = &prepared.stamp[..8];
        let to_sign = string_to_sign(&prepared.canonical, &prepared.stamp, day, &service);
        let key = v4a::generate_signing_key(credentials.access_key_id(), credentials.secret_access_key());
        let signature = v4a::calculate_signature(key, to_sign.as_bytes());
        let mut field = format!("{ALGORITHM} Credential=");
        push_scope(&mut field, &[credentials.access_key_id(), day, &service]);
        field.push_str(", SignedHeaders=");
        push_names(&mut field, &prepared.names);
        field.push_str(", Signature=");
        field.push_str(&signature);
        authorize(parts, &field)
    }
}

fn string_to_sign(canonical: &[u8], stamp: &str, day: &str, service: &str) -> String {
    let mut out = format!("{ALGORITHM}\n{stamp}\n");
    push_scope(&mut out, &[day, service]);
    out.push('\n');
    push_hex(&mut out, digest::digest(&digest::SHA256, canonical).as_ref());
    out
}

/// The public key of whoever has this secret: an uncompressed point.
fn public_key(access_key_id: &str, secret: &str) -> Option<Vec<u8>> {
    let private = v4a::generate_signing_key(access_key_id, secret);
    let private = PrivateKey::from_private_key(&ECDH_P256, private.as_ref()).ok()?;
    Some(private.compute_public_key().ok()?.as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use aws_credential_types::Credentials;
    use http::Request;
    use serde::Deserialize;
    use time::{Duration, macros::datetime};

    use super::*;
    use crate::wire_tests::placeholder;

    /// AWS's SigV4A test suite, as it comes with the crate aws-sigv4 1.6.4 (Apache-2.0), in one file.
    static SUITE: &str = include_str!("../tests/data/sigv4a-suite.json");
    const NOW: OffsetDateTime = datetime!(2025-06-01 12:00 UTC);

    #[derive(Deserialize)]
    struct Vector {
        name: String,
        public_key: Point,
        to_sign: String,
        signature: String,
        canonical: String,
        credentials: Keys,
    }

    #[derive(Deserialize)]
    #[allow(non_snake_case)] // as the suite has them
    struct Point {
        X: String,
        Y: String,
    }

    #[derive(Deserialize)]
    struct Keys {
        access_key_id: String,
        secret_access_key: String,
    }

    #[test]
    fn awss_own_vectors() {
        let vectors: Vec<Vector> = serde_json::from_str(SUITE).unwrap();
        assert_eq!(vectors.len(), 38);
        for vector in vectors {
            let public = public_key(&vector.credentials.access_key_id, &vector.credentials.secret_access_key).unwrap();
            assert_eq!(hex::encode(&public), format!("04{}{}", vector.public_key.X, vector.public_key.Y));
            let to_sign = string_to_sign(vector.canonical.as_bytes(), "20150830T123600Z", "20150830", "service");
            assert_eq!(to_sign, vector.to_sign, "{}", vector.name);
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public);
            let signature = hex::decode(&vector.signature).unwrap();
            key.verify(to_sign.as_bytes(), &signature).unwrap_or_else(|_| panic!("{}", vector.name));
            assert!(key.verify(format!("{to_sign}0").as_bytes(), &signature).is_err());
        }
    }

    fn credentials(id: &str, secret: &str, token: &str) -> AwsCredentials {
        AwsCredentials::new(Credentials::new(id, secret, Some(token.into()), None, "test"))
    }

    /// A request to a multi-region access point, signed by the tests' placeholder.
    fn signed(hash: &str) -> Parts {
        let stub =
            format!("{ALGORITHM} Credential=X/20250601/s3/aws4_request, SignedHeaders=content-type;host, Signature=00");
        let mut parts = Request::builder()
            .method("PUT")
            .uri("/a%20b?partNumber=1")
            .header("host", "m.accesspoint.s3-global.amazonaws.com")
            .header("content-type", "text/plain")
            .header("x-amz-content-sha256", hash)
            .header("x-amz-region-set", "*")
            .header("authorization", stub)
            .body(())
            .unwrap()
            .into_parts()
            .0;
        let own = placeholder();
        let agents = credentials(own.access_key_id(), own.secret_access_key(), own.session_token());
        Signer::new().sign_v4a(&mut parts, None, &agents, NOW).unwrap();
        parts
    }

    fn verify(parts: &Parts) -> Result<(), VerifyError> {
        Signer::new().verify_v4a(parts, None, &placeholder(), NOW).map(drop)
    }

    #[test]
    fn it_is_checked_by_the_placeholder_and_signed_again_for_the_same_regions() {
        let mut parts = signed("UNSIGNED-PAYLOAD");
        assert_eq!(verify(&parts), Ok(()));
        let real = credentials("AKIAREAL", "real secret", "real-token");
        Signer::new().sign_v4a(&mut parts, None, &real, NOW).unwrap();
        assert_eq!(
            (&parts.headers["x-amz-region-set"], &parts.headers["x-amz-security-token"]),
            (&"*".parse().unwrap(), &"real-token".parse().unwrap())
        );
        let authority = V4aAuth::of(&parts).unwrap();
        assert_eq!((authority.access_key_id, authority.service), ("AKIAREAL", "s3"));
        assert_eq!(
            authority.signed_headers,
            "content-type;host;x-amz-content-sha256;x-amz-date;x-amz-region-set;x-amz-security-token"
        );
        let as_real = Placeholder::fixed("AKIAREAL", "real secret", "real-token");
        assert_eq!(Signer::new().verify_v4a(&parts, None, &as_real, NOW).map(drop), Ok(()));
        assert!(matches!(verify(&parts), Err(VerifyError::ForeignKey { .. })));
    }

    #[test]
    fn what_was_changed_or_is_not_the_sessions_own_is_not_believed() {
        let good = signed("UNSIGNED-PAYLOAD");
        let changed = |name: &'static str, value: &str| {
            let mut parts = good.clone();
            parts.headers.insert(name, value.parse().unwrap());
            verify(&parts)
        };
        assert_eq!(changed("x-amz-region-set", "us-east-1"), Err(VerifyError::Mismatch));
        assert_eq!(changed("content-type", "text/html"), Err(VerifyError::Mismatch));
        assert_eq!(changed("x-amz-security-token", "another"), Err(VerifyError::Token));
        assert_eq!(changed("x-amz-acl", "public-read"), Err(VerifyError::Unsigned("x-amz-acl".into())));
        assert!(matches!(changed("x-amz-date", "20250601T130000Z"), Err(VerifyError::Skewed { .. })));
        let mut parts = good.clone();
        parts.uri = "/a%20b?partNumber=2".parse().unwrap();
        assert_eq!(verify(&parts), Err(VerifyError::Mismatch));
        let mut parts = good.clone();
        parts.headers.remove("x-amz-region-set");
        assert_eq!(verify(&parts), Err(VerifyError::Unsigned("x-amz-region-set".into())));
        let guessed = Placeholder::fixed(placeholder().access_key_id(), "guessed", placeholder().session_token());
        assert_eq!(Signer::new().verify_v4a(&good, None, &guessed, NOW), Err(VerifyError::Mismatch));
        let late = Signer::new().verify_v4a(&good, None, &placeholder(), NOW + Duration::minutes(16));
        assert!(matches!(late, Err(VerifyError::Skewed { .. })));
        for kind in ["STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"] {
            assert!(matches!(verify(&signed(kind)), Err(VerifyError::NotSupported(_))), "{kind}");
        }
        assert_eq!(verify(&signed(UNSIGNED_TRAILER)), Ok(()));
    }

    /// What it is for agrees with what the request is decoded as.
    #[test]
    fn a_multi_region_access_points_call_is_for_s3() {
        use crate::{Catalog, RequestAuth};
        let parts = signed("UNSIGNED-PAYLOAD");
        let found = Catalog::global().host("m.accesspoint.s3-global.amazonaws.com").unwrap();
        let call = Catalog::global().decode(&found, &parts, None, &RequestAuth::of(&parts), None).unwrap();
        assert_eq!((&*call.signing_name, call.region), (V4aAuth::of(&parts).unwrap().service, None));
    }

    #[test]
    fn hostile_fields_are_malformed() {
        let good = signed("UNSIGNED-PAYLOAD").headers["authorization"].to_str().unwrap().to_owned();
        assert!(V4aAuth::read(&good).is_ok());
        for bad in [
            good.replace("/s3/", "/us-east-1/s3/"),
            good.replace("/s3/", "/"),
            good.replace("/s3/", "//"),
            good.replace("aws4_request", "aws4_request/x"),
            good.replace("host;", "host;host;"),
            good.replace("content-type;", "z;"),
            good.replace("Signature=30", "Signature=3"),
            good.replace("Signature=30", "Signature=zz"),
            good.replace("Signature=30", &format!("Signature={}", "30".repeat(100))),
            format!("{good}, Extra=1"),
            format!("{good}, Signature=00"),
            good.replace("AWS4-ECDSA-P256-SHA256 ", "AWS4-ECDSA-P256-SHA256"),
            good.replace("ASIA", "AS(A"),
        ] {
            assert!(V4aAuth::read(&bad).is_err(), "{bad}");
        }
        let empty = good.split("Signature=").next().unwrap().to_owned() + "Signature=";
        let mut parts = signed("UNSIGNED-PAYLOAD");
        parts.headers.insert("authorization", empty.parse().unwrap());
        assert_eq!(verify(&parts), Err(VerifyError::Mismatch));
    }
}
