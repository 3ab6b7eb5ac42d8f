//! A WebSocket once it is open: what passes in both directions, recorded as bodies are, until both are over.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use chaperone_journal::BodyRecorder;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    time::sleep,
};

use crate::{
    body::{error::BodyError, request::Sent},
    call::outcome::OutcomeRecorder,
    connection::quota::Memory,
    data_plane::DataPlane,
    websocket::frames::AgentFrames,
};

/// Read at once from either side.
const BUFFER: usize = 16 << 10;

/// A WebSocket that AWS has opened. Its outcome is recorded when it is over, or dropped.
pub struct Relay {
    pub(crate) plane: Arc<DataPlane>,
    pub(crate) upstream: Option<Upgraded>,
    pub(crate) frames: AgentFrames,
    pub(crate) request: Option<BodyRecorder>,
    pub(crate) response: Option<BodyRecorder>,
    pub(crate) sent: Arc<Mutex<Sent>>,
    pub(crate) closing: Option<OutcomeRecorder>,
    /// The memory in which messages are held to be checked.
    pub(crate) held: Option<Memory>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("frames", &self.frames).finish_non_exhaustive()
    }
}

impl Relay {
    /// Passes on what comes from the agent and from AWS. `None`: the agent sent something before it was answered.
    pub(crate) async fn run<S>(mut self, agent: Option<S>) -> Result<(), String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let passed = match agent {
            Some(agent) => self.pass(agent).await,
            None => Err(BodyError::Http("the agent sent something before the WebSocket was open".into())),
        };
        let told = passed.as_ref().copied().map_err(ToString::to_string);
        self.close(passed.err());
        told
    }

    async fn pass<S>(&mut self, agent: S) -> Result<(), BodyError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (Some(upstream), Some(request), Some(response)) =
            (self.upstream.take(), &mut self.request, &mut self.response)
        else {
            return Err(BodyError::Http("BUG: the WebSocket has been used already".into()));
        };
        let frames = &mut self.frames;
        let (mut from_agent, mut to_agent) = split(agent);
        let (mut from_aws, mut to_aws) = split(TokioIo::new(upstream));
        let heard = Heard::new();
        let up = async {
            while let Some(bytes) = read(&mut from_agent, &heard).await? {
                let (record, onward) = frames.update(&bytes)?;
                write(&mut to_aws, request, record, &onward, &heard).await?;
            }
            frames.finish()?;
            end(&mut to_aws, request, &heard).await
        };
        let down = async {
            while let Some(bytes) = read(&mut from_aws, &heard).await? {
                write(&mut to_agent, response, bytes.clone(), &bytes, &heard).await?;
            }
            end(&mut to_agent, response, &heard).await
        };
        let limits = &self.plane.limits;
        let both = async { tokio::try_join!(up, down).map(|_| ()) };
        tokio::select! {
            passed = both => passed,
            stalled = heard.stalled(limits.websocket_timeout, limits.body_timeout) => Err(BodyError::Stalled(stalled)),
            () = self.plane.stop.cancelled() => Err(BodyError::Http("the daemon stopped".into())),
        }
    }

    fn close(&mut self, error: Option<BodyError>) {
        self.held = None;
        if let Some(request) = self.request.take() {
            self.sent.lock().digest = Some(request.finish());
        }
        let response = self.response.take().map(BodyRecorder::finish);
        if let Some(closing) = self.closing.take() {
            closing.close(response, error);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.close(Some(BodyError::Http("the agent went away before the WebSocket's end".into())));
    }
}

/// When something was last heard of either side, and whether one of them is over.
struct Heard(Mutex<(Instant, bool)>);

impl Heard {
    fn new() -> Self {
        Self(Mutex::new((Instant::now(), false)))
    }

    fn now(&self) {
        self.0.lock().0 = Instant::now();
    }

    /// Comes back when nothing was heard for `both`, or for `one` where one side is over.
    async fn stalled(&self, both: Duration, one: Duration) -> Duration {
        loop {
            let (since, over) = *self.0.lock();
            let after = if over { one } else { both };
            let Some(left) = after.checked_sub(since.elapsed()).filter(|left| !left.is_zero()) else { return after };
            // One side's end makes the time shorter, which is seen at the latest after that.
            sleep(left.min(one)).await;
        }
    }
}

/// What comes next; `None` at the end. Most peers end a WebSocket by its own frames, and the connection without ado.
async fn read<R: AsyncRead + Unpin>(from: &mut R, heard: &Heard) -> Result<Option<Bytes>, BodyError> {
    let mut buffer = BytesMut::with_capacity(BUFFER);
    let count = match from.read_buf(&mut buffer).await {
        Ok(count) => count,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
        Err(error) => return Err(BodyError::Http(error.to_string())),
    };
    heard.now();
    Ok((count > 0).then(|| buffer.freeze()))
}

/// Records what came, and only then sends it on.
async fn write<W: AsyncWrite + Unpin>(
    to: &mut W,
    recorder: &mut BodyRecorder,
    record: Bytes,
    onward: &[u8],
    heard: &Heard,
) -> Result<(), BodyError> {
    std::future::poll_fn(|cx| recorder.poll_ready(cx)).await?;
    recorder.push(record)?;
    let written = async {
        to.write_all(onward).await?;
        to.flush().await
    };
    written.await.map_err(|error| BodyError::Http(error.to_string()))?;
    heard.now();
    Ok(())
}

/// One direction is over; the other may go on for a while.
async fn end<W: AsyncWrite + Unpin>(to: &mut W, recorder: &mut BodyRecorder, heard: &Heard) -> Result<(), BodyError> {
    recorder.flush()?;
    // Whoever has gone already needs no farewell.
    let _ = to.shutdown().await;
    *heard.0.lock() = (Instant::now(), true);
    Ok(())
}
