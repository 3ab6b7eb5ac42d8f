//! Connections that are opened: their requests are answered one by one.

use std::{net::SocketAddr, sync::Arc};

use chaperone_capture::ALTERNATE_HTTPS;
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep},
};

use crate::{
    call,
    connection::{accepted::Accepted, fair::FairExecutor, http_connection::HttpConnection},
    http::{
        frames::Frames,
        heads::Heads,
        keep_alive::{self, Activity, Terms, tell},
    },
};

/// What one HTTP/2 stream holds beside its head, in bytes: of an answer that the agent doesn't take.
const HTTP2_STREAM: usize = 16 << 10;
/// What an HTTP/2 connection holds beside its window, in bytes.
const HTTP2_BUFFERS: usize = 32 << 10;
impl Accepted {
    fn inspected(&self, name: Option<&str>) -> HttpConnection {
        // Plain HTTP goes on to AWS over TLS: what carries our signature is never sent in the clear.
        let port = if self.target().port() == ALTERNATE_HTTPS { ALTERNATE_HTTPS } else { 443 };
        HttpConnection {
            plane: self.shared.clone(),
            session: self.session.clone(),
            id: self.id,
            process: self.process.clone(),
            share: self.share.clone(),
            name: name.map(Arc::from),
            upstream: SocketAddr::new(self.target().ip(), port),
            plain: self.target().port() == 80,
            heads: Arc::new(Heads::new(&self.share)),
            unrecorded: self.unrecorded.get().cloned(),
        }
    }

    pub(super) async fn serve_http1<S>(&self, name: Option<&str>, stream: S) -> Result<(u64, u64), String>
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

    pub(super) async fn serve_http2<S>(&self, name: &str, stream: S) -> Result<(u64, u64), String>
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
        let connection = http2::Builder::new(FairExecutor(self.share.lane().clone()))
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
}
