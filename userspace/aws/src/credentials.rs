//! Real credentials: the daemon's own, from the official chain (environment, profile, web identity, container, IMDS), and
//! those of roles that are assumed by them.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider},
};
use http::HeaderName;
use parking_lot::{Mutex, MutexGuard};

use crate::signing_key::SigningKey;

/// Credentials are fetched anew this long before they expire; SDKs use five minutes and more.
const AHEAD: Duration = Duration::from_mins(10);
/// After a failed refresh, credentials that are still valid are used this long before the next try.
const RETRY: Duration = Duration::from_secs(10);
/// No answer from the chain in this time is a failure.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there are no credentials. Trying again later may help.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The chain gave none.
    #[error(
        "no AWS credentials for the daemon: {0}; give its service an instance profile, a profile file or AWS_* variables"
    )]
    Unavailable(String),
    /// A role can't be assumed.
    #[error("assuming {role}: {why}")]
    Role {
        /// Its ARN.
        role: String,
        /// What STS said.
        why: String,
    },
    /// The chain did not answer.
    #[error("the daemon's credential sources did not answer within {} s; check IMDS and STS", PATIENCE.as_secs())]
    TimedOut,
}

/// Which header field carries a session token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenField {
    /// `x-amz-s3session-token`, for what S3 Express's `CreateSession` gave.
    S3Session,
    /// `x-amz-security-token`.
    Security,
}

impl TokenField {
    /// The field's name.
    pub fn name(self) -> HeaderName {
        const S3_SESSION: HeaderName = HeaderName::from_static("x-amz-s3session-token");
        const SECURITY: HeaderName = HeaderName::from_static("x-amz-security-token");
        match self {
            Self::S3Session => S3_SESSION,
            Self::Security => SECURITY,
        }
    }
}

/// Real credentials. `Debug` shows the access key id and nothing else.
#[derive(Clone)]
pub struct AwsCredentials {
    inner: Credentials,
    account: Option<Arc<str>>,
    token_field: TokenField,
    /// What answers must not bring back of them, prepared when the first request is signed.
    signing_key: OnceLock<Arc<SigningKey>>,
}

impl AwsCredentials {
    /// Credentials as they are, for tests and for sessions by `AssumeRole`.
    pub fn new(inner: Credentials) -> Self {
        let account = inner.account_id().map(|id| Arc::from(id.as_str()));
        Self { inner, account, token_field: TokenField::Security, signing_key: OnceLock::new() }
    }

    /// The same, as S3's `CreateSession` gave them.
    #[must_use]
    pub fn for_s3_express(mut self) -> Self {
        self.token_field = TokenField::S3Session;
        self
    }

    /// The same, in this account.
    #[must_use]
    pub fn with_account(mut self, account: &str) -> Self {
        self.account = Some(Arc::from(account));
        self
    }

    /// The access key id.
    pub fn access_key_id(&self) -> &str {
        self.inner.access_key_id()
    }

    /// The secret; only to sign with.
    pub fn secret_access_key(&self) -> &str {
        self.inner.secret_access_key()
    }

    /// The session token of temporary credentials.
    pub fn session_token(&self) -> Option<&str> {
        self.inner.session_token()
    }

    pub(crate) fn signing_key(&self) -> Arc<SigningKey> {
        self.signing_key.get_or_init(|| Arc::new(SigningKey::of(self.access_key_id(), self.session_token()))).clone()
    }

    /// Where the session token goes.
    pub fn token_field(&self) -> TokenField {
        self.token_field
    }

    /// When they end; `None` for keys of a user.
    pub fn expiry(&self) -> Option<SystemTime> {
        self.inner.expiry()
    }

    /// The account, when the source or the configuration tells.
    pub fn account(&self) -> Option<&str> {
        self.account.as_deref()
    }
}

impl fmt::Debug for AwsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsCredentials").field("access_key_id", &self.access_key_id()).finish_non_exhaustive()
    }
}

/// Where credentials come from: cached, refreshed ahead of expiry by one at a time while calls go on with what is still
/// valid, and used as long as they are valid though the source be away.
#[derive(Clone)]
pub struct CredentialSource(Arc<Source>);

struct Source {
    provider: SharedCredentialsProvider,
    /// The role that the provider assumes, for errors.
    role: Option<Arc<str>>,
    account: Option<Arc<str>>,
    cached: Mutex<Cached>,
    refresh: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Cached {
    credentials: Option<Arc<AwsCredentials>>,
    refresh_at: Option<SystemTime>,
    /// How often nobody had any, and why the last time.
    failures: u64,
    error: Option<CredentialsError>,
}

impl fmt::Debug for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialSource").field("role", &self.0.role).finish_non_exhaustive()
    }
}

impl CredentialSource {
    /// The official default chain. `account` is what the configuration says, for sources that don't tell; `region` is
    /// where its STS and SSO calls go.
    pub async fn default_chain(account: Option<&str>, region: &str) -> Self {
        let chain = aws_config::default_provider::credentials::DefaultCredentialsChain::builder()
            .region(aws_config::Region::new(region.to_owned()))
            .build()
            .await;
        Self::new(SharedCredentialsProvider::new(chain), account)
    }

    /// Any provider.
    pub fn new(provider: SharedCredentialsProvider, account: Option<&str>) -> Self {
        Self::of(provider, None, account)
    }

    pub(crate) fn of(provider: SharedCredentialsProvider, role: Option<&str>, account: Option<&str>) -> Self {
        Self(Arc::new(Source {
            provider,
            role: role.map(Arc::from),
            account: account.map(Arc::from),
            cached: Mutex::default(),
            refresh: Arc::default(),
        }))
    }

    /// The account that signs, as far as it is known without asking anybody.
    pub fn account(&self) -> Option<Arc<str>> {
        if self.0.account.is_some() {
            return self.0.account.clone();
        }
        self.0.lock().credentials.as_ref()?.account().map(Arc::from)
    }

    /// The role that they are of; `None` for the daemon's own.
    pub fn role(&self) -> Option<&str> {
        self.0.role.as_deref()
    }

    /// When those that are used now end; `None` before there are any, and for keys of a user.
    pub fn expiry(&self) -> Option<SystemTime> {
        self.0.lock().credentials.as_ref()?.expiry()
    }

    /// Credentials that are valid now.
    pub async fn get(&self) -> Result<Arc<AwsCredentials>, CredentialsError> {
        let now = SystemTime::now();
        if let Some(credentials) = self.0.fresh(now) {
            return Ok(credentials);
        }
        if let Some(credentials) = self.0.valid(now) {
            self.refresh_meanwhile();
            return Ok(credentials);
        }
        let before = self.0.lock().failures;
        let _one = self.0.refresh.lock().await;
        if let Some(credentials) = self.0.valid(SystemTime::now()) {
            return Ok(credentials);
        }
        // Who waited while another asked in vain doesn't ask once more: a source that is away would be waited for by one
        // call after the other.
        let failed = {
            let cached = self.0.lock();
            cached.error.clone().filter(|_| cached.failures != before)
        };
        if let Some(error) = failed {
            return Err(error);
        }
        let answer = self.0.ask().await;
        if let Err(error) = &answer {
            let mut cached = self.0.lock();
            cached.failures += 1;
            cached.error = Some(error.clone());
        }
        answer
    }

    /// Called now and then: credentials that are in use are fetched anew before a call has to wait for them.
    pub fn keep_fresh(&self) {
        let now = SystemTime::now();
        if self.0.fresh(now).is_none() && self.0.lock().credentials.is_some() {
            self.refresh_meanwhile();
        }
    }

    /// Asks for new ones in a task of its own, unless that is being done.
    fn refresh_meanwhile(&self) {
        let Ok(one) = self.0.refresh.clone().try_lock_owned() else { return };
        let source = self.0.clone();
        tokio::spawn(async move {
            let _one = one;
            if source.fresh(SystemTime::now()).is_some() {
                return;
            }
            if let Err(error) = source.ask().await {
                tracing::warn!(%error, "credentials could not be refreshed; those there are used while they are valid");
                source.lock().refresh_at = Some(SystemTime::now() + RETRY);
            }
        });
    }
}

impl Source {
    async fn ask(&self) -> Result<Arc<AwsCredentials>, CredentialsError> {
        match tokio::time::timeout(PATIENCE, self.provider.provide_credentials()).await {
            Ok(Ok(credentials)) => Ok(self.keep(credentials, SystemTime::now())),
            Ok(Err(error)) => Err(match &self.role {
                Some(role) => {
                    CredentialsError::Role { role: role.to_string(), why: chaperone_model::with_causes(&error) }
                }
                None => CredentialsError::Unavailable(chaperone_model::with_causes(&error)),
            }),
            Err(_) => Err(CredentialsError::TimedOut),
        }
    }

    fn keep(&self, credentials: Credentials, now: SystemTime) -> Arc<AwsCredentials> {
        let mut credentials = AwsCredentials::new(credentials);
        if credentials.account.is_none() {
            credentials.account.clone_from(&self.account);
        }
        let credentials = Arc::new(credentials);
        let mut cached = self.lock();
        cached.refresh_at = credentials.expiry().map(|expiry| {
            let ahead = expiry.duration_since(now).map_or(Duration::ZERO, |left| AHEAD.min(left / 2));
            expiry - ahead
        });
        cached.credentials = Some(credentials.clone());
        credentials
    }

    fn fresh(&self, now: SystemTime) -> Option<Arc<AwsCredentials>> {
        let cached = self.lock();
        let credentials = cached.credentials.as_ref()?;
        (cached.refresh_at.is_none_or(|at| now < at) && credentials.expiry().is_none_or(|expiry| now < expiry))
            .then(|| credentials.clone())
    }

    fn valid(&self, now: SystemTime) -> Option<Arc<AwsCredentials>> {
        let credentials = self.lock().credentials.clone()?;
        credentials.expiry().is_none_or(|expiry| now < expiry).then_some(credentials)
    }

    fn lock(&self) -> MutexGuard<'_, Cached> {
        self.cached.lock()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use aws_credential_types::provider::{error::CredentialsError as Error, future::ProvideCredentials as Future};

    use super::*;

    /// Gives credentials that last as long as it was told, or fails; counts how often it was asked.
    #[derive(Debug, Default)]
    struct Provider {
        asked: AtomicUsize,
        life: Mutex<Option<Duration>>,
        fails: Mutex<bool>,
    }

    #[derive(Clone, Debug)]
    struct Shared(Arc<Provider>);

    impl ProvideCredentials for Shared {
        fn provide_credentials<'a>(&'a self) -> Future<'a>
        where
            Self: 'a,
        {
            let count = self.0.asked.fetch_add(1, Ordering::SeqCst);
            if *self.0.fails.lock() {
                return Future::ready(Err(Error::provider_error("the endpoint is away")));
            }
            let expiry = self.0.life.lock().map(|life| SystemTime::now() + life);
            Future::ready(Ok(Credentials::new(format!("AKIA{count}"), "very secret", None, expiry, "test")))
        }
    }

    fn source(life: Option<Duration>) -> (Arc<Provider>, CredentialSource) {
        let provider = Arc::new(Provider { life: Mutex::new(life), ..Provider::default() });
        let shared = SharedCredentialsProvider::new(Shared(provider.clone()));
        (provider, CredentialSource::new(shared, Some("123456789012")))
    }

    #[tokio::test]
    async fn credentials_are_asked_for_once_while_they_last() {
        for life in [None, Some(Duration::from_hours(1))] {
            let (provider, source) = source(life);
            for _ in 0..3 {
                let credentials = source.get().await.unwrap();
                assert_eq!((credentials.access_key_id(), credentials.account()), ("AKIA0", Some("123456789012")));
            }
            assert_eq!(provider.asked.load(Ordering::SeqCst), 1);
        }
    }

    /// Waits for a refresh that is under way.
    async fn refreshed(source: &CredentialSource) {
        drop(source.0.refresh.lock().await);
    }

    #[tokio::test]
    async fn credentials_are_renewed_before_they_end_and_used_while_they_are_valid() {
        let (provider, source) = source(Some(Duration::from_mins(30)));
        assert_eq!(source.get().await.unwrap().access_key_id(), "AKIA0");
        source.0.lock().refresh_at = Some(SystemTime::now());
        assert_eq!(source.get().await.unwrap().access_key_id(), "AKIA0", "no call waits while there are valid ones");
        refreshed(&source).await;
        assert_eq!(source.get().await.unwrap().access_key_id(), "AKIA1");
        *provider.fails.lock() = true;
        source.0.lock().refresh_at = Some(SystemTime::now());
        assert_eq!(source.get().await.unwrap().access_key_id(), "AKIA1", "stale and still valid");
        refreshed(&source).await;
        let asked = provider.asked.load(Ordering::SeqCst);
        source.get().await.unwrap();
        refreshed(&source).await;
        assert_eq!(provider.asked.load(Ordering::SeqCst), asked, "not asked again at once");
    }

    #[tokio::test]
    async fn one_asks_for_all_and_what_is_in_use_is_kept_fresh() {
        let (provider, source) = source(Some(Duration::from_mins(30)));
        source.keep_fresh();
        refreshed(&source).await;
        assert_eq!(provider.asked.load(Ordering::SeqCst), 0, "nobody uses them");
        let all = futures_util::future::join_all((0..20).map(|_| source.get())).await;
        assert!(all.iter().all(|it| it.as_ref().unwrap().access_key_id() == "AKIA0"));
        source.0.lock().refresh_at = Some(SystemTime::now());
        for _ in 0..20 {
            source.keep_fresh();
        }
        refreshed(&source).await;
        assert_eq!(source.get().await.unwrap().access_key_id(), "AKIA1");
        assert_eq!(provider.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_failure_is_told_to_all_who_waited_for_it() {
        let (provider, source) = source(None);
        *provider.fails.lock() = true;
        let held = source.0.refresh.lock().await;
        let all = futures_util::future::join_all((0..20).map(|_| source.get()));
        let mut all = std::pin::pin!(all);
        let pending = std::future::poll_fn(|cx| std::task::Poll::Ready(all.as_mut().poll(cx).is_pending()));
        assert!(pending.await, "they wait for one another");
        drop(held);
        assert!(all.await.iter().all(Result::is_err));
        assert_eq!(provider.asked.load(Ordering::SeqCst), 1);
        *provider.fails.lock() = false;
        source.get().await.unwrap();
        assert_eq!(provider.asked.load(Ordering::SeqCst), 2, "who comes later asks again");
    }

    #[tokio::test]
    async fn what_has_ended_is_not_used() {
        let (provider, source) = source(Some(Duration::ZERO));
        source.get().await.unwrap();
        *provider.fails.lock() = true;
        let error = source.get().await.unwrap_err().to_string();
        assert!(error.contains("the endpoint is away") && error.contains("give its service"), "{error}");
    }

    #[test]
    fn debug_shows_no_secret() {
        let credentials = AwsCredentials::new(Credentials::new("AKIA", "very secret", Some("token".into()), None, "t"));
        let shown = format!("{credentials:?}");
        assert!(shown.contains("AKIA") && !shown.contains("secret") && !shown.contains("token"), "{shown}");
    }
}
