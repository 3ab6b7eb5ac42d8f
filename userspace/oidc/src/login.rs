//! People log in for an agent that works for them: by a code that they enter elsewhere (RFC 8628), or in a browser of this
//! host that comes back to a loopback address (RFC 8252) with PKCE.
//!
//! The client is a public one: it has no secret that an installed program could keep. What is given is an ID token, which is
//! held against the same rules as all others. Refresh tokens are in memory only.

use std::time::Duration;

use oauth2::{
    AuthorizationCode, ClientId, CsrfToken, DeviceCodeErrorResponse, DeviceCodeErrorResponseType, PkceCodeChallenge,
    PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError, Scope, StandardDeviceAuthorizationResponse,
    TokenResponse as _,
};
use tokio::net::TcpListener;

use crate::{
    Fetch, Issuer, MAX_TOKEN_BYTES, ProviderError, TokenError, Verified, Verifier,
    discovery::Document,
    exchange::{self, Tokens, cut, said},
};

mod callback;

/// For a person, whatever the provider says.
const PATIENCE: Duration = Duration::from_mins(10);
/// Between two questions whether somebody has entered the code: at least, and at most.
const POLL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// Logins at one provider.
#[derive(Debug)]
pub struct Login {
    issuer: Issuer,
    client: ClientId,
    verifier: Verifier,
    fetch: Fetch,
}

/// Somebody who has logged in.
#[derive(Clone)]
pub struct LoggedIn {
    /// What says so.
    pub id_token: String,
    /// Who.
    pub verified: Verified,
    refresh: Option<RefreshToken>,
}

impl LoggedIn {
    /// Whether fresh tokens can be had without asking the person again.
    pub const fn is_renewable(&self) -> bool {
        self.refresh.is_some()
    }
}

impl std::fmt::Debug for LoggedIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoggedIn").field("verified", &self.verified).finish_non_exhaustive()
    }
}

/// Why nobody is logged in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The provider is away or answers nonsense.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// It says no.
    #[error("the provider `{name}` gives no token for this login: {why}")]
    Refused {
        /// The provider.
        name: String,
        /// What it says.
        why: String,
    },
    /// The person says no.
    #[error("the login was refused at the provider `{0}`")]
    Denied(String),
    /// Nobody came in time.
    #[error("nobody has logged in at the provider `{0}` in time: begin anew")]
    TooLate(String),
    /// A browser has no address to come back to.
    #[error("listening on a loopback address for the browser: {0}")]
    Listen(std::io::Error),
    /// Its token isn't believed.
    #[error("the provider's token is not believed: {0}")]
    Token(#[from] TokenError),
}

impl LoginError {
    /// Whether it may go better later, without the person.
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Provider(_))
    }
}

impl Login {
    /// At this provider, which must have a `client_id`.
    pub fn new(issuer: Issuer) -> Result<Self, String> {
        issuer.check()?;
        let client = issuer.client_id.clone();
        let client = client.ok_or_else(|| {
            format!("the issuer `{}` has no `client_id` (identity.issuers), which logins need", issuer.name)
        })?;
        let fetch = Fetch::new(issuer.ca_file.as_deref())?;
        let verifier = Verifier::new(vec![issuer.clone()])?;
        Ok(Self { issuer, client: ClientId::new(client), verifier, fetch })
    }

    /// Begins one by a code that somebody enters on any device.
    pub async fn device(&self) -> Result<DeviceLogin<'_>, LoginError> {
        let document = Document::of(&self.issuer, &self.fetch).await?;
        let client = exchange::client(self.client.clone(), document.token()?);
        let by = client.clone().set_device_authorization_url(document.device()?);
        let request = by.exchange_device_code().add_scopes(self.scopes());
        let asked = request.request_async(&exchange::sender(&self.fetch)).await;
        let asked: StandardDeviceAuthorizationResponse = asked.map_err(|error| self.failed(&error))?;
        // It is shown to people, who go there.
        let at = self.issuer.url("verification_uri", asked.verification_uri().as_str());
        let at = at.map_err(|why| document.wrong(why))?.to_string();
        Ok(DeviceLogin { login: self, client, asked, at })
    }

    /// Begins one in a browser on this host.
    pub async fn browser(&self) -> Result<BrowserLogin<'_>, LoginError> {
        let document = Document::of(&self.issuer, &self.fetch).await?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(LoginError::Listen)?;
        let port = listener.local_addr().map_err(LoginError::Listen)?.port();
        let redirect = RedirectUrl::new(format!("http://127.0.0.1:{port}{}", callback::PATH));
        let redirect = redirect.map_err(|error| LoginError::Listen(std::io::Error::other(error)))?;
        let client = exchange::client(self.client.clone(), document.token()?).set_redirect_uri(redirect);
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let nonce = CsrfToken::new_random_len(32).into_secret();
        let by = client.clone().set_auth_uri(document.authorization()?);
        let mut request = by
            .authorize_url(|| CsrfToken::new_random_len(32))
            .add_scopes(self.scopes())
            .add_extra_param("nonce", &nonce)
            .set_pkce_challenge(challenge);
        // OpenID Connect Core, 11: without the person's consent there is no refresh token.
        if self.issuer.scopes.iter().any(|it| it == "offline_access") {
            request = request.add_extra_param("prompt", "consent");
        }
        let (url, state) = request.url();
        Ok(BrowserLogin { login: self, client, listener, url: url.into(), state: state.into_secret(), nonce, verifier })
    }

    /// A fresh token for somebody who has logged in.
    pub async fn renew(&self, who: &LoggedIn) -> Result<LoggedIn, LoginError> {
        let refresh = who.refresh.as_ref().ok_or_else(|| self.refused("it gave no refresh token"))?;
        let document = Document::of(&self.issuer, &self.fetch).await?;
        let client = exchange::client(self.client.clone(), document.token()?);
        let renewed = client.exchange_refresh_token(refresh).request_async(&exchange::sender(&self.fetch)).await;
        let tokens = renewed.map_err(|error| self.failed(&error))?;
        let mut renewed = self.logged_in(&tokens, None).await?;
        renewed.refresh = renewed.refresh.or_else(|| who.refresh.clone());
        Ok(renewed)
    }

    fn scopes(&self) -> Vec<Scope> {
        let more = self.issuer.scopes.iter().map(String::as_str).filter(|scope| *scope != "openid");
        std::iter::once("openid").chain(more).map(|scope| Scope::new(scope.to_owned())).collect()
    }

    async fn logged_in(&self, tokens: &Tokens, nonce: Option<&str>) -> Result<LoggedIn, LoginError> {
        let id_token = tokens.extra_fields().id_token.clone();
        let id_token = id_token.ok_or_else(|| self.refused("its answer has no ID token"))?;
        let (verified, _) = self.verifier.verify_id_token(&id_token, &self.client, nonce).await?;
        let refresh = tokens.refresh_token().filter(|it| it.secret().len() <= MAX_TOKEN_BYTES).cloned();
        Ok(LoggedIn { id_token, verified, refresh })
    }

    fn refused(&self, why: &str) -> LoginError {
        LoginError::Refused { name: self.issuer.name.clone(), why: cut(why) }
    }

    /// That an exchange failed: the provider is away, or said no.
    fn failed<R>(&self, error: &RequestTokenError<std::io::Error, R>) -> LoginError
    where
        R: oauth2::ErrorResponse + std::fmt::Display + 'static,
    {
        match error {
            RequestTokenError::ServerResponse(_) => self.refused(&said(error)),
            _ => LoginError::Provider(ProviderError::Ask { url: self.issuer.issuer.clone(), why: cut(&said(error)) }),
        }
    }
}

/// A login that waits for somebody to enter a code.
#[derive(Debug)]
pub struct DeviceLogin<'a> {
    login: &'a Login,
    client: exchange::Client,
    asked: StandardDeviceAuthorizationResponse,
    at: String,
}

impl DeviceLogin<'_> {
    /// Where it is to be entered.
    pub fn url(&self) -> &str {
        &self.at
    }

    /// What is to be entered there, as the provider gave it.
    pub fn code(&self) -> String {
        cut(self.asked.user_code().secret())
    }

    /// How long that is good for.
    pub fn lasts(&self) -> Duration {
        self.asked.expires_in().min(PATIENCE)
    }

    /// Asks the provider, as often as it allows, until somebody has.
    pub async fn finish(self) -> Result<LoggedIn, LoginError> {
        let name = || self.login.issuer.name.clone();
        let send = exchange::sender(&self.login.fetch);
        let pause = |time: Duration| tokio::time::sleep(time.clamp(POLL.0, POLL.1));
        let poll = self.client.exchange_device_access_token(&self.asked).set_max_backoff_interval(POLL.1);
        let poll = tokio::time::timeout(self.lasts(), poll.request_async(&send, pause, None)).await;
        let failed = |error: RequestTokenError<std::io::Error, DeviceCodeErrorResponse>| match &error {
            RequestTokenError::ServerResponse(said) => match said.error() {
                DeviceCodeErrorResponseType::ExpiredToken => LoginError::TooLate(name()),
                DeviceCodeErrorResponseType::Basic(oauth2::basic::BasicErrorResponseType::Extension(other))
                    if other == "access_denied" =>
                {
                    LoginError::Denied(name())
                }
                DeviceCodeErrorResponseType::AccessDenied => LoginError::Denied(name()),
                _ => self.login.failed(&error),
            },
            _ => self.login.failed(&error),
        };
        let tokens = poll.map_err(|_| LoginError::TooLate(name()))?.map_err(failed)?;
        self.login.logged_in(&tokens, None).await
    }
}

/// A login that waits for a browser to come back.
pub struct BrowserLogin<'a> {
    login: &'a Login,
    client: exchange::Client,
    listener: TcpListener,
    url: String,
    state: String,
    nonce: String,
    verifier: PkceCodeVerifier,
}

impl std::fmt::Debug for BrowserLogin<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BrowserLogin").field("login", &self.login).finish_non_exhaustive()
    }
}

impl BrowserLogin<'_> {
    /// Where the browser is to be sent.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits for the browser, and exchanges what it brings.
    pub async fn finish(self) -> Result<LoggedIn, LoginError> {
        let name = || self.login.issuer.name.clone();
        let came = callback::wait(self.listener, &self.state, &self.login.issuer.issuer);
        let came = tokio::time::timeout(PATIENCE, came).await.map_err(|_| LoginError::TooLate(name()))?;
        let code = came.map_err(LoginError::Listen)?.map_err(|why| match &*why {
            "access_denied" => LoginError::Denied(name()),
            _ => self.login.refused(&why),
        })?;
        let request = self.client.exchange_code(AuthorizationCode::new(code)).set_pkce_verifier(self.verifier);
        let tokens = request.request_async(&exchange::sender(&self.login.fetch)).await;
        let tokens = tokens.map_err(|error| self.login.failed(&error))?;
        self.login.logged_in(&tokens, Some(&self.nonce)).await
    }
}
