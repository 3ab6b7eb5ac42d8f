//! Serving the control socket and the metrics.

use std::{
    convert::Infallible,
    fs, io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    time::timeout,
};

use crate::{
    actor::Actor,
    api::{ControlError, ControlRequest, ControlResponse, ErrorCode},
    metrics::{Metric, encode},
};

/// A control request's body is a few names.
const MAX_REQUEST_BYTES: usize = 64 << 10;

/// A request's head: what hyper reads before it gives up.
const MAX_HEAD_BYTES: usize = 16 << 10;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long who asked for something urgent waits for its record.
const URGENT: Duration = Duration::from_secs(5);
/// Connections to the metrics at once. Any process of the host can make them; more wait.
const MAX_SCRAPES: usize = 32;
/// For one of them, from its beginning to its end: one that asks nothing, or doesn't read the answer, keeps nobody out.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where all requests go.
pub(crate) const PATH: &str = "/v1/control";

/// The daemon, as far as the console is concerned.
pub trait Backend: Send + Sync + 'static {
    /// Does what is asked. Acts were recorded before, but for urgent ones.
    fn handle(
        &self,
        actor: &Actor,
        request: ControlRequest,
    ) -> impl Future<Output = Result<ControlResponse, ControlError>> + Send;
    /// Records that somebody asks for an act, durably; or, with `refused`, that it wasn't done.
    fn record(
        &self,
        actor: &Actor,
        request: &ControlRequest,
        refused: Option<&ControlError>,
    ) -> impl Future<Output = Result<(), String>> + Send;
    /// All metrics, read now.
    fn metrics(&self) -> Vec<Metric>;
}

/// Does what `actor` asks, if it may, and records acts: that they are asked for before they are done, since what can't be
/// recorded isn't done, and why, if they aren't. What is urgent is done first.
pub async fn control<B: Backend>(
    backend: &B,
    actor: &Actor,
    request: ControlRequest,
) -> Result<ControlResponse, ControlError> {
    if actor.is_registrar() && !matches!(request, ControlRequest::Register { login: false, .. }) {
        let why = "others than root may register sessions, and nothing else: ask root";
        return Err(ControlError::new(ErrorCode::BadRequest, why));
    }
    if request.act().is_none() {
        return backend.handle(actor, request).await;
    }
    if request.is_urgent() {
        let done = backend.handle(actor, request.clone()).await;
        // A journal that hangs keeps nobody from being told.
        match timeout(URGENT, backend.record(actor, &request, done.as_ref().err())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(error, ?request, "an operator's act could not be recorded"),
            Err(_) => tracing::error!(?request, "an operator's act could not be recorded: the journal doesn't answer"),
        }
        return done;
    }
    backend.record(actor, &request, None).await.map_err(|why| {
        ControlError::new(ErrorCode::Unrecorded, format!("this can't be recorded, so it isn't done: {why}"))
    })?;
    let done = backend.handle(actor, request.clone()).await;
    if let Err(refused) = &done
        && let Err(error) = backend.record(actor, &request, Some(refused)).await
    {
        tracing::error!(error, "it could not be recorded that an operator's act was refused");
    }
    done
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
                Ok((stream, _)) => match stream.peer_cred() {
                    Ok(peer) if peer.uid() == 0 => {
                        let actor = Actor::of_peer(&peer);
                        tokio::spawn(serve(stream, backend.clone(), Some(Arc::new(actor))));
                    }
                    Ok(peer) => {
                        tracing::warn!(uid = peer.uid(), pid = peer.pid(), "only root may ask the daemon: refused");
                    }
                    Err(error) => tracing::warn!(%error, "it isn't known who asks the daemon: refused"),
                },
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
                let served = timeout(SCRAPE_TIMEOUT, serve(stream, backend.clone(), None));
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
pub(crate) async fn pause(error: &io::Error) {
    tracing::error!(%error, "accepting a console connection failed");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Serves the control API to `actor`, or metrics to anybody.
pub(crate) async fn serve<S, B>(stream: S, backend: Arc<B>, actor: Option<Arc<Actor>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Backend,
{
    let keep_alive = actor.as_ref().is_some_and(|actor| !actor.is_registrar());
    let service = service_fn(move |request: Request<Incoming>| {
        let (backend, actor) = (backend.clone(), actor.clone());
        async move {
            let response = match actor {
                Some(actor) => answer_control(&*backend, &actor, request).await,
                None => answer_metrics(&*backend, &request),
            };
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .keep_alive(keep_alive)
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

async fn answer_control<B: Backend>(backend: &B, actor: &Actor, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    if (parts.method.as_str(), parts.uri.path()) != ("POST", PATH) {
        return refused(&ControlError::new(ErrorCode::NotFound, format!("only POST {PATH} is here")));
    }
    let asked = match Limited::new(body, MAX_REQUEST_BYTES).collect().await {
        Ok(bytes) => serde_json::from_slice::<ControlRequest>(&bytes.to_bytes()).map_err(|error| error.to_string()),
        Err(_) => Err("the request's body is too large or broke off".to_owned()),
    };
    let answered = match asked {
        Ok(asked) => control(backend, actor, asked).await,
        Err(why) => Err(ControlError::new(ErrorCode::BadRequest, format!("this can't be understood: {why}"))),
    };
    match answered {
        Ok(answer) => json(&answer),
        Err(error) => refused(&error),
    }
}

fn refused(error: &ControlError) -> Response<Full<Bytes>> {
    let mut response = json(error);
    *response.status_mut() = error.code.status();
    response
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
    use parking_lot::Mutex;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        time::Instant,
    };

    use super::*;
    use crate::client::{ClientError, request};

    /// Knows no agents, and writes down what it is asked to record.
    #[derive(Default)]
    struct Nothing {
        recorded: Mutex<Vec<(u32, ControlRequest, Option<ErrorCode>)>>,
        full: bool,
    }

    impl Backend for Nothing {
        async fn handle(&self, _: &Actor, request: ControlRequest) -> Result<ControlResponse, ControlError> {
            match request {
                ControlRequest::Launch { agent } => Err(ControlError::new(ErrorCode::NotFound, agent)),
                ControlRequest::Reload => Ok(ControlResponse::Reloaded("reloaded".into())),
                _ => Ok(ControlResponse::CaughtUp),
            }
        }

        async fn record(
            &self,
            actor: &Actor,
            request: &ControlRequest,
            refused: Option<&ControlError>,
        ) -> Result<(), String> {
            if self.full {
                return Err("the disk is full".into());
            }
            self.recorded.lock().push((actor.0.uid.unwrap(), request.clone(), refused.map(|error| error.code)));
            Ok(())
        }

        fn metrics(&self) -> Vec<Metric> {
            Vec::new()
        }
    }

    /// Over the socket itself: who asks is whoever made the connection.
    #[tokio::test]
    async fn acts_are_recorded_with_who_asked_also_those_that_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let backend = Arc::new(Nothing::default());
        tokio::spawn(serve_control(&path, backend.clone()).unwrap());
        let launch = ControlRequest::Launch { agent: "x".into() };
        assert_eq!(request(&path, &ControlRequest::CatchUp).await.unwrap(), ControlResponse::CaughtUp);
        let reloaded = request(&path, &ControlRequest::Reload).await.unwrap();
        assert_eq!(reloaded, ControlResponse::Reloaded("reloaded".into()));
        let refused = request(&path, &launch).await.unwrap_err();
        assert!(matches!(&refused, ClientError::Refused(error) if error.code == ErrorCode::NotFound), "{refused}");
        let recorded = backend.recorded.lock().clone();
        let by = nix::unistd::getuid().as_raw();
        assert_eq!(
            recorded,
            [(by, ControlRequest::Reload, None), (by, launch.clone(), None), (by, launch, Some(ErrorCode::NotFound))]
        );
    }

    #[tokio::test]
    async fn what_cannot_be_recorded_is_not_done() {
        let backend = Nothing { full: true, ..Nothing::default() };
        let error = control(&backend, &Actor::of_signal(), ControlRequest::Reload).await.unwrap_err();
        assert!(error.code == ErrorCode::Unrecorded && error.message.contains("the disk is full"), "{error}");
        assert!(control(&backend, &Actor::of_signal(), ControlRequest::Status).await.is_ok(), "it changes nothing");
    }

    async fn metrics() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(answer_scrapes(listener, Arc::new(Nothing::default())));
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
