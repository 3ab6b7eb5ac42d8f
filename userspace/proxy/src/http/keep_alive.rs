//! HTTP/1.1 connections over their whole life.
//!
//! SDKs keep connections open long after their last call. hyper's buffers for one come to 16 KiB and more, so hyper is
//! there only from a request's head until a moment after the last answer. Between, and before the first request, a
//! connection is no more than its TLS session: idle peers cost next to nothing, and those that send a head byte by byte
//! no more than they have sent.

use std::{
    convert::Infallible,
    future::Future,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::{Instant, Sleep, sleep, timeout},
};

use tokio_util::sync::CancellationToken;

use crate::{
    body::answer::AnswerBody,
    connection::quota::{Memory, Quota},
    http::heads::Heads,
    http::interims::{INTERIM, Interims},
    http::strict::{MAX_FIELDS, MAX_HEAD_BYTES, Role, Strict},
    websocket::relay::Relay,
};

/// What hyper and the framing check hold of a request and its answer beside the head, in bytes.
const EXCHANGE: usize = 32 << 10;
/// For how long after an answer hyper's buffers are kept for the next request.
const LINGER: Duration = Duration::from_secs(2);
/// For a new connection's first request, when the daemon stops: its client has every reason to think that it will be served.
const FIRST_REQUEST: Duration = Duration::from_secs(1);
/// For the TLS alert that tells the other side of a connection's end, and for what it was still sending then.
const FAREWELL: Duration = Duration::from_secs(1);
/// How much of that is read, in bytes.
const FAREWELL_BYTES: usize = 1 << 20;

/// How long a connection may last.
pub(crate) struct Terms {
    /// For a request's head, and between requests.
    pub(crate) head_timeout: Duration,
    /// What is under way is finished, and nothing new is taken.
    pub(crate) stop: CancellationToken,
    /// What the connection uses of what agents have in common.
    pub(crate) share: Arc<Quota>,
}

/// Answers the requests of one connection until it ends. `heads` is told why a head was refused, before `answer` is
/// asked for the request that stands in for it.
pub(crate) async fn serve<S, A, F>(stream: S, heads: Arc<Heads>, terms: Terms, answer: A) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<Incoming>) -> F + Unpin,
    F: Future<Output = Response<AnswerBody>>,
{
    let mut stream = Strict::new(stream, Role::Requests(heads));
    let mut start = Bytes::new();
    let mut patience = FIRST_REQUEST;
    loop {
        if start.is_empty() {
            let stopped = async {
                terms.stop.cancelled().await;
                sleep(patience).await;
            };
            let first = tokio::select! {
                biased;
                first = timeout(terms.head_timeout, first_bytes(&mut stream)) => first,
                () = stopped => break,
            };
            patience = Duration::ZERO;
            start = match first {
                Ok(Ok(bytes)) if !bytes.is_empty() => bytes,
                // The other side has gone, or had nothing more to say.
                _ if stream.is_between() => break,
                Ok(Ok(_)) => return Err("the connection ended within a request's head".to_owned()),
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => return Err("no whole request head came in time".to_owned()),
            };
        }
        match Box::pin(exchanges(&terms, &answer, start, stream)).await? {
            Some(rest) => (start, stream) = rest,
            None => return Ok(()),
        }
    }
    let _ = timeout(FAREWELL, stream.shutdown()).await;
    Ok(())
}

/// What comes next, at most 8 KiB; nothing at the end. Nothing is kept in memory while it waits.
async fn first_bytes<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Bytes> {
    std::future::poll_fn(|cx| {
        let mut space = [MaybeUninit::uninit(); 8 << 10];
        let mut buf = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(Bytes::copy_from_slice(buf.filled())))
    })
    .await
}

/// Answers requests until none comes any more for a moment: then gives the stream back, with what was read of it too
/// far. `None`: the connection is over.
async fn exchanges<S, A, F>(
    terms: &Terms,
    answer: &A,
    start: Bytes,
    stream: Strict<S>,
) -> Result<Option<(Bytes, Strict<S>)>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<Incoming>) -> F + Unpin,
    F: Future<Output = Response<AnswerBody>>,
{
    let activity = Arc::new(Activity::default());
    let service = service_fn(|mut request: Request<Incoming>| {
        if activity.receiving.load(Relaxed) {
            request.extensions_mut().insert(More);
        }
        request.extensions_mut().insert(activity.interims.clone());
        let memory = terms.share.hold_for(&mut request, EXCHANGE);
        activity.watch(memory, answer(request))
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(terms.head_timeout)
        .max_headers(MAX_FIELDS)
        .max_buf_size(MAX_HEAD_BYTES + 8192)
        .serve_connection(
            TokioIo::new(Resumed { start, stream, activity: activity.clone(), farewell: None, interim: Bytes::new() }),
            service,
        );
    let mut linger = std::pin::pin!(sleep(LINGER));
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            ended = &mut connection => {
                let switching = activity.switching.lock().take();
                tell(ended)?;
                let Some(switching) = switching else { return Ok(None) };
                // What came too early is in hyper's buffer, in ours, or in the framing check's.
                let parts = connection.into_parts();
                let Resumed { start, stream, .. } = parts.io.into_inner();
                let early = !start.is_empty() || !parts.read_buf.is_empty();
                let stream = if early { None } else { stream.between() };
                return Box::pin(switching.run(stream)).await.map(|()| None);
            }
            () = &mut linger => {
                linger.as_mut().reset(Instant::now() + LINGER);
                if stopping || !activity.is_idle() {
                    continue;
                }
                // hyper ends at once if it is idle as well, and leaves the stream open. If it isn't, it goes on and
                // closes after the answer, as it then tells the client.
                activity.parting.store(true, Relaxed);
                Pin::new(&mut connection).graceful_shutdown();
                match (&mut connection).now_or_never() {
                    Some(Ok(())) => break,
                    Some(ended) => return tell(ended).map(|()| None),
                    None => {
                        activity.parting.store(false, Relaxed);
                        stopping = true;
                    }
                }
            }
            () = terms.stop.cancelled(), if !stopping => {
                Pin::new(&mut connection).graceful_shutdown();
                stopping = true;
            }
        }
    }
    let parts = connection.into_parts();
    let Resumed { start, stream, .. } = parts.io.into_inner();
    // A copy: an empty `Bytes` can hold on to hyper's whole buffer.
    let rest = [parts.read_buf, start].concat().into();
    Ok(Some((rest, stream)))
}

/// In a request's extensions: the agent has sent more than its head already.
#[derive(Clone, Copy, Debug)]
pub(crate) struct More;

/// How a connection ended. A client that just goes away is nothing to write about.
pub(crate) fn tell(ended: hyper::Result<()>) -> Result<(), String> {
    match ended {
        Ok(()) => Ok(()),
        Err(error) if error.is_incomplete_message() || error.is_closed() => Ok(()),
        Err(error) => Err(chaperone_model::with_causes(&error)),
    }
}

/// What a connection is doing. All of it is told and asked by the connection's own task.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// Requests whose answers are not over.
    answering: AtomicU32,
    /// Requests so far; wraps around.
    began: AtomicU32,
    /// Within a request, or with a part of one in memory.
    receiving: AtomicBool,
    /// The other side doesn't take what was written.
    unsent: AtomicBool,
    /// The stream outlives this connection of hyper's, which must not close it.
    parting: AtomicBool,
    /// An interim answer is to be sent.
    interims: Interims,
    /// What it is after the answer that is being sent.
    switching: Mutex<Option<Box<Relay>>>,
}

impl Activity {
    /// Nothing is under way in either direction.
    pub(crate) fn is_idle(&self) -> bool {
        self.answering.load(Relaxed) == 0 && !self.receiving.load(Relaxed) && !self.unsent.load(Relaxed)
    }

    /// Counts a request, whose answer this is, until the answer's end.
    pub(crate) fn watch<F: Future<Output = Response<AnswerBody>>>(
        self: &Arc<Self>,
        memory: Option<Memory>,
        answer: F,
    ) -> impl Future<Output = Result<Response<Watched>, Infallible>> + use<F> {
        self.answering.fetch_add(1, Relaxed);
        self.began.fetch_add(1, Relaxed);
        let answering = Answering(self.clone());
        // It is moved from here into hyper, and holds a call in all its stages: a pointer is cheaper to move.
        let answer = Box::pin(answer);
        async move {
            Ok(answer.await.map(|body| {
                let body = match body {
                    AnswerBody::Relay(switching) => {
                        *answering.0.switching.lock() = Some(switching);
                        AnswerBody::Whole(None)
                    }
                    body => body,
                };
                Watched { body, _answering: answering, _memory: memory }
            }))
        }
    }

    /// How many requests there have been.
    pub(crate) fn began(&self) -> u32 {
        self.began.load(Relaxed)
    }
}

/// A request whose answer is not over.
pub(crate) struct Answering(Arc<Activity>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Relaxed);
    }
}

/// An answer's body that tells when it is over.
pub(crate) struct Watched {
    body: AnswerBody,
    _answering: Answering,
    /// What the request takes.
    _memory: Option<Memory>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream of which some bytes have been read already, and which may live on when hyper ends.
struct Resumed<S> {
    start: Bytes,
    stream: Strict<S>,
    activity: Arc<Activity>,
    farewell: Option<Farewell>,
    /// What is left of an interim answer.
    interim: Bytes,
}

/// The end of a connection whose client was still sending. Closed at once, it would be reset, and the client never read
/// the answer that says why.
struct Farewell {
    until: Pin<Box<Sleep>>,
    left: usize,
}

impl<S> Resumed<S> {
    /// hyper flushes only what the stream has taken.
    fn note_unsent(&self, written: &Poll<io::Result<usize>>) {
        if written.is_pending() {
            self.activity.unsent.store(true, Relaxed);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Resumed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.start.is_empty() {
            let count = self.start.len().min(buf.remaining());
            buf.put_slice(&self.start[..count]);
            self.start.advance(count);
            let more = !self.start.is_empty() || !self.stream.is_between();
            self.activity.receiving.store(more, Relaxed);
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.activity.receiving.store(!self.stream.is_between(), Relaxed);
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Resumed<S> {
    /// What has been begun of an interim answer comes before anything of hyper's.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.interim);
            self.note_unsent(&written);
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.interim.advance(count),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// hyper writes: the answer begins, and an interim one that hasn't begun is none any more.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.activity.interims.take();
        self.poll_interim(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Resumed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_answer(cx))?;
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note_unsent(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_answer(cx))?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.note_unsent(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when all that it had is written.
        if self.activity.interims.take() && self.interim.is_empty() {
            self.interim = Bytes::from_static(INTERIM);
        }
        ready!(self.poll_interim(cx))?;
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.activity.unsent.store(flushed.is_pending(), Relaxed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.activity.parting.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        if this.farewell.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if this.stream.is_between() {
                return Poll::Ready(Ok(()));
            }
        }
        let farewell =
            this.farewell.get_or_insert_with(|| Farewell { until: Box::pin(sleep(FAREWELL)), left: FAREWELL_BYTES });
        while farewell.left > 0 && farewell.until.as_mut().poll(cx).is_pending() {
            match ready!(this.stream.poll_discard(cx)) {
                Ok(read @ 1..) => farewell.left = farewell.left.saturating_sub(read),
                Ok(0) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    fn share() -> Arc<Quota> {
        crate::connection::quota::Quotas::new(&crate::Limits::default(), Arc::default()).of("/", "a")
    }

    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};

    use super::*;

    /// A connection whose answers are the request's path and the length of its body.
    fn connection(stop: &CancellationToken) -> (DuplexStream, tokio::task::JoinHandle<Result<(), String>>) {
        let (client, server) = duplex(64 << 10);
        let terms = Terms { head_timeout: Duration::from_mins(1), stop: stop.clone(), share: share() };
        let answer = |request: Request<Incoming>| async {
            let path = request.uri().path().to_owned();
            let length = request.into_body().collect().await.map_or(0, |body| body.to_bytes().len());
            Response::new(AnswerBody::Whole(Some(format!("{path} {length}").into())))
        };
        (client, tokio::spawn(serve(server, Arc::default(), terms, answer)))
    }

    /// Reads until the answer that ends so is there.
    async fn answer(client: &mut DuplexStream, end: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            assert!(client.read_buf(&mut text).await.unwrap() > 0, "{}", String::from_utf8_lossy(&text));
        }
        String::from_utf8(text).unwrap()
    }

    const REQUEST: &[u8] = b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";

    // Time stands still in these tests until nobody has anything else to do.

    #[tokio::test(start_paused = true)]
    async fn a_connection_takes_requests_again_after_any_time_between_them() {
        let (mut client, served) = connection(&CancellationToken::new());
        for _ in 0..5 {
            client.write_all(REQUEST).await.unwrap();
            let text = answer(&mut client, "/a 5").await;
            assert!(text.starts_with("HTTP/1.1 200") && !text.to_lowercase().contains("connection: close"), "{text}");
            sleep(LINGER * 3).await;
        }
        drop(client);
        served.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_comes_in_pieces_with_pauses_is_whole() {
        let (mut client, _served) = connection(&CancellationToken::new());
        for _ in 0..2 {
            for piece in REQUEST.chunks(20) {
                client.write_all(piece).await.unwrap();
                sleep(LINGER * 2).await;
            }
            answer(&mut client, "/a 5").await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pipelined_requests_are_answered_in_order() {
        let (mut client, _served) = connection(&CancellationToken::new());
        let more = [REQUEST, b"GET /b HTTP/1.1\r\nHost: a\r\n\r\nGET /c HTTP/1.1\r\n"].concat();
        client.write_all(&more).await.unwrap();
        let text = answer(&mut client, "/b 0").await;
        assert!(text.contains("/a 5"), "{text}");
        sleep(LINGER * 2).await;
        client.write_all(b"Host: a\r\n\r\n").await.unwrap();
        answer(&mut client, "/c 0").await;
    }

    /// Five clean requests and a bad one in one piece were once answered [400, 200, 200, 200, 200, 421].
    #[tokio::test(start_paused = true)]
    async fn a_refusal_found_while_reading_ahead_is_of_its_own_request() {
        let bad = [
            "GET /bad HTTP/1.1\r\nHost: sqs.eu-west-1.amazonaws.com\r\nContent-Length: +1\r\n\r\n",
            "GET /bad HTTP/1.1\r\nHost: sqs.eu-west-1.amazonaws.com\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET /bad HTTP/1.1\r\nHost: sqs.eu-west-1.amazonaws.com\r\nX: a\x00b\r\n\r\n",
        ];
        for (bad, clean) in bad.into_iter().flat_map(|bad| [0, 1, 5].map(|clean| (bad, clean))) {
            let (mut client, server) = duplex(64 << 10);
            let terms = Terms { head_timeout: Duration::from_mins(1), stop: CancellationToken::new(), share: share() };
            let heads = Arc::new(Heads::default());
            let told = heads.clone();
            let answer = move |mut request: Request<Incoming>| {
                let refused = told.refused(request.headers_mut()).is_some();
                let host = request.headers()["host"].to_str().unwrap_or_default().to_owned();
                let text = format!("[{} {host} {refused}]", request.uri().path());
                async move { Response::new(AnswerBody::Whole(Some(text.into()))) }
            };
            let served = tokio::spawn(serve(server, heads, terms, answer));
            let good = "GET /good HTTP/1.1\r\nHost: a\r\n\r\n".repeat(clean);
            client.write_all(format!("{good}{bad}").as_bytes()).await.unwrap();
            let mut said = Vec::new();
            client.read_to_end(&mut said).await.unwrap();
            let said = String::from_utf8(said).unwrap();
            let answers: Vec<_> = said.split('[').skip(1).map(|rest| rest.split(']').next().unwrap()).collect();
            let mut wanted = vec!["/good a false"; clean];
            wanted.push("/bad sqs.eu-west-1.amazonaws.com true");
            assert_eq!(answers, wanted, "{said}");
            served.await.unwrap().unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_taken_keeps_the_connection_as_it_is() {
        let (mut client, server) = duplex(16);
        let terms = Terms { head_timeout: Duration::from_mins(1), stop: CancellationToken::new(), share: share() };
        let large = |_: Request<Incoming>| async { Response::new(AnswerBody::Whole(Some(vec![b'x'; 4096].into()))) };
        let served = tokio::spawn(serve(server, Arc::default(), terms, large));
        for _ in 0..2 {
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            sleep(LINGER * 5).await;
            answer(&mut client, &"x".repeat(4096)).await;
        }
        drop(client);
        served.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_end_and_slow_heads_are_an_error() {
        let (mut client, served) = connection(&CancellationToken::new());
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0, "closed");
        served.await.unwrap().unwrap();

        let (mut client, served) = connection(&CancellationToken::new());
        client.write_all(&REQUEST[..10]).await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0, "closed");
        assert!(served.await.unwrap().unwrap_err().contains("in time"));
    }

    /// A client that sends on gets to read the answer, and can't keep the connection by sending.
    #[tokio::test(start_paused = true)]
    async fn what_comes_after_a_refusal_is_read_for_a_while() {
        let (mut client, served) = connection(&CancellationToken::new());
        client.write_all(b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno\r\n").await.unwrap();
        answer(&mut client, "/a 0").await;
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0, "nothing more is said");
        client.write_all(&vec![b'x'; 200 << 10]).await.unwrap();
        let began = Instant::now();
        served.await.unwrap().unwrap();
        assert!(began.elapsed() <= FAREWELL);
        assert!(client.write_all(b"x").await.is_err(), "closed");
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_ends_idle_connections_and_finishes_requests() {
        let stop = CancellationToken::new();
        let (mut idle, idle_served) = connection(&stop);
        idle.write_all(REQUEST).await.unwrap();
        answer(&mut idle, "/a 5").await;
        let (mut busy, busy_served) = connection(&stop);
        busy.write_all(&REQUEST[..REQUEST.len() - 1]).await.unwrap();
        sleep(Duration::from_millis(1)).await;
        stop.cancel();
        assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0, "closed");
        idle_served.await.unwrap().unwrap();
        busy.write_all(b"o").await.unwrap();
        answer(&mut busy, "/a 5").await;
        assert_eq!(busy.read(&mut [0; 1]).await.unwrap(), 0, "closed");
        busy_served.await.unwrap().unwrap();
    }

    /// It was accepted just before, and its client won't be told that it should try again.
    #[tokio::test(start_paused = true)]
    async fn stopping_waits_a_moment_for_a_new_connections_first_request() {
        let stop = CancellationToken::new();
        let (mut new, new_served) = connection(&stop);
        let (mut silent, silent_served) = connection(&stop);
        stop.cancel();
        sleep(FIRST_REQUEST / 2).await;
        new.write_all(REQUEST).await.unwrap();
        answer(&mut new, "/a 5").await;
        assert_eq!(new.read(&mut [0; 1]).await.unwrap(), 0, "closed");
        new_served.await.unwrap().unwrap();
        assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0, "closed");
        silent_served.await.unwrap().unwrap();
    }
}
