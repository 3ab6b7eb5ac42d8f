//! An answer's body on its way to the agent: changed by its transforms, and recorded as what the agent gets.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use chaperone_journal::{BodyRecorder, JournalError};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::{
    body::{error::BodyError, stall::Stall, transform::Transforms},
    call::outcome::OutcomeRecorder,
    websocket::relay::Relay,
};

/// An answer's body on its way to the agent.
pub enum AnswerBody {
    /// AWS's, recorded on the way.
    Streaming(Box<AnswerStream>),
    /// None: after this answer the connection is a WebSocket.
    Relay(Box<Relay>),
    /// The daemon's own.
    Whole(Option<Bytes>),
}

/// AWS's answer, recorded on the way. When it is over, or dropped, the outcome is recorded.
pub struct AnswerStream {
    pub(crate) inner: Incoming,
    /// The body's beginning, where it was there together with the head; not recorded yet.
    pub(crate) first: Option<Frame<Bytes>>,
    /// Or what was wrong with it.
    pub(crate) broken: Option<hyper::Error>,
    pub(crate) recorder: Option<BodyRecorder>,
    pub(crate) closing: Option<OutcomeRecorder>,
    /// What still changes the body.
    pub(crate) transforms: Option<Transforms>,
    /// What they gave, and what of it was not given out yet.
    pub(crate) changed: VecDeque<Frame<Bytes>>,
    pub(crate) stall: Stall,
}

impl AnswerStream {
    /// The body is over before it began.
    pub(crate) fn end_now(&mut self) {
        self.finish(None);
    }

    /// Gives the body's beginning a chance to be there with the head, so that both go on in one piece: hyper's client
    /// reads a body only when asked, in a task of its own, which runs before this one is polled again. It is asked
    /// twice and never waited for: a body that comes later must not keep the head back.
    pub(crate) async fn look_ahead(&mut self) {
        let mut asked = false;
        std::future::poll_fn(|cx| {
            if self.inner.is_end_stream() {
                return Poll::Ready(());
            }
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => self.first = Some(frame),
                Poll::Ready(Some(Err(error))) => self.broken = Some(error),
                Poll::Ready(None) => {}
                Poll::Pending if asked => {}
                Poll::Pending => {
                    asked = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            Poll::Ready(())
        })
        .await;
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(frame) = self.first.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    /// Nothing comes after what was given out.
    fn is_over(&self) -> bool {
        self.first.is_none()
            && self.broken.is_none()
            && self.transforms.is_none()
            && self.changed.is_empty()
            && self.inner.is_end_stream()
    }

    /// Nothing of the end goes on before all of it is with the writer.
    fn flush(&mut self) -> Result<(), JournalError> {
        self.recorder.as_mut().map_or(Ok(()), BodyRecorder::flush)
    }

    fn finish(&mut self, error: Option<BodyError>) {
        let digest = self.recorder.take().map(BodyRecorder::finish);
        if let Some(closing) = self.closing.take() {
            closing.close(digest, error);
        }
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let text = error.to_string();
        self.finish(Some(error));
        Poll::Ready(Some(Err(io::Error::other(text))))
    }

    /// The next frame as the agent gets it: AWS's own, or what the transforms make of it.
    fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(frame) = self.changed.pop_front() {
                return Poll::Ready(Some(Ok(frame)));
            }
            let frame = match self.poll_inner(cx) {
                Poll::Pending => {
                    ready!(self.stall.poll(cx));
                    return Poll::Ready(Some(Err(BodyError::Stalled(self.stall.after))));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(BodyError::http(&error)))),
                Poll::Ready(Some(Ok(frame))) => Some(frame),
                Poll::Ready(None) => None,
            };
            self.stall.reset();
            let Some(transforms) = &mut self.transforms else { return Poll::Ready(frame.map(Ok)) };
            let mut out = Vec::new();
            let (ended, mut trailers) = match frame.map(Frame::into_data) {
                Some(Ok(bytes)) => {
                    if let Err(error) = transforms.push(bytes, &mut out) {
                        return Poll::Ready(Some(Err(error.into())));
                    }
                    (self.inner.is_end_stream(), None)
                }
                Some(Err(frame)) => (true, Some(frame)),
                None => (true, None),
            };
            if ended {
                if let Err(error) = transforms.finish(&mut out) {
                    return Poll::Ready(Some(Err(error.into())));
                }
                trailers = trailers.map(|frame| match frame.into_trailers() {
                    Ok(mut fields) => {
                        transforms.trailers(&mut fields);
                        Frame::trailers(fields)
                    }
                    Err(frame) => frame,
                });
                self.transforms = None;
            }
            self.changed.extend(out.into_iter().map(Frame::data));
            self.changed.extend(trailers);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Some(recorder) = &mut self.recorder else { return Poll::Ready(None) };
        if let Err(error) = ready!(recorder.poll_ready(cx)) {
            return self.fail(error.into());
        }
        let frame = match ready!(self.poll_changed(cx)) {
            None => {
                if let Err(error) = self.flush() {
                    return self.fail(error.into());
                }
                self.finish(None);
                return Poll::Ready(None);
            }
            Some(Err(error)) => return self.fail(error),
            Some(Ok(frame)) => frame,
        };
        if let Some(bytes) = frame.data_ref()
            && let Some(recorder) = &mut self.recorder
            && let Err(error) = recorder.push(bytes.clone())
        {
            return self.fail(error.into());
        }
        // The outcome is recorded before the agent can know that the answer is whole.
        if self.is_over() {
            if let Err(error) = self.flush() {
                return self.fail(error.into());
            }
            self.finish(None);
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Drop for AnswerStream {
    fn drop(&mut self) {
        let whole = self.is_over();
        let broken = || BodyError::Http("the agent went away before the answer's end".into());
        self.finish((!whole).then(broken));
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Streaming(stream) => stream.poll(cx),
            Self::Relay(_) => Poll::Ready(None),
            Self::Whole(bytes) => {
                Poll::Ready(bytes.take().filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Streaming(stream) => stream.recorder.is_none() || stream.is_over(),
            Self::Relay(_) => true,
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Streaming(stream) => {
                if stream.transforms.is_some() || !stream.changed.is_empty() {
                    return SizeHint::default();
                }
                let held = stream.first.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64;
                let mut hint = stream.inner.size_hint();
                if let Some(upper) = hint.upper() {
                    hint.set_upper(upper + held);
                }
                hint.set_lower(hint.lower() + held);
                hint
            }
            Self::Relay(_) => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}
