//! Serving the control socket and the metrics.

use std::{
    convert::Infallible,
    fs, io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    time::timeout,
};

use crate::metrics::{Metric, encode};

/// A control request's body is a few names.
const MAX_REQUEST_BYTES: usize = 64 << 10;

/// A request's head: what hyper reads before it gives up.
const MAX_HEAD_BYTES: usize = 16 << 10;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections to the metrics at once. Any process of the host can make them; more wait.
const MAX_SCRAPES: usize = 32;
/// For one of them, from its beginning to its end: one that asks nothing, or doesn't read the answer, keeps nobody out.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a new agent shall run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The session that began.
    pub session: String,
    /// The agent's name.
    pub agent: String,
    /// The cgroup's folder: the agent's processes belong there before they do anything.
    pub cgroup: PathBuf,
    /// Variables that clients with a trust store of their own need.
    pub environment: Vec<(String, String)>,
}

/// What the control API asks of the daemon. Errors are for people.
pub trait Backend: Send + Sync + 'static {
    /// What is enrolled, and by which rule.
    fn agents(&self) -> Result<serde_json::Value, String>;
    /// How the daemon is.
    fn status(&self) -> serde_json::Value;
    /// A cgroup and a session for a new process of this agent.
    fn grant(&self, agent: &str) -> impl Future<Output = Result<Launch, String>> + Send;
    /// Waits until what happened before is in the journal's segments, where commands read it.
    fn catch_up(&self) -> impl Future<Output = Result<(), String>> + Send;
    /// Reads configuration and policies again.
    fn reload(&self) -> Result<String, String>;
    /// All metrics, read now.
    fn metrics(&self) -> Vec<Metric>;
}

/// Why the console can't be served.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {place}: {source}")]
pub struct ConsoleError {
    doing: &'static str,
    place: String,
    source: io::Error,
}

pub(crate) fn error(doing: &'static str, place: &Path) -> impl FnOnce(io::Error) -> ConsoleError {
    let place = place.display().to_string();
    move |source| ConsoleError { doing, place, source }
}

/// Opens the control socket, 0600 in a folder that is 0755 at most. What an earlier daemon left is replaced: that no
/// other daemon runs, the journal's lock has shown.
pub fn serve_control<B: Backend>(
    path: &Path,
    backend: Arc<B>,
) -> Result<impl Future<Output = ()> + Send + use<B>, ConsoleError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(folder);
    made.map_err(error("making the folder of the control socket", folder))?;
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(error("replacing the control socket", path)(source));
        }
        _ => {}
    }
    // Between bind and chmod the socket has the umask's mode: bind under another name, which nobody knows yet.
    let hidden = folder.join(format!(".{}-{}", path.file_name().unwrap_or_default().display(), std::process::id()));
    let _ = fs::remove_file(&hidden);
    let listener = UnixListener::bind(&hidden).map_err(error("opening the control socket", path))?;
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o600))
        .map_err(error("restricting the control socket", path))?;
    fs::rename(&hidden, path).map_err(error("naming the control socket", path))?;
    Ok(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let root = stream.peer_cred().is_ok_and(|peer| peer.uid() == 0);
                    if root {
                        tokio::spawn(serve(stream, backend.clone(), true));
                    }
                }
                Err(error) => pause(&error).await,
            }
        }
    })
}

/// Opens the metrics' address.
pub async fn serve_metrics<B: Backend>(
    address: SocketAddr,
    backend: Arc<B>,
) -> Result<impl Future<Output = ()> + Send + use<B>, ConsoleError> {
    let failed = |source| ConsoleError { doing: "listening for metrics on", place: address.to_string(), source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    Ok(answer_scrapes(listener, backend))
}

async fn answer_scrapes<B: Backend>(listener: TcpListener, backend: Arc<B>) {
    let scrapes = Arc::new(Semaphore::new(MAX_SCRAPES));
    while let Ok(permit) = scrapes.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let served = timeout(SCRAPE_TIMEOUT, serve(stream, backend.clone(), false));
                tokio::spawn(async move {
                    let _permit = permit;
                    if served.await.is_err() {
                        tracing::debug!("a connection to the metrics took too long");
                    }
                });
            }
            Err(error) => pause(&error).await,
        }
    }
}

/// Out of files or memory: keeps the loop from spinning.
async fn pause(error: &io::Error) {
    tracing::error!(%error, "accepting a console connection failed");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn serve<S, B>(stream: S, backend: Arc<B>, control: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Backend,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let backend = backend.clone();
        async move {
            let response =
                if control { answer_control(&*backend, request).await } else { answer_metrics(&*backend, &request) };
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .keep_alive(control)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a console connection ended");
    }
}

fn answer_metrics<B: Backend>(backend: &B, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if (request.method(), request.uri().path()) != (&Method::GET, "/metrics") {
        return text(StatusCode::NOT_FOUND, "only GET /metrics is here\n".into());
    }
    match encode(backend.metrics()) {
        Ok(body) => {
            let mut response = text(StatusCode::OK, body);
            let kind = http::HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("BUG: encoding metrics: {error}\n")),
    }
}

async fn answer_control<B: Backend>(backend: &B, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    match (parts.method.as_str(), parts.uri.path()) {
        ("GET", "/v1/agents") => match backend.agents() {
            Ok(agents) => json(&agents),
            Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, why),
        },
        ("GET", "/v1/status") => json(&backend.status()),
        ("POST", "/v1/reload") => match backend.reload() {
            Ok(said) => json(&serde_json::json!({ "reloaded": said })),
            Err(why) => text(StatusCode::CONFLICT, why),
        },
        ("POST", "/v1/journal/catch-up") => match backend.catch_up().await {
            Ok(()) => json(&serde_json::json!({})),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
        },
        ("POST", "/v1/grants") => {
            let Ok(bytes) = Limited::new(body, MAX_REQUEST_BYTES).collect().await else {
                return text(StatusCode::BAD_REQUEST, "the request's body is too large or broke off".into());
            };
            match serde_json::from_slice::<Wanted>(&bytes.to_bytes()) {
                Err(error) => text(StatusCode::BAD_REQUEST, error.to_string()),
                Ok(wanted) => match backend.grant(&wanted.agent).await {
                    Ok(grant) => json(&grant),
                    Err(why) => text(StatusCode::CONFLICT, why),
                },
            }
        }
        _ => text(StatusCode::NOT_FOUND, "no such control call".into()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    agent: String,
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(bytes) => Response::new(Full::new(bytes.into())),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("BUG: {error}")),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        time::Instant,
    };

    use super::*;

    struct Nothing;

    impl Backend for Nothing {
        fn agents(&self) -> Result<serde_json::Value, String> {
            Err(String::new())
        }
        fn status(&self) -> serde_json::Value {
            serde_json::Value::Null
        }
        async fn grant(&self, _: &str) -> Result<Launch, String> {
            Err(String::new())
        }
        async fn catch_up(&self) -> Result<(), String> {
            Err(String::new())
        }
        fn reload(&self) -> Result<String, String> {
            Err(String::new())
        }
        fn metrics(&self) -> Vec<Metric> {
            Vec::new()
        }
    }

    async fn metrics() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(answer_scrapes(listener, Arc::new(Nothing)));
        address
    }

    async fn ask(stream: &mut TcpStream, head: &str) -> String {
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A reset is an end, too.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    const SCRAPE: &str = "GET /metrics HTTP/1.1\r\nhost: daemon\r\n\r\n";

    #[tokio::test(start_paused = true)]
    async fn connections_that_ask_nothing_keep_nobody_from_the_metrics_for_long() {
        let address = metrics().await;
        let mut idle = Vec::new();
        for _ in 0..MAX_SCRAPES {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let began = Instant::now();
        let answer = ask(&mut TcpStream::connect(address).await.unwrap(), SCRAPE).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("# EOF\n"), "{answer}");
        assert!(began.elapsed() >= SCRAPE_TIMEOUT, "it waited for one of the others to end");
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_has_no_answer_of_the_metrics() {
        let address = metrics().await;
        let long = format!(
            "{}x: {}\r\n\r\n",
            SCRAPE.trim_end_matches("\r\n").to_owned() + "\r\n",
            "x".repeat(2 * MAX_HEAD_BYTES)
        );
        let answer = ask(&mut TcpStream::connect(address).await.unwrap(), &long).await;
        assert!(!answer.contains("200 OK"), "{answer}");
    }
}
