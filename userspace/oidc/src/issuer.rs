//! What the configuration says of an issuer.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use http::Uri;
use jsonwebtoken as jwt;
use serde::{Deserialize, Serialize};

/// How a token may be signed. Only algorithms with a private and a public key are here, so that `none` and those with a
/// shared secret (`HS256`) can't be configured or believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are RFC 7518's and RFC 8037's
pub enum Algorithm {
    ES256,
    ES384,
    EdDSA,
    PS256,
    PS384,
    PS512,
    RS256,
    RS384,
    RS512,
}

impl Algorithm {
    const ALL: [Self; 9] = [
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
    ];

    /// Its name in a token's header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == name)
    }

    /// The type of key (`kty`, and `crv` where it has curves) that it takes.
    pub(crate) const fn key(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::ES256 => ("EC", Some("P-256")),
            Self::ES384 => ("EC", Some("P-384")),
            Self::EdDSA => ("OKP", Some("Ed25519")),
            Self::PS256 | Self::PS384 | Self::PS512 | Self::RS256 | Self::RS384 | Self::RS512 => ("RSA", None),
        }
    }

    pub(crate) const fn jwt(self) -> jwt::Algorithm {
        match self {
            Self::ES256 => jwt::Algorithm::ES256,
            Self::ES384 => jwt::Algorithm::ES384,
            Self::EdDSA => jwt::Algorithm::EdDSA,
            Self::PS256 => jwt::Algorithm::PS256,
            Self::PS384 => jwt::Algorithm::PS384,
            Self::PS512 => jwt::Algorithm::PS512,
            Self::RS256 => jwt::Algorithm::RS256,
            Self::RS384 => jwt::Algorithm::RS384,
            Self::RS512 => jwt::Algorithm::RS512,
        }
    }
}

chaperone_model::documented! {
/// One of `[[identity.issuers]]`: a provider whose tokens say who an agent is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// What it is called here and in records: a-z, 0-9 and `-`.
    pub name: String,
    /// The `iss` of its tokens, character for character, and where its discovery document is.
    pub issuer: String,
    /// What its tokens must be made for: one of their `aud`.
    pub audiences: Vec<String>,
    /// The agents that its tokens may be of; all, if empty.
    #[serde(default)]
    pub agents: Vec<String>,
    /// How its tokens may be signed.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// Where its keys are, if not where the discovery document says, or on another host than the issuer.
    pub jwks_uri: Option<String>,
    /// A file with its keys instead, which is read again when it changes.
    pub jwks_file: Option<PathBuf>,
    /// The certificates (PEM) that its servers are verified by, if not the host's.
    pub ca_file: Option<PathBuf>,
    /// Seconds by which its clock and this host's may differ.
    #[serde(default = "default_skew")]
    pub clock_skew: u32,
    /// Claims that its tokens must have, with their values, in which `*` stands for any characters. A name that begins with
    /// `/` is a path into nested claims, as JSON pointers are.
    #[serde(default)]
    pub require: BTreeMap<String, String>,
    /// The claim that says who it is.
    #[serde(default = "default_subject")]
    pub subject: String,
    /// The claim with its groups, a text or a list of texts.
    pub groups: Option<String>,
    /// What is put before each of them, so that they aren't taken for groups of the configuration; the issuer's name and `:`
    /// if not given.
    pub group_prefix: Option<String>,
    /// The claim with the person whom the agent works for.
    pub sponsor: Option<String>,
    /// The claim with what people call it. Unlike the others it may be missing.
    pub display_name: Option<String>,
    /// Claims that are kept with the session, for `{claim.NAME}` in roles: their names there, and the claims.
    #[serde(default)]
    pub claims: BTreeMap<String, String>,
    /// What `chaperone run --login` is to it: a public client, which has no secret. Without it nobody logs in there.
    pub client_id: Option<String>,
    /// What is asked for at a login besides `openid`, such as `offline_access` for tokens that are renewed.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Whether it may be reached without TLS, on loopback addresses only: for tests.
    #[serde(default)]
    pub insecure_loopback: bool,
}
}

fn default_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::RS256, Algorithm::ES256]
}

fn default_skew() -> u32 {
    30
}

fn default_subject() -> String {
    "sub".into()
}

/// The most that clocks may differ.
const MAX_SKEW: u32 = 300;

impl Issuer {
    /// What TOML's types can't say. The error begins with the key that it is about.
    pub fn check(&self) -> Result<(), String> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if self.name.is_empty() || self.name.len() > 32 || !self.name.bytes().all(fits) {
            return Err(format!("name = \"{}\": 1 to 32 of a-z, 0-9 and `-`", self.name));
        }
        self.url("issuer", &self.issuer)?;
        if self.audiences.is_empty() || self.audiences.iter().any(String::is_empty) {
            return Err("audiences: name at least one, such as \"chaperone\": a token that is made for somebody else \
                        must not be believed"
                .into());
        }
        if let Some(client) = &self.client_id {
            if client.is_empty() || client.chars().any(char::is_control) {
                return Err("client_id: what the provider calls the client, such as \"chaperone-cli\"".into());
            }
            if !self.audiences.contains(client) {
                return Err(format!(
                    "audiences: add \"{client}\", the client_id: what a person's login gives is a token that is made for it"
                ));
            }
        }
        let plain = |it: &String| !it.is_empty() && it.bytes().all(|b| b.is_ascii_graphic() && !b"\"\\".contains(&b));
        if let Some(scope) = self.scopes.iter().find(|it| !plain(it)) {
            return Err(format!("scopes: \"{scope}\": each is one word, such as \"email\""));
        }
        if self.client_id.is_none() && !self.scopes.is_empty() {
            return Err("scopes: they are asked for at a login, for which `client_id` must be there, too".into());
        }
        if self.algorithms.is_empty() {
            return Err("algorithms: name at least one, such as \"RS256\"".into());
        }
        if let Some(uri) = &self.jwks_uri {
            self.url("jwks_uri", uri)?;
        }
        if self.jwks_uri.is_some() && self.jwks_file.is_some() {
            return Err("jwks_file: there is `jwks_uri` already; leave one of them out".into());
        }
        if self.clock_skew > MAX_SKEW {
            return Err(format!("clock_skew = {}: at most {MAX_SKEW}", self.clock_skew));
        }
        let named = [("subject", Some(&self.subject)), ("groups", self.groups.as_ref())];
        let named =
            named.into_iter().chain([("sponsor", self.sponsor.as_ref()), ("display_name", self.display_name.as_ref())]);
        let claims = self.claims.values().map(|path| ("claims", Some(path)));
        for (key, path) in named.chain(claims).chain(self.require.keys().map(|path| ("require", Some(path)))) {
            if let Some(path) = path
                && (path.is_empty() || path == "/")
            {
                return Err(format!(
                    "{key} = \"{path}\": name a claim, such as \"sub\" or \"/kubernetes.io/namespace\""
                ));
            }
        }
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if let Some(name) = self.claims.keys().find(|name| name.is_empty() || !name.bytes().all(fits)) {
            return Err(format!("claims: the name `{name}`: use letters, digits, `_` and `-`"));
        }
        Ok(())
    }

    /// What stands before each group of its tokens.
    pub(crate) fn prefix(&self) -> String {
        self.group_prefix.clone().unwrap_or_else(|| format!("{}:", self.name))
    }

    /// A URL that may be asked.
    pub(crate) fn url(&self, key: &str, text: &str) -> Result<Uri, String> {
        let wrong = |why: &str| format!("{key} = \"{text}\": {why}");
        let uri: Uri = text.parse().map_err(|_| wrong("not a URL, such as https://login.example.com"))?;
        let Some(host) = uri.host() else { return Err(wrong("not a URL, such as https://login.example.com")) };
        if uri.query().is_some() || text.contains('#') || uri.authority().is_some_and(|it| it.as_str().contains('@')) {
            return Err(wrong("a URL here has no query, no fragment and no user"));
        }
        let loopback = || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        match uri.scheme_str() {
            Some("https") => Ok(uri),
            Some("http") if self.insecure_loopback && loopback() => Ok(uri),
            Some("http") if loopback() => Err(wrong("without TLS only with `insecure_loopback = true`, in tests")),
            _ => Err(wrong("it must be https")),
        }
    }
}
