//! The listener, its TLS, and what is where.

use std::{
    collections::HashMap,
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Extension, Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode},
    middleware,
    routing::{get, post},
};
use bytes::Bytes;
use chaperone_oidc::{RelyingParty, Verifier};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
    time::{Instant, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::{
    Backend, Slack, api, config::ApiSection, guard, limits::Limits, openapi, page, sealed::Seal, sessions::Sessions,
    sign_in, types::Problem,
};

/// Connections at once; more wait.
const MOST_CONNECTIONS: usize = 512;
/// Of one address; more are closed.
const MOST_OF_ONE: usize = 64;
/// For a TLS handshake, and for a request's head, also between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// For a connection as a whole.
const LIFE: Duration = Duration::from_mins(10);
/// The longest head.
const MOST_HEAD: usize = 64 << 10;
/// The longest body: an answer with its reason.
const MOST_BODY: usize = 64 << 10;
/// How often it is looked whether the certificate was renewed.
const LOOK: Duration = Duration::from_secs(10);

/// Why the API can't be served.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {why}")]
pub struct ApiError {
    /// The configuration's key below `approvals.api` that it is about.
    pub key: &'static str,
    /// What is wrong, and what to do.
    pub why: String,
}

fn error(key: &'static str) -> impl FnOnce(String) -> ApiError {
    move |why| ApiError { key, why }
}

/// What handlers share.
pub(crate) struct App {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) origin: String,
    pub(crate) behind_proxy: bool,
    pub(crate) session: Duration,
    pub(crate) provider: Option<RelyingParty>,
    pub(crate) bearers: Verifier,
    pub(crate) sessions: Sessions,
    pub(crate) seal: Seal,
    /// All requests, by address.
    pub(crate) requests: Limits<IpAddr>,
    /// Sign-ins, and tokens that were refused, by address.
    pub(crate) attempts: Limits<IpAddr>,
    /// All requests, by person.
    pub(crate) people: Limits<String>,
    /// Answers, by person.
    pub(crate) answers: Limits<String>,
    /// Where buttons are pressed, if that comes here.
    pub(crate) slack: Option<Arc<Slack>>,
}

/// The approvers' API, with everything of it that is in files read, and not yet served.
pub struct Api {
    origin: String,
    behind_proxy: bool,
    session: Duration,
    provider: Option<RelyingParty>,
    bearers: Verifier,
    listen: SocketAddr,
    tls: Option<Tls>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("listen", &self.listen).finish_non_exhaustive()
    }
}

impl Api {
    /// One for a configuration that was checked. Reads its files.
    pub fn new(section: &ApiSection) -> Result<Self, ApiError> {
        let origin = section.origin().map_err(error("url"))?;
        let tls = match (&section.certificate, &section.key) {
            (Some(certificate), Some(key)) => Some(Tls::new(certificate.clone(), key.clone())?),
            _ => None,
        };
        let back = format!("{origin}/sign-in/callback");
        let provider = section.sign_in.clone().map(|about| RelyingParty::new(about, back)).transpose();
        Ok(Self {
            origin,
            behind_proxy: section.insecure_loopback,
            session: Duration::from_secs(section.session * 60),
            provider: provider.map_err(error("sign_in"))?,
            bearers: Verifier::new(section.issuers.clone()).map_err(error("issuers"))?,
            listen: section.listen,
            tls,
        })
    }

    /// Listens, and gives what serves until it is dropped, and the address.
    pub async fn serve(
        self,
        backend: Arc<dyn Backend>,
        slack: Option<Arc<Slack>>,
    ) -> Result<(impl Future<Output = ()> + Send, SocketAddr), ApiError> {
        let failed = |what: io::Error| ApiError { key: "listen", why: format!("listening on {}: {what}", self.listen) };
        let listener = TcpListener::bind(self.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (app, tls) = self.app(backend, slack);
        let behind_proxy = app.behind_proxy;
        Ok((accept(listener, router(app), tls, behind_proxy), address))
    }

    fn app(self, backend: Arc<dyn Backend>, slack: Option<Arc<Slack>>) -> (Arc<App>, Option<Tls>) {
        let minute = Duration::from_mins(1);
        let app = App {
            backend,
            origin: self.origin,
            behind_proxy: self.behind_proxy,
            session: self.session,
            provider: self.provider,
            bearers: self.bearers,
            sessions: Sessions::new(self.session),
            seal: Seal::new(),
            requests: Limits::new(600, minute),
            attempts: Limits::new(20, minute),
            people: Limits::new(300, minute),
            answers: Limits::new(30, minute),
            slack: slack.filter(|slack| slack.has_callback()),
        };
        (Arc::new(app), self.tls)
    }
}

pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/app.js", get(page::script))
        .route("/style.css", get(page::style))
        .route("/openapi.json", get(openapi::serve))
        .route("/sign-in", get(sign_in::begin))
        .route("/sign-in/callback", get(sign_in::back))
        .route("/api/v1/me", get(api::me))
        .route("/api/v1/sign-out", post(api::sign_out))
        .route("/api/v1/questions", get(api::list))
        .route("/api/v1/questions/{id}", get(api::show))
        .route("/api/v1/questions/{id}/approve", post(api::approve))
        .route("/api/v1/questions/{id}/deny", post(api::deny))
        .route("/slack/interactions", post(slack_pressed))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "not-found", "there is nothing here; see /openapi.json"))
        .method_not_allowed_fallback(async || {
            let why = "this can't be done with it; see /openapi.json";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", why)
        })
        .layer(DefaultBodyLimit::max(MOST_BODY))
        .layer(middleware::from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}

/// What somebody pressed in Slack. Slack waits for three seconds, so that it is done later.
async fn slack_pressed(
    State(app): State<Arc<App>>,
    Extension(guard::Address(address)): Extension<guard::Address>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(), Problem> {
    let nothing = || Problem::new(StatusCode::NOT_FOUND, "not-found", "there is nothing here; see /openapi.json");
    let slack = app.slack.as_ref().ok_or_else(nothing)?;
    slack.callback(&app.backend, &headers, &body).map_err(|why| {
        tracing::warn!(%address, why, "a request that claims to be Slack's is refused");
        Problem::new(StatusCode::UNAUTHORIZED, "signature", why)
    })
}

async fn accept(listener: TcpListener, router: Router, tls: Option<Tls>, behind_proxy: bool) {
    let (tls, connections) = (tls.map(Arc::new), Arc::new(Semaphore::new(MOST_CONNECTIONS)));
    let of_one = Arc::new(Mutex::new(HashMap::<IpAddr, usize>::new()));
    while let Ok(permit) = connections.clone().acquire_owned().await {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::error!(%error, "accepting an approver's connection failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let place = Place::take(&of_one, crate::limits::network(peer.ip()));
        // All who come by a proxy have its address.
        if !behind_proxy && place.count > MOST_OF_ONE {
            continue;
        }
        let (router, tls) = (router.clone(), tls.clone());
        tokio::spawn(async move {
            let _held = (permit, place);
            let served = timeout(LIFE, async {
                let Some(tls) = tls else { return serve(stream, peer, router).await };
                match timeout(HEAD_TIMEOUT, TlsAcceptor::from(tls.current()).accept(stream)).await {
                    Ok(Ok(stream)) => serve(stream, peer, router).await,
                    Ok(Err(error)) => tracing::debug!(%error, %peer, "an approver's handshake failed"),
                    Err(_) => tracing::debug!(%peer, "an approver's handshake took too long"),
                }
            });
            if served.await.is_err() {
                tracing::debug!(%peer, "an approver's connection took too long");
            }
        });
    }
}

/// A connection, as it is counted for its address.
struct Place {
    all: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
    count: usize,
}

impl Place {
    fn take(all: &Arc<Mutex<HashMap<IpAddr, usize>>>, address: IpAddr) -> Self {
        let mut counts = all.lock();
        let count = counts.entry(address).or_default();
        *count += 1;
        Self { all: all.clone(), address, count: *count }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.all.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: SocketAddr, router: Router) {
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(guard::Peer(peer));
        router.clone().oneshot(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MOST_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, %peer, "an approver's connection ended");
    }
}

/// The certificate, which is read again when its file changes: whoever renews it needn't restart the daemon.
struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: Mutex<(Arc<ServerConfig>, Option<SystemTime>, Instant)>,
}

impl Tls {
    fn new(certificate: PathBuf, key: PathBuf) -> Result<Self, ApiError> {
        let config = read(&certificate, &key)?;
        let current = Mutex::new((config, changed(&certificate), Instant::now()));
        Ok(Self { certificate, key, current })
    }

    fn current(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock();
        let (config, stamp, looked) = &mut *current;
        if looked.elapsed() >= LOOK {
            *looked = Instant::now();
            let now = changed(&self.certificate);
            if now != *stamp {
                match read(&self.certificate, &self.key) {
                    Ok(renewed) => (*config, *stamp) = (renewed, now),
                    Err(error) => {
                        tracing::error!(%error, "the approvals' certificate changed and can't be used; the old one stays");
                    }
                }
            }
        }
        config.clone()
    }
}

fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|about| about.modified()).ok()
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, ApiError> {
    let of_certificate =
        |why: String| ApiError { key: "certificate", why: format!("{}: {why}", certificate.display()) };
    let text = fs::read(certificate).map_err(|error| of_certificate(error.to_string()))?;
    let all = pem::parse_many(text).map_err(|error| of_certificate(error.to_string()))?;
    let chain: Vec<_> = all
        .into_iter()
        .filter(|one| one.tag() == "CERTIFICATE")
        .map(|one| CertificateDer::from(one.into_contents()))
        .collect();
    if chain.is_empty() {
        return Err(of_certificate("there is no certificate (PEM) in it".into()));
    }
    let of_key = |why: String| ApiError { key: "key", why: format!("{}: {why}", key.display()) };
    let text = chaperone_oidc::secret(key).map_err(error("key"))?;
    let one = pem::parse(text).map_err(|error| of_key(error.to_string()))?;
    let private = PrivateKeyDer::try_from(one.into_contents()).map_err(|why| of_key(why.to_owned()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| of_certificate(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| of_certificate(error.to_string()))?;
    Ok(Arc::new(config))
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
