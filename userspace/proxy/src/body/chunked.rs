//! Bodies with a framing of AWS's on their way: followed where their chunks are not signed, signed again where they are.
//! Either way they are recorded as what they carry, with the framing beside it.

use crate::{body::error::BodyError, connection::quota::Memory};
use bytes::Bytes;
use chaperone_aws::{AwsChunkedReader, ChunkResigner, ChunkedSink, EventResigner};
use chaperone_journal::{BodyRecorder, JournalError};
use chaperone_model::BodyDigest;

/// What follows such a body.
pub(crate) enum Chunks {
    /// It was wrong: what still comes is recorded as it is, and goes nowhere.
    Broken,
    /// Each message is held until its signature is checked, in memory that is accounted for.
    Events(Box<EventResigner>, Memory),
    /// Goes on as it is.
    Read(AwsChunkedReader),
    /// As with events, for each chunk.
    Signed(Box<ChunkResigner>, Memory),
}

impl Chunks {
    /// Records these bytes, and gives what goes on in their place; of signed chunks possibly nothing yet.
    pub(crate) fn update(&mut self, bytes: &Bytes, recorder: &mut BodyRecorder) -> Result<Bytes, BodyError> {
        self.remember(bytes.len())?;
        let mut record = Record { bytes, recorder, failed: Ok(()) };
        let result = match self {
            Self::Broken => {
                record.framing(bytes);
                Ok(Bytes::new())
            }
            Self::Events(resigner, _) => {
                record.payload(bytes);
                resigner.update(bytes).map_err(BodyError::from)
            }
            Self::Read(reader) => reader.update(bytes, &mut record).map(|()| bytes.clone()).map_err(BodyError::from),
            Self::Signed(resigner, _) => resigner.update(bytes, &mut record).map_err(BodyError::from),
        };
        record.failed?;
        if result.is_err() && !matches!(self, Self::Events(..)) {
            *self = Self::Broken;
        }
        self.remember(0)?;
        result
    }

    /// Counts what is held back, with so many bytes more.
    fn remember(&mut self, more: usize) -> Result<(), BodyError> {
        let held = self.held() + more;
        match self {
            Self::Broken | Self::Read(_) => Ok(()),
            Self::Events(_, memory) | Self::Signed(_, memory) => Ok(memory.resize(held)?),
        }
    }

    /// How many bytes are held back.
    pub(crate) fn held(&self) -> usize {
        match self {
            Self::Broken | Self::Read(_) => 0,
            Self::Events(resigner, _) => resigner.held(),
            Self::Signed(resigner, _) => resigner.held(),
        }
    }

    /// The end of the body. What is inside of the framing, where that isn't what is recorded.
    pub(crate) fn finish(self) -> Result<Option<BodyDigest>, BodyError> {
        match self {
            Self::Broken => Ok(None),
            Self::Events(resigner, _) => Ok(Some(resigner.finish()?)),
            Self::Read(reader) => Ok(reader.finish().map(|()| None)?),
            Self::Signed(resigner, _) => Ok(resigner.finish().map(|()| None)?),
        }
    }
}

/// Records the parts of a frame.
struct Record<'a> {
    bytes: &'a Bytes,
    recorder: &'a mut BodyRecorder,
    failed: Result<(), JournalError>,
}

impl ChunkedSink for Record<'_> {
    fn payload(&mut self, part: &[u8]) {
        if self.failed.is_ok() {
            self.failed = self.recorder.push(self.bytes.slice_ref(part));
        }
    }

    fn framing(&mut self, part: &[u8]) {
        if self.failed.is_ok() {
            self.failed = self.recorder.push_framing(part);
        }
    }
}
