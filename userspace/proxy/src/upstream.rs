//! Connections to the real AWS: dialled at the agent's original address, verified for the name, pooled.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use foldhash::HashMap;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{
    body::Outgoing,
    limits::Limits,
    strict::{Role, Strict},
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

/// What makes two connections the same. The protocol belongs to it: an HTTP/2 connection is shared, not taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The name that is verified.
    pub name: Arc<str>,
    /// The address that is dialled.
    pub address: SocketAddr,
    /// Whether HTTP/2 may be spoken.
    pub http2: bool,
}

struct Idle {
    sender: http1::SendRequest<Outgoing>,
    head: Arc<AtomicBool>,
    since: Instant,
}

/// The pool.
pub struct Upstream {
    http1: TlsConnector,
    http2: TlsConnector,
    idle: Mutex<HashMap<Target, Vec<Idle>>>,
    shared: Mutex<HashMap<Target, http2::SendRequest<Outgoing>>>,
    limits: Limits,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").finish_non_exhaustive()
    }
}

/// The roots that AWS's certificates are verified by: the system's and those in `extra` (PEM).
///
/// The system's store holds our own CA too, which is left out: nothing upstream may be vouched for by it.
pub fn roots(extra: Option<&Path>, own: &CertificateDer<'_>) -> Result<RootCertStore, RootsError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    let ours = |certificate: &CertificateDer<'_>| certificate == own;
    roots.add_parsable_certificates(system.certs.into_iter().filter(|certificate| !ours(certificate)));
    if let Some(path) = extra {
        let broken = |why: String| RootsError::File { path: path.to_owned(), why };
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| broken(error.to_string()))? {
            let certificate = certificate.map_err(|error| broken(error.to_string()))?;
            roots.add(certificate).map_err(|error| broken(error.to_string()))?;
        }
    }
    if roots.is_empty() {
        let why = system.errors.first().map_or_else(|| "it is empty".to_owned(), ToString::to_string);
        return Err(RootsError::None(why));
    }
    Ok(roots)
}

/// An answer's head and body, and what to give back to the pool when the body is over.
pub struct Answer {
    /// The answer.
    pub response: Response<Incoming>,
    /// Give this to [`Upstream::put_back`] after the body's end.
    pub lease: Option<Lease>,
}

/// A connection that is busy with a body.
pub struct Lease {
    target: Target,
    sender: http1::SendRequest<Outgoing>,
    head: Arc<AtomicBool>,
}

impl Upstream {
    /// A pool that verifies by these roots.
    pub fn new(roots: &RootCertStore, limits: Limits) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = |protocols: &[&[u8]]| {
            let mut config = ClientConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .expect("BUG: the provider supports TLS 1.2 and 1.3")
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            TlsConnector::from(Arc::new(config))
        };
        Self {
            http1: config(&[b"http/1.1"]),
            http2: config(&[b"h2", b"http/1.1"]),
            idle: Mutex::default(),
            shared: Mutex::default(),
            limits,
        }
    }

    /// Sends a request and waits for the answer's head.
    ///
    /// A pooled connection that turns out to be closed before anything was written is replaced by a new one; a request
    /// of which anything was written is never sent twice.
    pub async fn send(&self, target: &Target, mut request: Request<Outgoing>) -> Result<Answer, UpstreamError> {
        let is_head = request.method() == http::Method::HEAD;
        if target.http2
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
        self.send_on_new(target, request, is_head).await
    }

    async fn send_on_new(
        &self,
        target: &Target,
        mut request: Request<Outgoing>,
        is_head: bool,
    ) -> Result<Answer, UpstreamError> {
        let after = self.limits.connect_timeout;
        let (name, address) = (target.name.to_string(), target.address);
        let dial = async {
            let connect = |source| UpstreamError::Connect { name: name.clone(), address, source };
            let tcp = TcpStream::connect(target.address).await.map_err(connect)?;
            tcp.set_nodelay(true).map_err(connect)?;
            let server = ServerName::try_from(name.clone())
                .map_err(|error| connect(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
            let connector = if target.http2 { &self.http2 } else { &self.http1 };
            connector.connect(server, tcp).await.map_err(|source| UpstreamError::Tls {
                name: name.clone(),
                address,
                source,
            })
        };
        let timed_out = |_| UpstreamError::Timeout { what: "connecting to", name: name.clone(), address, after };
        let tls = timeout(after, dial).await.map_err(timed_out)??;
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
            self.shared.lock().insert(target.clone(), sender.clone());
            let response = sender.send_request(request).await.map_err(|error| http(target, &error))?;
            return Ok(Answer { response, lease: None });
        }
        to_origin_form(&mut request);
        let head = Arc::new(AtomicBool::new(is_head));
        let strict = Strict::new(tls, Role::Answers(head.clone()));
        let (mut sender, connection) = http1::Builder::new()
            .preserve_header_case(false)
            .max_headers(crate::strict::MAX_FIELDS)
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
    pub fn put_back(&self, lease: Lease) {
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
        self.shared.lock().retain(|_, sender| !sender.is_closed());
    }

    fn take(&self, target: &Target) -> Option<Idle> {
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

    fn shared_connection(&self, target: &Target) -> Option<http2::SendRequest<Outgoing>> {
        let shared = self.shared.lock();
        shared.get(target).filter(|sender| !sender.is_closed()).cloned()
    }
}

fn http(target: &Target, error: &hyper::Error) -> UpstreamError {
    UpstreamError::Http { name: target.name.to_string(), address: target.address, why: with_causes(error) }
}

/// HTTP/1.1 has the host in its field, and in the target the path alone (RFC 9112, 3.2.1); hyper writes what it is given.
fn to_origin_form(request: &mut Request<Outgoing>) {
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = path.into();
    }
}

/// An error's text with all of its causes: hyper's own says little.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
