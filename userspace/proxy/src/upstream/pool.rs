//! Connections to the real AWS: dialled at the agent's original address, verified for the name, pooled.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chaperone_model::SessionId;
use foldhash::HashMap;
use http::{Request, Response};
use http_body::Body;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
    upgrade::Upgraded,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    connection::tunnel::is_link_local,
    http::{
        early::AnswersEarly,
        strict::{Role, Strict, Violation},
    },
    limits::Limits,
    upstream::{
        clock::Clock,
        http_proxy::HttpProxy,
        race::{HEAD_START, first_of, in_turns},
    },
};

/// Idle connections kept for one name and address.
const MAX_IDLE_PER_KEY: usize = 256;
/// How long an idle connection is kept: under the 20 s after which AWS's own front ends begin to close theirs.
const IDLE: Duration = Duration::from_secs(15);

/// Why AWS could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No TCP connection.
    #[error("connecting to {name} at {address}: {source}")]
    Connect {
        /// The name.
        name: String,
        /// Where it was tried.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate or handshake is wrong: nothing was sent.
    #[error("TLS with {name} at {address}: {source}; nothing was sent")]
    Tls {
        /// The name.
        name: String,
        /// Where it was tried.
        address: SocketAddr,
        /// What rustls said.
        source: io::Error,
    },
    /// It took too long.
    #[error("{what} {name} at {address} took longer than {} s", .after.as_secs())]
    Timeout {
        /// What was being done.
        what: &'static str,
        /// The name.
        name: String,
        /// The address.
        address: SocketAddr,
        /// The limit.
        after: Duration,
    },
    /// It answered in a way that two readers could read differently, or not at all.
    #[error("{name} at {address} answered in a way that isn't passed on: {why}")]
    Answer {
        /// The name.
        name: String,
        /// The address.
        address: SocketAddr,
        /// What is wrong with it.
        why: String,
    },
    /// The exchange broke off.
    #[error("{name} at {address}: {why}")]
    Http {
        /// The name.
        name: String,
        /// The address.
        address: SocketAddr,
        /// What hyper said, with its causes.
        why: String,
    },
}

/// Why the roots to verify AWS by can't be read.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file can't be read as certificates.
    #[error("reading the CA certificates in {path}: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Without roots nothing can be verified.
    #[error("the system's trust store has no certificates ({0}): install ca-certificates, or set upstream.ca_file")]
    None(String),
}

/// What makes two connections the same. The protocol belongs to it: an HTTP/2 connection is shared, not taken, and only by
/// calls of one session, so that no agent can slow or end another's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The name that is verified.
    pub name: Arc<str>,
    /// The address that is dialled.
    pub address: SocketAddr,
    /// Whose HTTP/2 connection it may be; without one, HTTP/1.1 is spoken.
    pub http2: Option<SessionId>,
    /// HTTP without TLS, on port 80 of an address that the name has for this host: nothing else tells who it is.
    pub plain: bool,
    /// What its certificate is verified by, where that isn't what AWS's own are.
    pub(crate) roots: Option<Arc<OwnRoots>>,
}

struct SharedConnection<B> {
    sender: http2::SendRequest<B>,
    since: Instant,
}

struct Idle<B> {
    sender: http1::SendRequest<B>,
    head: Arc<AtomicBool>,
    since: Instant,
}

/// The pool.
pub struct Upstream<B> {
    http1: TlsConnector,
    http2: TlsConnector,
    idle: Mutex<HashMap<Target, Vec<Idle<B>>>>,
    shared: Mutex<HashMap<Target, SharedConnection<B>>>,
    limits: Limits,
    /// The proxy on the way there.
    pub(crate) proxy: Option<Arc<HttpProxy>>,
    /// What time it is there.
    pub(crate) clock: Clock,
}

impl<B> std::fmt::Debug for Upstream<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").finish_non_exhaustive()
    }
}

/// The roots that AWS's certificates are verified by: the system's and those in `extra` (PEM).
///
/// The system's store holds our own CA too, which is left out: nothing upstream may be vouched for by it.
pub fn roots(extra: Option<&Path>, own: &CertificateDer<'_>) -> Result<Roots, RootsError> {
    let mut store = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    let mut certificates = Vec::new();
    for certificate in system.certs.into_iter().filter(|certificate| certificate != own) {
        // Some of the system's may be of kinds that rustls doesn't read; they vouch for nobody then.
        if store.add(certificate.clone()).is_ok() {
            certificates.push(certificate);
        }
    }
    if let Some(path) = extra {
        let broken = |why: String| RootsError::File { path: path.to_owned(), why };
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| broken(error.to_string()))? {
            let certificate = certificate.map_err(|error| broken(error.to_string()))?;
            store.add(certificate.clone()).map_err(|error| broken(error.to_string()))?;
            certificates.push(certificate);
        }
    }
    if store.is_empty() {
        let why = system.errors.first().map_or_else(|| "it is empty".to_owned(), ToString::to_string);
        return Err(RootsError::None(why));
    }
    Ok(Roots { store, certificates })
}

/// What AWS is verified by.
#[derive(Clone, Debug)]
pub struct Roots {
    store: RootCertStore,
    certificates: Vec<CertificateDer<'static>>,
}

impl Roots {
    /// Each as PEM (RFC 7468), for clients that want them so.
    pub fn pem(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.certificates.iter().map(|certificate| pem(certificate).into_bytes())
    }
}

/// A certificate as PEM.
pub(crate) fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = BASE64_STANDARD.encode(certificate);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
    let text = lines.join("\n");
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

/// Authorities that vouch for one server, as an EKS cluster's own does. Those with the same certificates are the same.
pub(crate) struct OwnRoots {
    digest: [u8; 32],
    http1: TlsConnector,
    http2: TlsConnector,
}

impl OwnRoots {
    /// Of certificates in PEM; what is wrong with them, if they are none.
    pub(crate) fn from_pem(pem: &str) -> Result<Self, String> {
        let mut store = RootCertStore::empty();
        let mut context = digest::Context::new(&digest::SHA256);
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|error| error.to_string())?;
            context.update(&certificate);
            store.add(certificate).map_err(|error| error.to_string())?;
        }
        if store.is_empty() {
            return Err("there is no certificate in it".to_owned());
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        let (http1, http2) = connectors(&store);
        Ok(Self { digest, http1, http2 })
    }
}

impl std::fmt::Debug for OwnRoots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnRoots").field("sha256", &hex::encode(self.digest)).finish_non_exhaustive()
    }
}

impl PartialEq for OwnRoots {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for OwnRoots {}

impl std::hash::Hash for OwnRoots {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

/// What makes TLS connections of HTTP/1.1, and of both, verified by these roots.
fn connectors(store: &RootCertStore) -> (TlsConnector, TlsConnector) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = |protocols: &[&[u8]]| {
        let mut config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("BUG: the provider supports TLS 1.2 and 1.3")
            .with_root_certificates(store.clone())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    };
    (config(&[b"http/1.1"]), config(&[b"h2", b"http/1.1"]))
}

/// An answer's head and body, and what to give back to the pool when the body is over.
pub struct Answer<B> {
    /// The answer.
    pub response: Response<Incoming>,
    /// Give this to [`Upstream::put_back`] after the body's end.
    pub lease: Option<Lease<B>>,
}

/// A connection that is busy with a body.
pub struct Lease<B> {
    target: Target,
    sender: http1::SendRequest<B>,
    head: Arc<AtomicBool>,
}

impl<B> Upstream<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// A pool that verifies by these roots.
    pub fn new(roots: &Roots, limits: Limits) -> Self {
        let (http1, http2) = connectors(&roots.store);
        Self {
            http1,
            http2,
            idle: Mutex::default(),
            shared: Mutex::default(),
            limits,
            proxy: None,
            clock: Clock::default(),
        }
    }

    /// By this proxy.
    #[must_use]
    pub fn by_proxy(self, proxy: Option<HttpProxy>) -> Self {
        Self { proxy: proxy.map(Arc::new), ..self }
    }

    /// By the proxy, if the way there is by one. TLS, and so the certificate, is the other side's in any case.
    async fn dial_by_proxy(&self, target: &Target, port: u16) -> Option<io::Result<TcpStream>> {
        let proxy = self.proxy.as_ref().filter(|proxy| proxy.is_for(Some(&target.name), target.address.ip()))?;
        let connected = proxy.connect(&format!("{}:{port}", target.name)).await;
        Some(connected.and_then(|(stream, said)| {
            if said.is_empty() { Ok(stream) } else { Err(io::Error::other("the other side spoke before it was asked")) }
        }))
    }

    /// Sends a request and waits for the answer's head.
    ///
    /// A pooled connection that turns out to be closed before anything was written is replaced by a new one; a request
    /// of which anything was written is never sent twice.
    pub async fn send(&self, target: &Target, mut request: Request<B>) -> Result<Answer<B>, UpstreamError> {
        let is_head = request.method() == http::Method::HEAD;
        if target.http2.is_some()
            && let Some(mut sender) = self.shared_connection(target)
        {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(Answer { response, lease: None }),
                Err(mut failed) => {
                    request = failed.take_message().ok_or_else(|| http(target, failed.error()))?;
                }
            }
        }
        let absolute = request.uri().clone();
        while let Some(mut idle) = self.take(target) {
            idle.head.store(is_head, Ordering::Release);
            if idle.sender.ready().await.is_err() {
                continue;
            }
            to_origin_form(&mut request);
            match idle.sender.try_send_request(request).await {
                Ok(response) => {
                    let lease = Lease { target: target.clone(), sender: idle.sender, head: idle.head };
                    return Ok(Answer { response, lease: Some(lease) });
                }
                Err(mut failed) => {
                    request = failed.take_message().ok_or_else(|| http(target, failed.error()))?;
                }
            }
        }
        *request.uri_mut() = absolute;
        Box::pin(self.send_on_new(target, request, is_head)).await
    }

    /// Sends a WebSocket's handshake, on a connection of its own. With an answer of the status 101 comes what the connection
    /// has become.
    pub async fn switch(
        &self,
        target: &Target,
        mut request: Request<B>,
    ) -> Result<(Response<Incoming>, Option<Upgraded>), UpstreamError> {
        let tls = self.dial(target).await?;
        to_origin_form(&mut request);
        let (mut sender, connection) = http1::Builder::new()
            .max_headers(crate::http::strict::MAX_ANSWER_FIELDS)
            .handshake(TokioIo::new(Strict::new(tls, Role::Handshake)))
            .await
            .map_err(|error| http(target, &error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        });
        let mut response = sender.send_request(request).await.map_err(|error| http(target, &error))?;
        if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok((response, None));
        }
        let upgraded = hyper::upgrade::on(&mut response).await.map_err(|error| http(target, &error))?;
        Ok((response, Some(upgraded)))
    }

    async fn dial(&self, target: &Target) -> Result<TlsStream<TcpStream>, UpstreamError> {
        let after = self.limits.connect_timeout;
        let (name, address) = (target.name.to_string(), target.address);
        let dial = async {
            let connect = |source| UpstreamError::Connect { name: name.clone(), address, source };
            let tcp = if let Some(dialled) = self.dial_by_proxy(target, target.address.port()).await {
                dialled
            } else {
                let look_up = || tokio::net::lookup_host((name.as_str(), target.address.port()));
                connect_any(target.address, look_up).await
            };
            let tcp = tcp.map_err(connect)?;
            tcp.set_nodelay(true).and_then(|()| keep_alive(&tcp)).map_err(connect)?;
            let server = ServerName::try_from(name.clone())
                .map_err(|error| connect(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
            let connector = match (&target.roots, target.http2.is_some()) {
                (None, false) => &self.http1,
                (None, true) => &self.http2,
                (Some(own), false) => &own.http1,
                (Some(own), true) => &own.http2,
            };
            connector.connect(server, tcp).await.map_err(|source| UpstreamError::Tls {
                name: name.clone(),
                address,
                source,
            })
        };
        let timed_out = |_| UpstreamError::Timeout { what: "connecting to", name: name.clone(), address, after };
        timeout(after, dial).await.map_err(timed_out)?
    }

    /// Without a certificate, the name's own addresses are all that tells whom one talks to.
    async fn dial_plain(&self, target: &Target) -> Result<TcpStream, UpstreamError> {
        const PORT: u16 = 80;
        let (after, name) = (self.limits.connect_timeout, target.name.to_string());
        let address = SocketAddr::new(target.address.ip(), PORT);
        let dial = async {
            if let Some(dialled) = self.dial_by_proxy(target, PORT).await {
                return dialled;
            }
            let found = {
                let _turn = LOOK_UPS.acquire().await;
                tokio::net::lookup_host((name.as_str(), PORT)).await?
            };
            let mut own: Vec<SocketAddr> = found.filter(|it| !is_link_local(it.ip())).collect();
            own.sort_by_key(|it| it.ip() != address.ip());
            let attempts = in_turns(own).into_iter().take(MAX_OTHERS).map(TcpStream::connect).collect();
            let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address that is dialled");
            let stream = first_of(None, attempts).await.unwrap_or_else(|| Err(none()))?;
            stream.set_nodelay(true).and_then(|()| keep_alive(&stream)).map(|()| stream)
        };
        match timeout(after, dial).await {
            Ok(dialled) => dialled.map_err(|source| UpstreamError::Connect { name: name.clone(), address, source }),
            Err(_) => Err(UpstreamError::Timeout { what: "connecting to", name: name.clone(), address, after }),
        }
    }

    async fn send_on_new(
        &self,
        target: &Target,
        request: Request<B>,
        is_head: bool,
    ) -> Result<Answer<B>, UpstreamError> {
        if target.plain {
            let tcp = self.dial_plain(target).await?;
            return self.send_over_http1(target, tcp, request, is_head).await;
        }
        let tls = self.dial(target).await?;
        if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
            let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(self.limits.http2_window)
                .initial_connection_window_size(self.limits.http2_window * 4)
                .max_header_list_size(self.limits.http2_header_bytes)
                .keep_alive_interval(Some(Duration::from_secs(30)))
                .handshake(TokioIo::new(tls))
                .await
                .map_err(|error| http(target, &error))?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "an upstream HTTP/2 connection ended");
                }
            });
            let shared = SharedConnection { sender: sender.clone(), since: Instant::now() };
            self.shared.lock().insert(target.clone(), shared);
            let response = sender.send_request(request).await.map_err(|error| http(target, &error))?;
            return Ok(Answer { response, lease: None });
        }
        self.send_over_http1(target, tls, request, is_head).await
    }

    async fn send_over_http1<S>(
        &self,
        target: &Target,
        stream: S,
        mut request: Request<B>,
        is_head: bool,
    ) -> Result<Answer<B>, UpstreamError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        to_origin_form(&mut request);
        let head = Arc::new(AtomicBool::new(is_head));
        let strict = Strict::new(AnswersEarly::new(stream), Role::Answers(head.clone()));
        let (mut sender, connection) = http1::Builder::new()
            .preserve_header_case(false)
            .max_headers(crate::http::strict::MAX_ANSWER_FIELDS)
            .handshake(TokioIo::new(strict))
            .await
            .map_err(|error| http(target, &error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        });
        let response = sender.send_request(request).await.map_err(|error| http(target, &error))?;
        Ok(Answer { response, lease: Some(Lease { target: target.clone(), sender, head }) })
    }

    /// Gives a connection back whose answer has been read to its end.
    pub fn put_back(&self, lease: Lease<B>) {
        if lease.sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock();
        let kept = idle.entry(lease.target).or_default();
        if kept.len() < MAX_IDLE_PER_KEY {
            kept.push(Idle { sender: lease.sender, head: lease.head, since: Instant::now() });
        }
    }

    /// Closes connections that have been idle too long; called now and then.
    pub fn sweep(&self) {
        self.idle.lock().retain(|_, kept| {
            kept.retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < IDLE);
            !kept.is_empty()
        });
        // What is under way on it is carried to its end.
        self.shared.lock().retain(|_, shared| !shared.sender.is_closed() && shared.since.elapsed() < IDLE);
    }

    fn take(&self, target: &Target) -> Option<Idle<B>> {
        let mut idle = self.idle.lock();
        let kept = idle.get_mut(target)?;
        // The latest first: it is the least likely to have been closed by the other side.
        while let Some(idle) = kept.pop() {
            if !idle.sender.is_closed() && idle.since.elapsed() < IDLE {
                return Some(idle);
            }
        }
        None
    }

    fn shared_connection(&self, target: &Target) -> Option<http2::SendRequest<B>> {
        let mut shared = self.shared.lock();
        let shared = shared.get_mut(target).filter(|shared| !shared.sender.is_closed())?;
        shared.since = Instant::now();
        Some(shared.sender.clone())
    }
}

fn http(target: &Target, error: &hyper::Error) -> UpstreamError {
    let (name, address, why) = (target.name.to_string(), target.address, chaperone_model::with_causes(error));
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let violation = inner.and_then(|inner| inner.downcast_ref::<Violation>());
        if violation.is_some() || error.is::<Violation>() {
            return UpstreamError::Answer { name, address, why };
        }
        cause = error.source();
    }
    if error.is_parse() {
        return UpstreamError::Answer { name, address, why };
    }
    UpstreamError::Http { name, address, why }
}

/// Look-ups for that at once.
static LOOK_UPS: Semaphore = Semaphore::const_new(8);
/// How many of a name's other addresses are tried.
const MAX_OTHERS: usize = 4;

type Attempt = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// Connects to the agent's address, or to another one of the name's own where that doesn't answer. Clients that dial by
/// themselves go on to the next address, which a captured one can't: its connection is always accepted here.
async fn connect_any<I, F>(address: SocketAddr, look_up: impl FnOnce() -> F) -> io::Result<TcpStream>
where
    I: Iterator<Item = SocketAddr>,
    F: Future<Output = io::Result<I>>,
{
    let mut first = Box::pin(TcpStream::connect(address));
    let refused = match timeout(HEAD_START, &mut first).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => Some(error),
        Err(_) => None,
    };
    // What can't be resolved has no others.
    let found = {
        // Names are the agents' to choose, and looking one up takes a thread as long as its resolver likes.
        let _turn = LOOK_UPS.acquire().await;
        look_up().await
    };
    let mut others: Vec<SocketAddr> = Vec::new();
    // Its own family's last: to that there may be no way.
    let (own, other): (Vec<_>, Vec<_>) = found.into_iter().flatten().partition(|it| it.is_ipv4() == address.is_ipv4());
    for other in in_turns(other.into_iter().chain(own)) {
        if others.len() < MAX_OTHERS && other != address && !others.contains(&other) {
            others.push(other);
        }
    }
    let others = others.into_iter().map(|other| Box::pin(TcpStream::connect(other)) as Attempt).collect();
    let begun = refused.is_none().then_some(first as Attempt);
    match (first_of(begun, others).await, refused) {
        (Some(Ok(stream)), _) => Ok(stream),
        // What the agent's own address said is what is told.
        (_, Some(refused)) => Err(refused),
        (Some(Err(error)), None) => Err(error),
        (None, None) => Err(io::ErrorKind::NotConnected.into()),
    }
}

/// A peer that is gone without a word is noticed within some 11 seconds, however long an answer may take.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let probes = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(2))
        .with_retries(3);
    socket2::SockRef::from(stream).set_tcp_keepalive(&probes)
}

/// HTTP/1.1 has the host in its field, and in the target the path alone (RFC 9112, 3.2.1); hyper writes what it is given.
fn to_origin_form<B>(request: &mut Request<B>) {
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = path.into();
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, convert::Infallible};

    use chaperone_authority::CertificateAuthority;
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};
    use hyper::service::service_fn;
    use hyper_util::server::conn::auto::Builder;
    use rustls::server::{ClientHello, ResolvesServerCert};
    use tokio::{net::TcpListener, sync::Notify};
    use tokio_rustls::TlsAcceptor;

    use super::*;

    type Empty = http_body_util::Full<Bytes>;

    #[derive(Debug)]
    struct Leaves(CertificateAuthority);

    impl ResolvesServerCert for Leaves {
        fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
            self.0.leaf(hello.server_name()?).ok()
        }
    }

    /// A server of both protocols, whose answers are `data` and an empty frame after it, and which counts connections.
    /// An answer to `/held` is begun, and goes on when `Notify` says so.
    struct Other {
        address: SocketAddr,
        upstream: Upstream<Empty>,
        accepted: Arc<std::sync::atomic::AtomicUsize>,
        held: Arc<Notify>,
    }

    async fn other() -> Other {
        let folder = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::create(folder.path(), &["example.com".to_owned()]).unwrap();
        let mut roots = Roots { store: RootCertStore::empty(), certificates: Vec::new() };
        roots.store.add(authority.certificate().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Leaves(authority)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::<std::sync::atomic::AtomicUsize>::default();
        let held = Arc::new(Notify::new());
        let (count, hold) = (accepted.clone(), held.clone());
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let (acceptor, hold) = (acceptor.clone(), hold.clone());
                tokio::spawn(async move {
                    let tls = acceptor.accept(tcp).await.unwrap();
                    let service = service_fn(move |request: Request<Incoming>| {
                        let hold = (request.uri().path() == "/held").then(|| hold.clone());
                        async move { Ok::<_, Infallible>(Response::new(StreamBody::new(answer(hold)))) }
                    });
                    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(tls), service).await;
                });
            }
        });
        Other { address, upstream: Upstream::new(&roots, Limits::default()), accepted, held }
    }

    fn answer(hold: Option<Arc<Notify>>) -> impl futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> {
        let frames = VecDeque::from([Bytes::from_static(b"data"), Bytes::new()]);
        futures_util::stream::unfold((frames, hold), |(mut frames, mut hold)| async move {
            let frame = frames.pop_front()?;
            if frame.is_empty()
                && let Some(hold) = hold.take()
            {
                hold.notified().await;
            }
            Some((Ok(Frame::data(frame)), (frames, hold)))
        })
    }

    impl Other {
        async fn send(&self, http2: Option<SessionId>, path: &str) -> Result<Answer<Empty>, UpstreamError> {
            let target =
                Target { name: "a.example.com".into(), address: self.address, http2, plain: false, roots: None };
            let mut request = Request::get(format!("https://a.example.com{path}"));
            request = request.header("host", "a.example.com");
            if http2.is_some() {
                request = request.version(http::Version::HTTP_2);
            }
            self.upstream.send(&target, request.body(Empty::default()).unwrap()).await
        }

        /// How many answers come whole, one after another, until one doesn't.
        async fn whole(&self, http2: Option<SessionId>, most: usize) -> usize {
            for n in 0..most {
                let Ok(Answer { response, lease }) = self.send(http2, "/").await else { return n };
                let Ok(body) = response.into_body().collect().await else { return n };
                assert_eq!(body.to_bytes(), "data");
                if let Some(lease) = lease {
                    self.upstream.put_back(lease);
                }
            }
            most
        }
    }

    #[tokio::test]
    async fn where_the_agents_address_refuses_another_one_of_the_names_is_tried() {
        let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let other = listener.local_addr().unwrap();
        let stream = connect_any(refusing, async || Ok([refusing, other].into_iter())).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), other);
        // Without another one, what the agent's own said is what is told.
        for others in [vec![], vec![refusing]] {
            let error = connect_any(refusing, async || Ok(others.into_iter())).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
        let unknown = async || Err::<std::vec::IntoIter<_>, _>(io::Error::other("no such name"));
        assert_eq!(connect_any(refusing, unknown).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    /// Why nothing goes over HTTP/2 that needn't.
    #[tokio::test]
    async fn empty_frames_end_an_http2_connection_and_not_an_http1_one() {
        let other = other().await;
        assert_eq!(other.whole(None, 250).await, 250);
        let whole = other.whole(Some(SessionId::new()), 250).await;
        assert!(whole < 250, "h2 has no such limit any more: what is said at `needs_http2` isn't true");
    }

    #[tokio::test]
    async fn an_http2_connection_is_shared_by_the_calls_of_one_session_only() {
        let other = other().await;
        let (one, another) = (SessionId::new(), SessionId::new());
        assert_eq!(other.whole(Some(one), 5).await, 5);
        assert_eq!(other.accepted.load(Ordering::SeqCst), 1);
        assert_eq!(other.whole(Some(another), 5).await, 5);
        assert_eq!(other.accepted.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn an_http2_connection_that_is_dropped_from_the_pool_ends_its_calls_first() {
        let other = other().await;
        let session = Some(SessionId::new());
        let mut held = other.send(session, "/held").await.unwrap().response.into_body();
        assert_eq!(held.frame().await.unwrap().unwrap().into_data().unwrap(), "data");
        for shared in other.upstream.shared.lock().values_mut() {
            shared.since = Instant::now().checked_sub(IDLE).unwrap();
        }
        other.upstream.sweep();
        assert!(other.upstream.shared.lock().is_empty());
        assert_eq!(other.whole(session, 1).await, 1);
        assert_eq!(other.accepted.load(Ordering::SeqCst), 2, "the next call has a connection of its own");
        other.held.notify_one();
        let rest = held.collect().await.unwrap().to_bytes();
        assert!(rest.is_empty(), "and the old one's answer came to its end");
    }
}
