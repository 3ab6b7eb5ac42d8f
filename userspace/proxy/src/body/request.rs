//! A request's body on its way to AWS: each frame goes on and into the journal, and nothing is collected.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use chaperone_journal::{BodyRecorder, JournalError};
use chaperone_model::BodyDigest;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::{
    body::{chunked::Chunks, error::BodyError, stall::Stall},
    connection::quota::Quota,
};

/// What is known of a request's body so far; shared with whoever writes the outcome.
pub(crate) struct Sent {
    /// By whose share what goes nowhere is read.
    share: Arc<Quota>,
    pub(crate) digest: Option<BodyDigest>,
    pub(crate) payload: Option<BodyDigest>,
    pub(crate) error: Option<BodyError>,
    /// A body that did not go on to its end: the agent may still be sending it.
    pub(crate) unread: Option<Unread>,
    /// The outcome is on record: what still comes is read, so that the agent gets to read its answer, and goes nowhere.
    pub(crate) over: bool,
}

/// What is left of a body, and what was recorded of it so far.
pub(crate) struct Unread {
    pub(crate) body: Incoming,
    pub(crate) recorder: BodyRecorder,
    pub(crate) chunks: Option<Chunks>,
}

impl Unread {
    /// Records what still comes, up to so many bytes.
    pub(crate) async fn read(&mut self, mut most: u64, share: &Quota) -> Result<(), JournalError> {
        // Messages of an event stream are recorded as they are.
        let mut chunks = self.chunks.take().filter(|chunks| !matches!(chunks, Chunks::Events(..)));
        while let Some(Ok(frame)) = self.body.frame().await {
            let Ok(bytes) = frame.into_data() else { continue };
            let Some(left) = most.checked_sub(bytes.len() as u64) else { break };
            most = left;
            share.read_unwanted(bytes.len()).await;
            std::future::poll_fn(|cx| self.recorder.poll_ready(cx)).await?;
            match &mut chunks {
                None => self.recorder.push(bytes)?,
                // What is wrong with a body that goes nowhere is recorded, and nobody has to be told.
                Some(chunks) => {
                    if let Err(BodyError::Journal(error)) = chunks.update(&bytes, &mut self.recorder) {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Sent {
    pub(crate) fn of(share: Arc<Quota>) -> Self {
        Self { share, digest: None, payload: None, error: None, unread: None, over: false }
    }

    /// Nothing more of the request is recorded: how much of it was. Gives whether it was cut short.
    pub(crate) fn end(&mut self) -> bool {
        let Some(Unread { recorder, body, .. }) = self.unread.take() else { return false };
        self.digest = Some(recorder.finish());
        discard(body, self.share.clone());
        true
    }
}

/// How much is read of a body that goes nowhere, in bytes, and for how long.
const DISCARDED: u64 = 256 << 20;
const DISCARDED_WITHIN: Duration = Duration::from_mins(1);

/// Reads on, in a task of its own. Many clients don't look at an answer before all of their request is sent (RFC 9112,
/// 9.6): closed under their hands, the connection would be reset, and they would never learn what the answer was.
fn discard(mut body: Incoming, share: Arc<Quota>) {
    if body.is_end_stream() {
        return;
    }
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(timeout(DISCARDED_WITHIN, async move {
        let mut left = DISCARDED;
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(bytes as u64) {
                Some(rest) => left = rest,
                None => break,
            }
            share.read_unwanted(bytes).await;
        }
    }));
}

/// A request's body on its way to AWS.
pub enum Outgoing {
    /// Held in memory, because it had to be hashed before it could be signed.
    Whole(Option<Bytes>),
    /// Passed on as it comes.
    Streaming(Box<RequestStream>),
}

/// A request's body that is passed on as it comes, recorded on the way.
pub struct RequestStream {
    pub(crate) inner: Option<Incoming>,
    pub(crate) recorder: Option<BodyRecorder>,
    pub(crate) chunked: Option<Chunks>,
    /// The hash that the request declared.
    pub(crate) declared: Option<[u8; 32]>,
    /// The last frame is held back until the body is known to be what the head said.
    pub(crate) hold_last: bool,
    /// Over HTTP/2 there may be no trailers.
    pub(crate) version: Version,
    pub(crate) held: Option<Bytes>,
    pub(crate) sent: Arc<Mutex<Sent>>,
    pub(crate) stall: Stall,
}

impl RequestStream {
    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let text = error.to_string();
        self.sent.lock().error.get_or_insert(error);
        self.give_up();
        Poll::Ready(Some(Err(io::Error::other(text))))
    }

    fn give_up(&mut self) {
        match (self.inner.take(), self.recorder.take()) {
            // hyper doesn't ask for the end of a body whose announced length has gone out.
            (Some(body), Some(recorder)) if !body.is_end_stream() => {
                let mut sent = self.sent.lock();
                sent.unread = Some(Unread { body, recorder, chunks: self.chunked.take() });
                if sent.over {
                    sent.end();
                }
            }
            (_, recorder) => {
                self.recorder = recorder;
                self.close();
            }
        }
    }

    fn close(&mut self) {
        if let Some(recorder) = self.recorder.take() {
            self.sent.lock().digest = Some(recorder.finish());
        }
        if let Some(Ok(payload)) = self.chunked.take().map(Chunks::finish) {
            self.sent.lock().payload = payload;
        }
    }

    /// The body's end: only now is it known whether it was what the head said.
    fn end(&mut self) -> Result<(), BodyError> {
        self.inner = None;
        if let Some(recorder) = &mut self.recorder {
            recorder.flush()?;
        }
        let chunked = self.chunked.take();
        self.close();
        if let Some(chunked) = chunked {
            self.sent.lock().payload = chunked.finish()?;
        }
        let digest = self.sent.lock().digest;
        match (self.declared, digest) {
            (Some(declared), Some(digest)) if declared != digest.sha256 => Err(BodyError::Hash),
            _ => Ok(()),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        loop {
            let (Some(recorder), Some(inner)) = (&mut self.recorder, &mut self.inner) else {
                // Over: what was held back may go now.
                return Poll::Ready(self.held.take().map(|bytes| Ok(Frame::data(bytes))));
            };
            if let Err(error) = ready!(recorder.poll_ready(cx)) {
                return self.fail(error.into());
            }
            match Pin::new(inner).poll_frame(cx) {
                Poll::Pending => {
                    ready!(self.stall.poll(cx));
                    let after = self.stall.after;
                    return self.fail(BodyError::Stalled(after));
                }
                Poll::Ready(Some(Err(error))) => {
                    self.held = None;
                    return self.fail(BodyError::http(&error));
                }
                Poll::Ready(None) => {
                    if let Err(error) = self.end() {
                        self.held = None;
                        return self.fail(error);
                    }
                }
                Poll::Ready(Some(Ok(frame))) => {
                    self.stall.reset();
                    let Ok(bytes) = frame.into_data() else {
                        // Trailers of HTTP itself: AWS's are inside the aws-chunked body, and others aren't signed.
                        if self.version == Version::HTTP_2 {
                            self.held = None;
                            return self.fail(BodyError::Trailers);
                        }
                        continue;
                    };
                    if bytes.is_empty() {
                        continue;
                    }
                    let goes_on = match &mut self.chunked {
                        None => recorder.push(bytes.clone()).map(|()| bytes).map_err(BodyError::from),
                        Some(chunked) => chunked.update(&bytes, recorder),
                    };
                    let bytes = match goes_on {
                        Ok(bytes) if bytes.is_empty() => continue,
                        Ok(bytes) => bytes,
                        Err(error) => return self.fail(error),
                    };
                    let ready = if self.hold_last { self.held.replace(bytes) } else { Some(bytes) };
                    if let Some(bytes) = ready {
                        return Poll::Ready(Some(Ok(Frame::data(bytes))));
                    }
                }
            }
        }
    }
}

impl Drop for RequestStream {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Whole(bytes) => {
                Poll::Ready(bytes.take().filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Streaming(stream) => stream.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Streaming(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Streaming(stream) => {
                let held = stream.held.as_ref().map_or(0, Bytes::len) + stream.chunked.as_ref().map_or(0, Chunks::held);
                let held = held as u64;
                stream.inner.as_ref().map_or(SizeHint::with_exact(held), |inner| with_held(inner.size_hint(), held))
            }
        }
    }
}

/// What is held back is still to come.
fn with_held(hint: SizeHint, held: u64) -> SizeHint {
    match hint.exact() {
        Some(exact) => SizeHint::with_exact(exact + held),
        None => hint,
    }
}

/// Records a body that is in memory.
pub(crate) async fn record_whole(mut recorder: BodyRecorder, bytes: &Bytes) -> Result<BodyDigest, JournalError> {
    if !bytes.is_empty() {
        std::future::poll_fn(|cx| recorder.poll_ready(cx)).await?;
        recorder.push(bytes.clone())?;
        recorder.flush()?;
    }
    Ok(recorder.finish())
}
