//! Reading a recorded body.

use std::collections::VecDeque;

use bytes::Bytes;
use chaperone_model::CallId;

use crate::{JournalError, Reader, codec, framing::runs, kind::Kind};

/// Streams a recorded body.
#[derive(Debug)]
pub struct BodyReader {
    reader: Reader,
    id: [u8; 16],
    kind: Kind,
}

impl BodyReader {
    pub(crate) fn new(reader: Reader, call: CallId, kind: Kind) -> Self {
        Self { reader, id: *call.as_bytes(), kind }
    }

    /// The next part; `None` at the end.
    pub fn next_part(&mut self) -> Result<Option<Bytes>, JournalError> {
        while let Some(record) = self.reader.next_record()? {
            if record.head.kind == self.kind && record.head.id == self.id {
                let codec = record.head.codec();
                let unknown = || JournalError::Codec { codec: codec::number(record.head.flags) };
                return Ok(Some(codec.ok_or_else(unknown)?.decode(record.payload)));
            }
        }
        Ok(None)
    }
}

/// Streams a recorded request body with the framing around its payload.
#[derive(Debug)]
pub struct FramedBodyReader {
    payload: BodyReader,
    framing: BodyReader,
    /// Framing that comes next, with where it stands.
    runs: VecDeque<(u64, Bytes)>,
    /// Payload that comes next.
    part: Bytes,
    /// Where that stands.
    at: u64,
}

impl FramedBodyReader {
    /// Of two readers of the same body.
    pub(crate) fn new(payload: BodyReader, other: BodyReader) -> Self {
        let framing = BodyReader { kind: Kind::RequestFraming, ..other };
        Self { payload, framing, runs: VecDeque::new(), part: Bytes::new(), at: 0 }
    }

    /// The next part; `None` at the end.
    pub fn next_part(&mut self) -> Result<Option<Bytes>, JournalError> {
        while self.runs.is_empty()
            && let Some(payload) = self.framing.next_part()?
        {
            let reader = &self.framing.reader;
            self.runs = runs(payload).map_err(|fault| JournalError::Damaged(Box::new(reader.wrong(fault))))?.into();
        }
        if let Some((_, run)) = self.runs.pop_front_if(|(at, _)| *at <= self.at) {
            return Ok(Some(run));
        }
        if self.part.is_empty() {
            let Some(part) = self.payload.next_part()? else {
                return Ok(self.runs.pop_front().map(|(_, run)| run));
            };
            self.part = part;
        }
        let until = self.runs.front().map_or(u64::MAX, |(at, _)| at - self.at);
        let length = self.part.len().min(usize::try_from(until).unwrap_or(usize::MAX));
        self.at += length as u64;
        Ok(Some(self.part.split_to(length)))
    }
}
