//! Recording one body while it passes.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use bytes::Bytes;
use chaperone_model::{BodyDigest, CallId, Direction};

use crate::{
    JournalError,
    codec::Codec,
    framing::Runs,
    item::{Item, now_us},
    kind::Kind,
    open_work::body_kind,
    queue::{Class, Shared},
    record::{MAX_FRAME, running, sha256},
};

/// Smaller frames are gathered: a record costs 120 bytes, and a frame of one byte can hold on to a large read buffer.
const SMALL: usize = 4 << 10;
/// Gathered bytes that are recorded at once.
const GATHERED: usize = 16 << 10;
/// How long gathered bytes may wait for more, if more comes at all.
const GATHER_TIME: Duration = Duration::from_millis(500);

/// Records one body. Its call's intent must have been appended, and its outcome must come after [`Self::finish`].
///
/// In `poll_frame`: call [`Self::poll_ready`] first, then poll for the frame, then [`Self::push`] it. Being ready holds
/// nothing, so a body that waits for a slow peer keeps nobody else from recording.
pub struct BodyRecorder {
    shared: Arc<Shared>,
    ticket: u64,
    call: CallId,
    kind: Kind,
    codec: Codec,
    /// Over everything that was handed to the writer.
    hash: digest::Context,
    recorded: u64,
    /// The most that is recorded, and how many bytes came beyond that.
    most: u64,
    beyond: u64,
    gathered: Vec<u8>,
    gathered_since: Option<Instant>,
    framing: Runs,
    failed: Option<JournalError>,
}

impl std::fmt::Debug for BodyRecorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyRecorder")
            .field("call", &self.call)
            .field("kind", &self.kind)
            .field("recorded", &self.recorded)
            .finish_non_exhaustive()
    }
}

impl BodyRecorder {
    pub(crate) fn new(shared: Arc<Shared>, call: CallId, direction: Direction) -> Self {
        Self {
            ticket: shared.ticket(),
            shared,
            call,
            kind: body_kind(direction),
            codec: Codec::default(),
            hash: digest::Context::new(&digest::SHA256),
            recorded: 0,
            most: u64::MAX,
            beyond: 0,
            gathered: Vec::new(),
            gathered_since: None,
            framing: Runs::default(),
            failed: None,
        }
    }

    /// Records no more than so many bytes; what comes beyond them is in the digest alone.
    #[must_use]
    pub fn keep(mut self, most: u64) -> Self {
        self.most = most;
        self
    }

    /// Records no more than so many bytes beyond those that it has.
    pub fn keep_more(&mut self, more: u64) {
        self.most = self.most.min((self.recorded + self.gathered.len() as u64).saturating_add(more));
    }

    /// Ready when there is memory for a frame; an error when frames can't be recorded.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), JournalError>> {
        if let Some(error) = &self.failed {
            return Poll::Ready(Err(error.clone()));
        }
        self.shared.poll_room(self.ticket, Class::Body, cx)
    }

    /// Records a frame. After an error the body must not go on: the recording would have a hole.
    pub fn push(&mut self, frame: Bytes) -> Result<(), JournalError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if frame.len() < SMALL {
            self.gathered.extend_from_slice(&frame);
            let since = *self.gathered_since.get_or_insert_with(Instant::now);
            if self.gathered.len() < GATHERED && since.elapsed() < GATHER_TIME {
                return Ok(());
            }
            return self.flush_payload();
        }
        self.flush_payload()?;
        let mut rest = frame;
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(MAX_FRAME));
            self.hand_over(part)?;
        }
        Ok(())
    }

    /// Records what stands here around the payload of an aws-chunked request body. It is none of the body's bytes, and not
    /// in its digest.
    pub fn push_framing(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let at = self.recorded + self.gathered.len() as u64;
        // Of a body whose beginning is kept, its beginning's.
        if self.beyond > 0 || at >= self.most {
            return Ok(());
        }
        for part in bytes.chunks(GATHERED) {
            self.framing.push(at, part);
            if self.framing.len() >= GATHERED {
                self.flush_framing()?;
            }
        }
        Ok(())
    }

    /// Hands gathered bytes to the writer. Call it at the body's end, before the end is passed on, to learn whether
    /// everything could be recorded; [`Self::finish`] does the same, but can't tell.
    pub fn flush(&mut self) -> Result<(), JournalError> {
        self.flush_payload()?;
        self.flush_framing()
    }

    fn flush_payload(&mut self) -> Result<(), JournalError> {
        self.gathered_since = None;
        if self.gathered.is_empty() {
            return Ok(());
        }
        let gathered = Bytes::from(std::mem::take(&mut self.gathered));
        self.hand_over(gathered)
    }

    fn flush_framing(&mut self) -> Result<(), JournalError> {
        let Some((at, payload)) = self.framing.take() else { return Ok(()) };
        let digest = sha256(&payload);
        self.admit(Kind::RequestFraming, at, digest, payload)
    }

    /// Ends the body, whole or not, and tells what was recorded of it.
    pub fn finish(mut self) -> BodyDigest {
        if self.failed.is_none() {
            drop(self.flush()); // an error means that less was recorded, which is what the digest then says
        }
        let kept = (self.beyond > 0).then_some(self.recorded);
        BodyDigest { bytes: self.recorded + self.beyond, sha256: running(&self.hash), kept }
    }

    fn hand_over(&mut self, mut payload: Bytes) -> Result<(), JournalError> {
        let room = usize::try_from(self.most.saturating_sub(self.recorded)).unwrap_or(usize::MAX);
        let beyond = payload.split_off(payload.len().min(room));
        if !payload.is_empty() {
            self.record(payload)?;
        }
        self.hash.update(&beyond);
        self.beyond += beyond.len() as u64;
        Ok(())
    }

    fn record(&mut self, part: Bytes) -> Result<(), JournalError> {
        let payload = self.codec.encode(part);
        let mut hash = self.hash.clone();
        hash.update(&payload);
        let length = payload.len() as u64;
        self.admit(self.kind, self.recorded, running(&hash), payload)?;
        self.hash = hash;
        self.recorded += length;
        Ok(())
    }

    fn admit(&mut self, kind: Kind, at: u64, digest: [u8; 32], payload: Bytes) -> Result<(), JournalError> {
        let item = Item {
            kind,
            flags: if kind.is_body() { self.codec.flags() } else { 0 },
            id: *self.call.as_bytes(),
            time_us: now_us(),
            body_offset: at,
            digest,
            payload,
            mark: None,
            session: None,
            staged: 0,
            waiter: None,
        };
        self.shared.admit(item).inspect_err(|error| self.failed = Some(error.clone()))
    }
}

impl Drop for BodyRecorder {
    fn drop(&mut self) {
        if self.failed.is_none() {
            drop(self.flush());
        }
        self.shared.forget(self.ticket);
    }
}
