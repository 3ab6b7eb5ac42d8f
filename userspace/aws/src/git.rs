//! git's way to CodeCommit: `Basic` credentials that the AWS CLI's credential helper and git-remote-codecommit make of a
//! SigV4 signature. The user is the access key's id, with the session token after a `%`; the password is the time and the
//! signature, of the repository alone. They are checked, and made anew.
//!
//! <https://docs.aws.amazon.com/codecommit/latest/userguide/setting-up-https-unixes.html>, and awscli's
//! `customizations/codecommit.py` for what is signed.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderValue, header::AUTHORIZATION, request::Parts};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::{
    AwsCredentials, Endpoint, HostKind, HostMatch, Placeholder, SignError, Signer, VerifyError,
    request_auth::host_field,
    sign::{check_time, format_date},
};

/// Longer than any with a session token.
const MAX_FIELD: usize = 16 << 10;
const SERVICE: &str = "codecommit";
/// `20150830T123600Z`.
const STAMP: usize = 16;

/// What git says of itself to CodeCommit. All of it is the agent's claim.
pub struct GitCredential {
    access_key_id: String,
    token: Zeroizing<String>,
    stamp: String,
    signature: [u8; 32],
    region: String,
    /// The canonical request.
    signed: String,
}

impl fmt::Debug for GitCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitCredential").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

impl GitCredential {
    /// Those of a request, if it is for CodeCommit and has some.
    pub fn of(parts: &Parts, host: &HostMatch) -> Option<Self> {
        if host.kind != HostKind::Endpoint(Endpoint::CodeCommit) {
            return None;
        }
        let mut fields = parts.headers.get_all(AUTHORIZATION).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else { return None };
        let (scheme, rest) = field.to_str().ok().filter(|text| text.len() <= MAX_FIELD)?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let plain = Zeroizing::new(BASE64_STANDARD.decode(rest.trim()).ok()?);
        let (user, password) = std::str::from_utf8(&plain).ok()?.split_once(':')?;
        let (id, token) = user.split_once('%').unwrap_or((user, ""));
        let (stamp, signature) = password.split_at_checked(STAMP)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(signature, &mut bytes).ok()?;
        if !stamp.ends_with('Z') || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return None;
        }
        let name = host_field(parts)?;
        let name = name.rsplit_once(':').map_or(name, |(name, _)| name);
        Some(Self {
            access_key_id: id.to_owned(),
            token: Zeroizing::new(token.to_owned()),
            stamp: stamp.to_owned(),
            signature: bytes,
            region: host.region.as_deref()?.to_owned(),
            signed: format!("GIT\n{}\n\nhost:{name}\n\nhost\n", repository(parts.uri.path())?),
        })
    }

    /// Whose it is.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// Whether this placeholder made it, for this repository and about now.
    pub fn verify(&self, signer: &Signer, placeholder: &Placeholder, now: OffsetDateTime) -> Result<(), VerifyError> {
        if self.access_key_id != placeholder.access_key_id() {
            return Err(VerifyError::ForeignKey { access_key_id: self.access_key_id.chars().take(128).collect() });
        }
        if *self.token != placeholder.session_token() {
            return Err(VerifyError::Token);
        }
        check_time(&self.stamp, &self.stamp[..8], now)?;
        let right = self.by(signer, &self.access_key_id, placeholder.secret_access_key(), &self.stamp);
        verify_slices_are_equal(right.as_ref(), &self.signature).map_err(|_| VerifyError::Mismatch)
    }

    /// The field that these credentials make in its place.
    pub fn field(
        &self,
        signer: &Signer,
        credentials: &AwsCredentials,
        now: OffsetDateTime,
    ) -> Result<HeaderValue, SignError> {
        let (id, stamp) = (credentials.access_key_id(), format_date(now));
        let signature = self.by(signer, id, credentials.secret_access_key(), &stamp);
        let token = credentials.session_token().map(|token| format!("%{token}")).unwrap_or_default();
        let plain = Zeroizing::new(format!("{id}{token}:{stamp}{}", hex::encode(signature)));
        let field = format!("Basic {}", BASE64_STANDARD.encode(plain.as_bytes()));
        let mut field = HeaderValue::from_str(&field).map_err(|_| SignError::Credentials)?;
        field.set_sensitive(true);
        Ok(field)
    }

    /// The time is signed without its `Z`.
    fn by(&self, signer: &Signer, id: &str, secret: &str, stamp: &str) -> aws_lc_rs::hmac::Tag {
        let time = stamp.trim_end_matches('Z');
        signer.signature(id, secret, self.signed.as_bytes(), time, (&stamp[..8], &self.region, SERVICE))
    }
}

/// What of a path git knows as the remote's.
fn repository(path: &str) -> Option<&str> {
    let name = path.strip_prefix("/v1/repos/")?.split('/').next().filter(|name| !name.is_empty())?;
    Some(&path[.."/v1/repos/".len() + name.len()])
}

#[cfg(test)]
mod tests {
    use aws_credential_types::Credentials;
    use http::Request;
    use time::{Duration, macros::datetime};

    use super::*;
    use crate::Catalog;

    const NOW: OffsetDateTime = datetime!(2025-06-01 12:00 UTC);
    const HOST: &str = "git-codecommit.eu-west-1.amazonaws.com";

    fn own() -> Placeholder {
        Placeholder::fixed("ASIAQWERTYUIOPASDFGH", "secret", "chaperone/x/token")
    }

    fn request(host: &str, path: &str, user: &str, password: &str) -> Parts {
        let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
        Request::get(path).header("host", host).header("authorization", basic).body(()).unwrap().into_parts().0
    }

    fn read(parts: &Parts) -> Option<GitCredential> {
        GitCredential::of(parts, &Catalog::global().host(parts.headers["host"].to_str().unwrap()).unwrap())
    }

    const USER: &str = "ASIAQWERTYUIOPASDFGH%chaperone/x/token";
    /// By awscli 1.46's `CodeCommitGetCommand.sign_request`, with its clock at 12:00.
    const PASSWORD: &str = "20250601T120000Z00e082383f900a26a6ba6d6aa66492249668cb4fca747e6995cf0a896081f00b";

    #[test]
    fn what_the_clis_helper_makes_is_believed_for_its_repository_and_made_anew() {
        let signer = Signer::new();
        for path in ["/v1/repos/my.repo/info/refs?service=git-upload-pack", "/v1/repos/my.repo/git-receive-pack"] {
            let found = read(&request(HOST, path, USER, PASSWORD)).unwrap();
            assert_eq!(found.verify(&signer, &own(), NOW), Ok(()));
            assert_eq!(found.verify(&signer, &own(), NOW + Duration::minutes(14)), Ok(()));
            let late = found.verify(&signer, &own(), NOW + Duration::minutes(16));
            assert!(matches!(late, Err(VerifyError::Skewed { .. })), "{late:?}");
            let real = AwsCredentials::new(Credentials::new("AKIAREAL", "real", Some("t".into()), None, "test"));
            let field = found.field(&signer, &real, NOW).unwrap();
            let mut again = request(HOST, path, "", "");
            again.headers.insert("authorization", field);
            let again = read(&again).unwrap();
            assert_eq!(again.verify(&signer, &Placeholder::fixed("AKIAREAL", "real", "t"), NOW), Ok(()));
        }
    }

    #[test]
    fn what_is_another_repositorys_hosts_or_keys_is_not() {
        let signer = Signer::new();
        let verify = |host: &str, path: &str, user: &str, password: &str, own: &Placeholder| {
            read(&request(host, path, user, password)).map(|it| it.verify(&signer, own, NOW))
        };
        let path = "/v1/repos/my.repo/info/refs";
        assert_eq!(verify(HOST, "/v1/repos/other/info/refs", USER, PASSWORD, &own()), Some(Err(VerifyError::Mismatch)));
        let elsewhere = "git-codecommit.us-east-1.amazonaws.com";
        assert_eq!(verify(elsewhere, path, USER, PASSWORD, &own()), Some(Err(VerifyError::Mismatch)));
        assert_eq!(verify(HOST, path, "ASIAQWERTYUIOPASDFGH", PASSWORD, &own()), Some(Err(VerifyError::Token)));
        let guessed = Placeholder::fixed("ASIAQWERTYUIOPASDFGH", "guessed", "chaperone/x/token");
        assert_eq!(verify(HOST, path, USER, PASSWORD, &guessed), Some(Err(VerifyError::Mismatch)));
        let foreign = verify(HOST, path, "AKIASOMEBODY", PASSWORD, &own());
        assert!(matches!(foreign, Some(Err(VerifyError::ForeignKey { .. }))), "{foreign:?}");
        for (host, path, user, password) in [
            (HOST, path, "somebody-at-123456789012", "a password of IAM's"),
            (HOST, path, USER, ""),
            (HOST, path, USER, &PASSWORD[1..]),
            (HOST, "/v1/repos//info/refs", USER, PASSWORD),
            (HOST, "/", USER, PASSWORD),
            ("codecommit.eu-west-1.amazonaws.com", path, USER, PASSWORD),
        ] {
            assert!(read(&request(host, path, user, password)).is_none(), "{host}{path} {user}");
        }
    }
}
