//! From an accepted socket to what becomes of it.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use bytes::{Buf, BytesMut};
use chaperone_aws::MetadataRequest;
use chaperone_capture::{cgroup_id, cgroup_path};
use chaperone_identity::{Containers, Ownership, Resolved};
use chaperone_journal::JournalError;
use chaperone_model::{
    ConnectionClosed, ConnectionId, ConnectionKind, ConnectionOpened, Container, Event, ProcessFacts, Session,
    SessionStarted,
};
use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::OnceCell,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    call,
    connection::hello::{self, HelloError},
    connection::http_connection::{ALTERNATE_HTTPS, HttpConnection},
    connection::quota::{Place, Quota},
    connection::reach::is_public,
    connection::{subtree, tunnel},
    data_plane::{DataPlane, SessionContext},
    http::frames::Frames,
    http::heads::{Heads, Refused},
    http::keep_alive::{self, Activity, Terms, tell},
    http::strict::{MAX_FIELDS, MAX_HEAD_BYTES, Role, Strict},
    http::through::writes_through,
};

/// A ClientHello with post-quantum key shares is about 1.8 KiB; 16 KiB is more than any client sends.
const MAX_HELLO: usize = 16 << 10;
/// What one HTTP/2 stream holds beside its head, in bytes: of an answer that the agent doesn't take.
const HTTP2_STREAM: usize = 16 << 10;
/// What an HTTP/2 connection holds beside its window, in bytes.
const HTTP2_BUFFERS: usize = 32 << 10;
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(169, 254, 169, 254), Ipv4Addr::new(169, 254, 170, 2), Ipv4Addr::new(169, 254, 170, 23)];
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)];

/// A connection of a known process in a known session.
struct Accepted {
    shared: Arc<DataPlane>,
    session: Arc<Resolved<SessionContext>>,
    id: ConnectionId,
    process: Arc<ProcessFacts>,
    destination: SocketAddr,
    /// What it uses of what agents have in common.
    share: Arc<Quota>,
    /// Its place among its session's connections, or why it is refused.
    place: Result<Place, String>,
    /// Whether it came from the daemon's own network namespace.
    at_home: bool,
    opened: Mutex<bool>,
    /// Why nothing of this connection can go on: its session's or its own beginning is not recorded.
    unrecorded: OnceLock<JournalError>,
}

impl DataPlane {
    /// Accepts until told to stop, or until the listener is destroyed.
    pub async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            // The permit first: when there is none, connections wait in the kernel's queue.
            let permit = tokio::select! {
                () = self.stop.cancelled() => return,
                permit = self.connections.clone().acquire_owned() => permit,
            };
            let Ok(permit) = permit else { return };
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let shared = self.clone();
                    self.tasks.spawn(async move {
                        let _permit = permit;
                        let _held = shared.metrics.connections.hold();
                        shared.clone().handle(stream).await;
                    });
                }
                // Whoever owns its network namespace destroyed it (`ss -K`), and it will never listen again.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    tracing::error!(
                        "a listener was destroyed: until there is another one, connections wait or are refused"
                    );
                    return;
                }
                Err(error) => {
                    // Out of files or memory: what is open must end first. A pause keeps the loop from spinning.
                    tracing::error!(%error, "accepting a connection failed");
                    sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn handle(self: Arc<Self>, stream: TcpStream) {
        self.metrics.accepted.inc();
        let accepted = match self.origin(&stream).await {
            Ok(accepted) => Arc::new(accepted),
            Err(refused) => {
                self.metrics.refused.inc();
                if let Some(error) = refused {
                    tracing::warn!(error, "a connection was refused");
                }
                return;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let result = match &accepted.place {
            Ok(_) => accepted.clone().dispatch(stream).await,
            Err(why) => Err(why.clone()),
        };
        let (sent_bytes, received_bytes, error) = match result {
            Ok((sent, received)) => (sent, received, None),
            Err(error) => (0, 0, Some(error)),
        };
        if let Some(why) = &error
            && !*accepted.opened.lock()
        {
            self.metrics.refused.inc();
            let _ = Box::pin(accepted.open(None, None, ConnectionKind::Refused, Some(why.clone()))).await;
        }
        let event = Event::ConnectionClosed(ConnectionClosed {
            id: accepted.id,
            session: accepted.session.session.id,
            at: OffsetDateTime::now_utc(),
            sent_bytes,
            received_bytes,
            error,
        });
        if let Err(error) = self.journal.append_now(&event) {
            tracing::error!(%error, "the end of a connection could not be recorded");
        }
    }

    /// Whose connection it is; or why it is refused, if that is to be told.
    async fn origin(self: &Arc<Self>, stream: &TcpStream) -> Result<Accepted, Option<String>> {
        let mut origin = self.origins.of(stream).map_err(|error| error.to_string())?;
        let path = cgroup_path(&self.cgroup_root, origin.cgroup).map_err(|error| error.to_string())?;
        let (cgroup, agent) = self.sessions.sharing(&path);
        let share = self.quotas.of(cgroup, agent.as_deref().unwrap_or_default());
        let place = match share.connect(is_metadata(origin.destination.0.ip())) {
            Ok(place) => Ok(place),
            Err(exceeded) => {
                // Each would be recorded at the cost of those that keep to their share.
                let refused = exceeded.told.ok_or(None)?;
                Err(format!("{exceeded}; refused since this was told last: {refused}"))
            }
        };
        if origin.process.argv.is_empty() {
            origin = self.origins.described(stream).await.map_err(|error| error.to_string())?;
        }
        if let Err(why) = &place {
            tracing::warn!(cgroup = path, why, "a connection was refused");
        }
        let (session, recorded) = self.session_at(&path).await?;
        Ok(Accepted {
            shared: self.clone(),
            session,
            id: ConnectionId::new(),
            process: Arc::new(origin.process),
            destination: origin.destination.0,
            share,
            place,
            at_home: self.home == Some(origin.netns),
            opened: Mutex::new(false),
            unrecorded: recorded.err().map_or_else(OnceLock::new, OnceLock::from),
        })
    }

    /// The session of a cgroup, which begins now if it hasn't. Its beginning is on disk before anything else of it;
    /// what can't be recorded is tried again by whoever comes next.
    async fn session_at(
        &self,
        path: &str,
    ) -> Result<(Arc<Resolved<SessionContext>>, Result<(), JournalError>), String> {
        let container = self.describe(path).await;
        self.session_of(path, container).await
    }

    /// What is to be known of a cgroup that is a container, for its session to begin. It reads files.
    pub(crate) async fn describe(&self, path: &str) -> Option<Container> {
        self.decide_at(path).await;
        self.container_at(path).await
    }

    /// As [`session_at`](Self::session_at), with what [`describe`](Self::describe) told.
    pub(crate) async fn session_of(
        &self,
        path: &str,
        container: Option<Container>,
    ) -> Result<(Arc<Resolved<SessionContext>>, Result<(), JournalError>), String> {
        let id_of = |folder: &std::path::Path| cgroup_id(folder).map_err(io::Error::other);
        let (session, is_new) = self
            .sessions
            .resolve(path, id_of, container, |session| self.own(session))
            .map_err(|error| error.to_string())?;
        if is_new {
            let session = &session.session;
            tracing::info!(session = %session.id, agent = session.agent, cgroup = path, "a session began");
            let shared = self.cgroup_root.join(self.sessions.sharing(path).0.trim_start_matches('/'));
            if let Err(error) = subtree::bound(&shared, self.limits.session_cgroups) {
                tracing::warn!(cgroup = %shared.display(), %error, "how many cgroups it may make couldn't be bounded");
            }
            if let Some(runtime) = session.container.as_ref().and_then(Containers::unsupported_runtime) {
                tracing::error!(
                    session = %session.id,
                    agent = session.agent,
                    cgroup = path,
                    runtime,
                    "what this agent's container sends can't be captured: its runtime has a network of its own; run agents by \
                     runc or crun"
                );
            }
        }
        let recorded = session.own.recorded.get_or_try_init(async || {
            let event =
                Event::SessionStarted(SessionStarted { session: session.session.clone(), host: self.host.clone() });
            self.journal.append(&event, true).await
        });
        let recorded = recorded.await.copied();
        Ok((session, recorded))
    }

    /// Whose the container at `path` is. Reads files.
    pub fn decide(&self, path: &str) -> Ownership {
        let cgroup = Containers::cgroup(path).unwrap_or(path);
        self.sessions.decide(cgroup, self.containers.described(cgroup).as_ref())
    }

    /// Finds out whose a container is, if only its description tells.
    async fn decide_at(&self, path: &str) {
        let Some(cgroup) = self.sessions.undecided(path).map(str::to_owned) else { return };
        let described = self.descriptions.of(&cgroup).await;
        self.sessions.decide(&cgroup, described.as_deref());
    }

    /// What the session's cgroup is, if it is a container and the session is yet to begin.
    async fn container_at(&self, path: &str) -> Option<Container> {
        if !Containers::is_container(path) {
            return None;
        }
        let session = self.sessions.lacking(path, |folder| cgroup_id(folder).ok())?.to_owned();
        let described = self.descriptions.of(&session).await;
        Containers::told(&session, described.map(Arc::unwrap_or_clone))
    }

    /// A session for a process that is about to start in the cgroup at `path`.
    pub async fn begin_session(&self, path: &str) -> Result<Arc<Resolved<SessionContext>>, String> {
        let (session, recorded) = self.session_at(path).await?;
        recorded.map(|()| session).map_err(|error| error.to_string())
    }

    fn own(&self, session: &Session) -> SessionContext {
        let (key, boot) = &self.placeholders;
        // A cgroup's id is never used again before the next boot.
        let cgroup = session.cgroup.0.to_be_bytes();
        let generation = self.generation();
        SessionContext {
            placeholder: key.derive(session.id, &[boot.as_bytes(), &cgroup, session.agent.as_bytes()]),
            vended: chaperone_aws::VendedCredentials::default(),
            masking: crate::Placeholders::new(),
            lent: ArcSwap::new(generation.lending.to(session)),
            principal: generation.engine.principal(session),
            id: session.id.to_string(),
            recorded: OnceCell::new(),
        }
    }
}

impl Accepted {
    async fn dispatch(self: Arc<Self>, stream: TcpStream) -> Result<(u64, u64), String> {
        match self.destination.port() {
            _ if is_metadata(self.destination.ip()) => Box::pin(self.serve_metadata(stream)).await,
            443 | ALTERNATE_HTTPS => self.tls(stream).await,
            80 => self.plain(stream).await,
            port => Err(format!("BUG: a connection to port {port} was redirected")),
        }
    }

    /// Records what becomes of the connection, before it does.
    async fn open(
        &self,
        name: Option<&str>,
        upstream: Option<SocketAddr>,
        kind: ConnectionKind,
        error: Option<String>,
    ) -> Result<(), String> {
        *self.opened.lock() = true;
        let event = Event::ConnectionOpened(Box::new(ConnectionOpened {
            id: self.id,
            session: self.session.session.id,
            at: OffsetDateTime::now_utc(),
            process: self.process.clone(),
            destination: chaperone_model::OriginalDst(self.destination),
            upstream,
            name: name.map(str::to_owned),
            kind,
            error,
        }));
        // A passed connection may change anything anywhere, as far as we can see.
        let wait = self.shared.journal.must_wait(kind == ConnectionKind::Passed);
        let recorded = match self.unrecorded.get() {
            Some(error) => Err(error.clone()),
            None => self.shared.journal.append(&event, wait).await,
        };
        match recorded {
            Ok(()) => Ok(()),
            // Each request is told so in AWS's own words; of the stand-in's answers nothing goes anywhere.
            Err(error) if matches!(kind, ConnectionKind::Inspected | ConnectionKind::Metadata) => {
                tracing::error!(%error, "a connection can't be recorded: nothing of it will go on");
                self.unrecorded.get_or_init(|| error);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    async fn tls(self: Arc<Self>, mut stream: TcpStream) -> Result<(u64, u64), String> {
        let limits = &self.shared.limits;
        let mut start = BytesMut::with_capacity(2048);
        let hello = timeout(limits.handshake_timeout, async {
            loop {
                if let Some(parsed) = hello::parse(&start) {
                    return parsed.map_err(|error| error.to_string());
                }
                if start.len() >= MAX_HELLO {
                    return Err(HelloError::Malformed("it is larger than 16 KiB").to_string());
                }
                match stream.read_buf(&mut start).await {
                    Ok(0) => return Err("the connection ended before its ClientHello".to_owned()),
                    Ok(_) => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
        });
        let name = hello.await.map_err(|_| "no ClientHello came in time".to_owned())??.name;
        let stream = Prefixed { start: start.freeze(), stream };
        if self.shared.catalog.host(&name).is_none() && !self.shared.generation().is_inspected(&name) {
            return Box::pin(self.pass_on(&name, stream)).await;
        }
        self.check_reach(&name).await?;
        Box::pin(self.open(Some(&name), Some(self.destination), ConnectionKind::Inspected, None)).await?;
        let acceptor = TlsAcceptor::from(self.shared.tls.clone());
        let handshake = async {
            let _turn = self.share.handshake().await;
            acceptor.accept(stream).await
        };
        let tls = timeout(limits.handshake_timeout, Box::pin(handshake))
            .await
            .map_err(|_| format!("the TLS handshake for {name} took too long"))?
            .map_err(|error| format!("the TLS handshake for {name} failed: {error}; does the agent trust the CA?"))?;
        let connection = tls.get_ref().1;
        if connection.server_name().is_none_or(|seen| !seen.eq_ignore_ascii_case(&name)) {
            return Err(format!("the ClientHello was read in two ways: `{name}` and {:?}", connection.server_name()));
        }
        if connection.alpn_protocol() == Some(b"h2") {
            Box::pin(self.serve_http2(&name, tls)).await
        } else {
            Box::pin(self.serve_http1(Some(&name), tls)).await
        }
    }

    async fn plain(self: Arc<Self>, mut stream: TcpStream) -> Result<(u64, u64), String> {
        let mut start = BytesMut::with_capacity(2048);
        let host = timeout(self.shared.limits.handshake_timeout, async {
            loop {
                if start.len() > MAX_HEAD_BYTES {
                    return Err("the request head is larger than 64 KiB".to_owned());
                }
                match stream.read_buf(&mut start).await {
                    Ok(0) => return Err("the connection ended before its request".to_owned()),
                    Ok(_) => {}
                    Err(error) => return Err(error.to_string()),
                }
                if let Some(host) = host_field(&start)? {
                    return Ok(host);
                }
            }
        });
        let host = host.await.map_err(|_| "no request head came in time".to_owned())??;
        let stream = Prefixed { start: start.freeze(), stream };
        if self.shared.catalog.host(&host).is_none() && !self.shared.generation().is_inspected(&host) {
            return Box::pin(self.pass_on(&host, stream)).await;
        }
        self.check_reach(&host).await?;
        Box::pin(self.open(Some(&host), Some(self.destination), ConnectionKind::Inspected, None)).await?;
        // At an address that is this name's alone, other names are not asked for.
        let name = Some(host.as_str()).filter(|_| !is_public(self.destination.ip()));
        Box::pin(self.serve_http1(name, stream)).await
    }

    /// Whether the daemon dials that name where the agent did.
    async fn check_reach(&self, name: &str) -> Result<(), String> {
        let after = self.shared.limits.connect_timeout;
        let checked = Box::pin(self.shared.reach.check(name, self.destination, &self.share, after)).await;
        checked.map_err(|error| error.to_string())
    }

    async fn pass_on(self: Arc<Self>, name: &str, mut stream: Prefixed) -> Result<(u64, u64), String> {
        let from = if self.at_home { None } else { Some(&stream.stream) };
        let after = self.shared.limits.connect_timeout;
        let mut upstream = match tunnel::connect(name, self.destination, from, &self.share, after).await {
            Ok(upstream) => upstream,
            Err(error) => {
                self.open(Some(name), None, ConnectionKind::Refused, Some(error.to_string())).await?;
                return Err(error.to_string());
            }
        };
        self.shared.metrics.passed.inc();
        self.open(Some(name), upstream.peer_addr().ok(), ConnectionKind::Passed, None).await?;
        let copied = tokio::select! {
            // A tunnel has no end of its own to wait for.
            () = self.shared.stop.cancelled() => return Err("the daemon stopped".to_owned()),
            copied = tunnel::copy(&mut stream, &mut upstream) => copied,
        };
        copied.map_err(|error| error.to_string())
    }

    fn inspected(&self, name: Option<&str>) -> HttpConnection {
        // Plain HTTP goes on to AWS over TLS: what carries our signature is never sent in the clear.
        let port = if self.destination.port() == ALTERNATE_HTTPS { ALTERNATE_HTTPS } else { 443 };
        HttpConnection {
            plane: self.shared.clone(),
            session: self.session.clone(),
            id: self.id,
            process: self.process.clone(),
            share: self.share.clone(),
            name: name.map(Arc::from),
            upstream: SocketAddr::new(self.destination.ip(), port),
            heads: Arc::new(Heads::new(&self.share)),
            unrecorded: self.unrecorded.get().cloned(),
        }
    }

    async fn serve_http1<S>(&self, name: Option<&str>, stream: S) -> Result<(u64, u64), String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let inspected = Arc::new(self.inspected(name));
        let terms = Terms {
            head_timeout: self.shared.limits.head_timeout,
            stop: self.shared.stop.clone(),
            share: self.share.clone(),
        };
        let heads = inspected.heads.clone();
        let answer = move |request| call::answer(inspected.clone(), request);
        keep_alive::serve(stream, heads, terms, answer).await.map(|()| (0, 0))
    }

    async fn serve_http2<S>(&self, name: &str, stream: S) -> Result<(u64, u64), String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let inspected = Arc::new(self.inspected(Some(name)));
        let activity = Arc::new(Activity::default());
        let answers = activity.clone();
        let service = service_fn(move |mut request| {
            let memory = inspected.share.hold_for(&mut request, HTTP2_STREAM);
            answers.watch(memory, call::answer(inspected.clone(), request))
        });
        let limits = &self.shared.limits;
        // What h2 holds of bodies that nobody reads yet, and of what it reads and writes.
        let window = usize::try_from(limits.http2_window).unwrap_or(usize::MAX).saturating_add(HTTP2_BUFFERS);
        let _memory = self.share.hold(window).map_err(|exceeded| exceeded.to_string())?;
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.http2_streams)
            .max_header_list_size(limits.http2_header_bytes)
            .initial_stream_window_size(limits.http2_window)
            .initial_connection_window_size(limits.http2_window)
            .max_send_buf_size(HTTP2_STREAM)
            .max_pending_accept_reset_streams(32)
            .max_local_error_reset_streams(Some(64))
            .keep_alive_interval(Some(limits.head_timeout))
            .keep_alive_timeout(limits.handshake_timeout)
            .serve_connection(TokioIo::new(Frames::new(stream)), service);
        let mut connection = std::pin::pin!(connection);
        let mut idle = std::pin::pin!(sleep(limits.head_timeout));
        let mut last = 0;
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => return tell(ended).map(|()| (0, 0)),
                () = idle.as_mut() => {
                    let began = activity.began();
                    if activity.is_idle() && began == last {
                        break;
                    }
                    last = began;
                    idle.as_mut().reset(Instant::now() + limits.head_timeout);
                }
                () = self.shared.stop.cancelled() => break,
            }
        }
        // What is under way is finished, and nothing new is taken.
        connection.as_mut().graceful_shutdown();
        tell(connection.await).map(|()| (0, 0))
    }

    async fn serve_metadata(self: Arc<Self>, stream: TcpStream) -> Result<(u64, u64), String> {
        self.shared.metrics.metadata.inc();
        self.open(None, None, ConnectionKind::Metadata, None).await?;
        let heads = Arc::new(Heads::new(&self.share));
        let strict = Strict::new(stream, Role::Requests(heads.clone()));
        let accepted = self.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let response = match heads.refused(request.headers_mut()) {
                Some(Refused::Quota(why)) => Response::builder().status(503).body(Bytes::from(format!("{why}\n"))),
                Some(Refused::Violation(why)) => Response::builder().status(400).body(Bytes::from(format!("{why}\n"))),
                None => Ok(accepted.metadata(&request)),
            };
            let response = response.unwrap_or_default().map(Full::new);
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.shared.limits.handshake_timeout)
            .serve_connection(TokioIo::new(strict), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = self.shared.stop.cancelled() => {
                // Clients keep it for later.
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        tell(ended).map(|()| (0, 0))
    }

    fn metadata(&self, request: &Request<Incoming>) -> Response<Bytes> {
        let generation = self.shared.generation();
        let own = &self.session.own;
        let request = MetadataRequest {
            placeholder: &own.placeholder,
            region: &generation.settings.region,
            role_name: &generation.settings.role,
            method: request.method(),
            path: request.uri().path(),
            headers: request.headers(),
            now: OffsetDateTime::now_utc(),
        };
        let metadata = &self.shared.metadata;
        match self.destination.ip().to_canonical() {
            ip if ip == METADATA_V4[1] => metadata.respond_ecs(&request),
            ip if ip == METADATA_V4[2] || ip == METADATA_V6[1] => metadata.respond_pod_identity(&request),
            _ => metadata.respond(&request),
        }
    }
}

fn is_metadata(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => METADATA_V4.contains(&ip),
        IpAddr::V6(ip) => METADATA_V6.contains(&ip),
    }
}

/// The Host of a request head: `None` until the head is whole. What is wrong with it in other ways, the strict reader
/// or the other side will say.
fn host_field(start: &[u8]) -> Result<Option<String>, String> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(start) {
        Err(error) => Err(format!("not an HTTP/1.1 request: {error}")),
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(_)) => {
            let mut hosts = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("host"));
            let (Some(host), None) = (hosts.next(), hosts.next()) else {
                return Err("the request has not exactly one Host field".to_owned());
            };
            let host = host.value.strip_suffix(b":80").unwrap_or(host.value);
            hello::host_name(host).map(Some).ok_or_else(|| "the request's Host is not a plain DNS name".to_owned())
        }
    }
}

/// A stream of which some bytes have been read already.
struct Prefixed {
    start: Bytes,
    stream: TcpStream,
}

impl AsyncRead for Prefixed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.start.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = self.start.len().min(buf.remaining());
        buf.put_slice(&self.start[..count]);
        self.start.advance(count);
        if self.start.is_empty() {
            self.start = Bytes::new(); // lets go of the buffer
        }
        Poll::Ready(Ok(()))
    }
}

writes_through!(Prefixed);
