//! HTTP/1.1 connections over their whole life.
//!
//! SDKs keep connections open long after their last call. hyper's buffers for one come to 16 KiB and more, so hyper is
//! there only from a request's head until a moment after the last answer. Between, and before the first request, a
//! connection is no more than its TLS session: idle peers cost next to nothing, and those that send a head byte by byte
//! no more than they have sent.

use std::{
    convert::Infallible,
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
use http::Request;
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::{Instant, sleep, timeout},
};

use crate::{
    body::AnswerBody,
    exchange::Inspected,
    strict::{MAX_FIELDS, MAX_HEAD_BYTES, Role, Strict},
};

/// For how long after an answer hyper's buffers are kept for the next request.
const LINGER: Duration = Duration::from_secs(2);
/// For the TLS alert that tells the other side of a connection's end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Answers the requests of one connection until it ends.
pub(crate) async fn serve<S>(inspected: Inspected, stream: S) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shared = inspected.shared.clone();
    let mut stream = Strict::new(stream, Role::Requests(inspected.violation.clone()));
    let inspected = Arc::new(inspected);
    let mut start = Bytes::new();
    loop {
        if start.is_empty() {
            let first = tokio::select! {
                first = timeout(shared.limits.head_timeout, first_bytes(&mut stream)) => first,
                () = shared.stop.cancelled() => break,
            };
            start = match first {
                Ok(Ok(bytes)) if !bytes.is_empty() => bytes,
                // The other side has gone, or had nothing more to say.
                _ if stream.is_between() => break,
                Ok(Ok(_)) => return Err("the connection ended within a request's head".to_owned()),
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => return Err("no whole request head came in time".to_owned()),
            };
        }
        match Box::pin(exchanges(&inspected, start, stream)).await? {
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
async fn exchanges<S>(
    inspected: &Arc<Inspected>,
    start: Bytes,
    stream: Strict<S>,
) -> Result<Option<(Bytes, Strict<S>)>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shared = &inspected.shared;
    let activity = Arc::new(Activity::default());
    let answers = activity.clone();
    let inspected = inspected.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (inspected, answering) = (inspected.clone(), Answering::begin(&answers));
        async move {
            let response = inspected.answer(request).await;
            Ok::<_, Infallible>(response.map(|body| Watched { body, _answering: answering }))
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.head_timeout)
        .max_headers(MAX_FIELDS)
        .max_buf_size(MAX_HEAD_BYTES + 8192)
        .serve_connection(TokioIo::new(Resumed { start, stream, activity: activity.clone() }), service);
    let mut linger = std::pin::pin!(sleep(LINGER));
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            ended = &mut connection => return tell(ended).map(|()| None),
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
            () = shared.stop.cancelled(), if !stopping => {
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

/// How a connection ended. A client that just goes away is nothing to write about.
pub(crate) fn tell(ended: hyper::Result<()>) -> Result<(), String> {
    match ended {
        Ok(()) => Ok(()),
        Err(error) if error.is_incomplete_message() || error.is_closed() => Ok(()),
        Err(error) => Err(crate::upstream::with_causes(&error)),
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
}

impl Activity {
    /// Nothing is under way in either direction.
    pub(crate) fn is_idle(&self) -> bool {
        self.answering.load(Relaxed) == 0 && !self.receiving.load(Relaxed) && !self.unsent.load(Relaxed)
    }

    /// How many requests there have been.
    pub(crate) fn began(&self) -> u32 {
        self.began.load(Relaxed)
    }
}

/// A request whose answer is not over.
pub(crate) struct Answering(Arc<Activity>);

impl Answering {
    pub(crate) fn begin(activity: &Arc<Activity>) -> Self {
        activity.answering.fetch_add(1, Relaxed);
        activity.began.fetch_add(1, Relaxed);
        Self(activity.clone())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Relaxed);
    }
}

/// An answer's body that tells when it is over.
pub(crate) struct Watched {
    pub(crate) body: AnswerBody,
    pub(crate) _answering: Answering,
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
}

impl<S: AsyncRead + Unpin> AsyncRead for Resumed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.start.is_empty() {
            let count = self.start.len().min(buf.remaining());
            buf.put_slice(&self.start[..count]);
            self.start.advance(count);
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.activity.receiving.store(!self.stream.is_between(), Relaxed);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Resumed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.activity.unsent.store(flushed.is_pending(), Relaxed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.activity.parting.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
