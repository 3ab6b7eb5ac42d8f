//! People sign in at a provider: the authorization code flow with PKCE, a state and a nonce.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use http::{Request, Uri, header};
use oauth2::{
    AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointSet, PkceCodeChallenge, PkceCodeVerifier,
    RedirectUrl, Scope, TokenResponse as _, TokenUrl,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Algorithm, Fetch, Issuer, MAX_TOKEN_BYTES, ProviderError, TokenError, Verified, Verifier, claims,
    discovery::Document,
    exchange::{self, said},
};

/// How old a discovery document becomes before it is asked for anew.
const REFRESH: Duration = Duration::from_hours(1);

/// Where a person's groups are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupsFrom {
    /// In the ID token: they are what they were when the person signed in.
    #[default]
    IdToken,
    /// The provider is asked (its `userinfo_endpoint`), whenever it matters.
    Userinfo,
}

chaperone_model::documented! {
/// `[approvals.api.sign_in]`: the provider where approvers sign in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// What it is called here and in records: a-z, 0-9 and `-`. People are `NAME:SUBJECT`.
    pub name: String,
    /// The provider, character for character as its discovery document names it.
    pub issuer: String,
    /// What this daemon is to it.
    pub client_id: String,
    /// A file with the client's secret, if the provider gave it one: root's, mode 0600.
    pub client_secret_file: Option<PathBuf>,
    /// What is asked for besides `openid`.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The claim that says who it is.
    #[serde(default = "default_subject")]
    pub subject: String,
    /// The claim with their groups, a text or a list of texts.
    pub groups: Option<String>,
    /// Where that claim is: `id-token`, as of the sign-in; or `userinfo`, which is asked again for each answer.
    #[serde(default)]
    pub groups_from: GroupsFrom,
    /// How its tokens may be signed.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// The certificates (PEM) that its servers are verified by, if not the host's.
    pub ca_file: Option<PathBuf>,
    /// Whether it may be reached without TLS, on loopback addresses only: for tests.
    #[serde(default)]
    pub insecure_loopback: bool,
}
}

fn default_subject() -> String {
    "sub".into()
}

fn default_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::RS256, Algorithm::ES256]
}

impl SignIn {
    /// What TOML's types can't say. The error begins with the key that it is about.
    pub fn check(&self) -> Result<(), String> {
        if self.client_id.is_empty() || self.client_id.chars().any(char::is_control) {
            return Err("client_id: what the provider calls this daemon, such as \"chaperone\"".into());
        }
        if self.groups_from == GroupsFrom::Userinfo && self.groups.is_none() {
            return Err("groups_from = \"userinfo\": `groups` must name the claim".into());
        }
        self.issuer().check()
    }

    /// Its ID tokens are held against the same rules as those of agents.
    fn issuer(&self) -> Issuer {
        Issuer {
            name: self.name.clone(),
            issuer: self.issuer.clone(),
            audiences: vec![self.client_id.clone()],
            agents: Vec::new(),
            algorithms: self.algorithms.clone(),
            jwks_uri: None,
            jwks_file: None,
            ca_file: self.ca_file.clone(),
            clock_skew: 30,
            require: std::collections::BTreeMap::new(),
            subject: self.subject.clone(),
            groups: self.groups.clone().filter(|_| self.groups_from == GroupsFrom::IdToken),
            group_prefix: None,
            sponsor: None,
            display_name: None,
            claims: std::collections::BTreeMap::new(),
            client_id: None,
            scopes: Vec::new(),
            insecure_loopback: self.insecure_loopback,
        }
    }
}

/// A sign-in under way. It must be kept where only the browser that began it can bring it back.
#[derive(Clone, Serialize, Deserialize)]
pub struct Begun {
    /// What the provider gives back with the code.
    pub state: String,
    nonce: String,
    verifier: String,
}

impl std::fmt::Debug for Begun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Begun(<redacted>)")
    }
}

/// Somebody who has signed in.
#[derive(Clone)]
pub struct SignedIn {
    /// Who, with their groups, each as `NAME:GROUP`.
    pub verified: Verified,
    /// Other names of theirs that the token has: by one of them they may be known as an agent's sponsor.
    pub also: Vec<String>,
    /// For asking the provider about them.
    pub access: Option<String>,
}

impl std::fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignedIn").field("verified", &self.verified).finish_non_exhaustive()
    }
}

/// Why nobody has signed in.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// The provider is away or answers nonsense.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// It doesn't take the code.
    #[error("the provider `{name}` gives no token for this sign-in: {why}; begin anew")]
    Refused {
        /// The provider.
        name: String,
        /// What it says.
        why: String,
    },
    /// Its token isn't believed.
    #[error("the provider's token is not believed: {0}")]
    Token(#[from] TokenError),
}

type Client = exchange::Client<EndpointSet>;

/// Where the provider does what.
#[derive(Clone, Debug)]
struct Endpoints {
    authorization: AuthUrl,
    token: TokenUrl,
    userinfo: Option<Uri>,
}

/// The provider's client: this daemon.
pub struct RelyingParty {
    about: SignIn,
    issuer: Issuer,
    secret: Option<ClientSecret>,
    redirect: RedirectUrl,
    verifier: Verifier,
    fetch: Fetch,
    endpoints: Mutex<Option<(Endpoints, Instant)>>,
}

impl std::fmt::Debug for RelyingParty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelyingParty").field("about", &self.about).finish_non_exhaustive()
    }
}

impl RelyingParty {
    /// One whose people come back to `redirect`. The configuration was checked; its files are read now.
    pub fn new(about: SignIn, redirect: String) -> Result<Self, String> {
        let secret = about.client_secret_file.as_deref().map(secret).transpose();
        let secret = secret.map_err(|why| format!("client_secret_file: {why}"))?.map(ClientSecret::new);
        let issuer = about.issuer();
        let verifier = Verifier::new(vec![issuer.clone()])?;
        let fetch = Fetch::new(about.ca_file.as_deref())?;
        let redirect = RedirectUrl::new(redirect).map_err(|error| format!("the address to come back to: {error}"))?;
        Ok(Self { about, issuer, secret, redirect, verifier, fetch, endpoints: Mutex::default() })
    }

    /// The provider.
    pub const fn about(&self) -> &SignIn {
        &self.about
    }

    /// Where a browser is to be sent, and what must come back with it.
    pub async fn begin(&self) -> Result<(String, Begun), ProviderError> {
        let client = self.client(self.endpoints().await?);
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let nonce = CsrfToken::new_random_len(32).into_secret();
        let scopes = self.about.scopes.iter().filter(|scope| *scope != "openid").cloned().map(Scope::new);
        let (url, state) = client
            .authorize_url(|| CsrfToken::new_random_len(32))
            .add_scope(Scope::new("openid".into()))
            .add_scopes(scopes)
            .add_extra_param("nonce", &nonce)
            .set_pkce_challenge(challenge)
            .url();
        Ok((url.into(), Begun { state: state.into_secret(), nonce, verifier: verifier.into_secret() }))
    }

    /// Exchanges the code for who has signed in. That `begun` is this browser's, the caller has made sure of.
    pub async fn finish(&self, begun: Begun, code: String) -> Result<SignedIn, SignInError> {
        let refused = |why: String| SignInError::Refused { name: self.about.name.clone(), why: exchange::cut(&why) };
        let client = self.client(self.endpoints().await?);
        let send = exchange::sender(&self.fetch);
        let tokens = client
            .exchange_code(AuthorizationCode::new(code))
            .set_pkce_verifier(PkceCodeVerifier::new(begun.verifier))
            .request_async(&send)
            .await
            .map_err(|error| refused(said(&error)))?;
        let id_token = tokens.extra_fields().id_token.as_deref().ok_or_else(|| refused("it has no ID token".into()))?;
        let (mut verified, all) =
            self.verifier.verify_id_token(id_token, &self.about.client_id, Some(&begun.nonce)).await?;
        let access = tokens.access_token().secret();
        let access = Some(access.clone()).filter(|token| token.len() <= MAX_TOKEN_BYTES);
        let mut signed_in = SignedIn { verified: verified.clone(), also: names(&all), access };
        if self.about.groups_from == GroupsFrom::Userinfo {
            verified.identity.groups = self.groups_now(&signed_in).await?;
            signed_in.verified = verified;
        }
        Ok(signed_in)
    }

    /// The groups that somebody who has signed in is in now, as far as the provider can be asked.
    pub async fn groups_now(&self, who: &SignedIn) -> Result<Vec<String>, SignInError> {
        let (GroupsFrom::Userinfo, Some(path)) = (self.about.groups_from, &self.about.groups) else {
            return Ok(who.verified.identity.groups.clone());
        };
        let wrong = |url: &str, why: &str| ProviderError::Ask { url: url.to_owned(), why: why.to_owned() };
        let uri = self.endpoints().await?.userinfo;
        let uri = uri.ok_or_else(|| wrong(&self.about.issuer, "it names no `userinfo_endpoint`"))?;
        let access = who.access.as_deref().unwrap_or_default();
        let request = Request::get(&uri).header(header::AUTHORIZATION, format!("Bearer {access}"));
        let Value::Object(said) = self.fetch.json_of(request).await? else {
            return Err(wrong(&uri.to_string(), "the answer is no JSON object").into());
        };
        // OpenID Connect Core, 5.3.2: it may be about somebody else.
        let subject = claims::find(&said, &self.about.subject).and_then(Value::as_str);
        if subject != Some(&who.verified.identity.subject) {
            return Err(wrong(&uri.to_string(), "the answer is about somebody else").into());
        }
        Ok(claims::groups(&self.issuer, &said, path)?)
    }

    fn client(&self, endpoints: Endpoints) -> Client {
        let client = exchange::client(ClientId::new(self.about.client_id.clone()), endpoints.token)
            .set_auth_uri(endpoints.authorization)
            .set_redirect_uri(self.redirect.clone());
        match &self.secret {
            Some(secret) => client.set_client_secret(secret.clone()),
            None => client,
        }
    }

    async fn endpoints(&self) -> Result<Endpoints, ProviderError> {
        if let Some((known, at)) = &*self.endpoints.lock()
            && at.elapsed() < REFRESH
        {
            return Ok(known.clone());
        }
        let document = Document::of(&self.issuer, &self.fetch).await?;
        let known = Endpoints {
            authorization: document.authorization()?,
            token: document.token()?,
            userinfo: document.endpoint("userinfo_endpoint")?,
        };
        *self.endpoints.lock() = Some((known.clone(), Instant::now()));
        Ok(known)
    }
}

/// The names that a token has for its person, but for the subject. They only ever take the right to approve away.
pub fn names(claims: &claims::Claims) -> Vec<String> {
    let named = ["sub", "email", "preferred_username", "upn", "username"].into_iter();
    let found: BTreeSet<String> = named
        .filter_map(|name| claims.get(name)?.as_str())
        .filter(|name| name.len() <= 512)
        .map(str::to_owned)
        .collect();
    found.into_iter().collect()
}

/// A secret from its file, which only root can have written or can read.
pub fn secret(path: &Path) -> Result<String, String> {
    let read = crate::read(path, &BTreeSet::new(), None).map_err(|error| error.to_string())?;
    let about = fs::metadata(path).map_err(|error| format!("looking at {}: {error}", path.display()))?;
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let path = path.display();
        return Err(format!("{path} has mode {mode:04o}: others than root may not read it; chmod 0600 {path}"));
    }
    let secret = read.map(|file| file.token.trim().to_owned()).unwrap_or_default();
    if secret.is_empty() {
        return Err(format!("{} is empty", path.display()));
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let folder = tempfile::Builder::new().tempdir_in("/root").unwrap();
        let path = folder.path().join("secret");
        assert!(secret(&path).unwrap_err().contains("secret"));
        fs::write(&path, "s3cret\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(secret(&path).unwrap_err().contains("chmod 0600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(secret(&path).unwrap(), "s3cret");
        fs::write(&path, " \n").unwrap();
        assert!(secret(&path).unwrap_err().contains("is empty"));
    }
}
