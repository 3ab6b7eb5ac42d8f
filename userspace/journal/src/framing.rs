//! What stands around the payload of an aws-chunked body: sizes, signatures, trailers. It is recorded beside the payload,
//! so that the recorded body is the object itself, hashed once, and what was sent can yet be put together byte by byte.
//!
//! A record's payload is runs, one after another: where in the payload the run stands (8 bytes), its length (4 bytes),
//! both little-endian, and its bytes.

use bytes::{Buf as _, Bytes};

use crate::record::Fault;

/// A run's place and length.
const HEAD: usize = 12;

/// Runs that are not recorded yet.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    bytes: Vec<u8>,
    /// Where the first run stands.
    first: u64,
    /// Where the last run stands, and where it begins in `bytes`.
    last: Option<(u64, usize)>,
}

impl Runs {
    /// Adds bytes that stand at `at` in the payload.
    pub(crate) fn push(&mut self, at: u64, bytes: &[u8]) {
        let begin = match self.last {
            Some((last, begin)) if last == at => begin,
            _ => {
                if self.bytes.is_empty() {
                    self.first = at;
                }
                let begin = self.bytes.len();
                self.last = Some((at, begin));
                self.bytes.extend_from_slice(&at.to_le_bytes());
                self.bytes.extend_from_slice(&[0; 4]);
                begin
            }
        };
        self.bytes.extend_from_slice(bytes);
        let length = u32::try_from(self.bytes.len() - begin - HEAD).expect("BUG: runs are taken at some KiB");
        self.bytes[begin + 8..begin + HEAD].copy_from_slice(&length.to_le_bytes());
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Where the first run stands, and a record's payload.
    pub(crate) fn take(&mut self) -> Option<(u64, Bytes)> {
        let Self { bytes, first, .. } = std::mem::take(self);
        (!bytes.is_empty()).then(|| (first, bytes.into()))
    }
}

/// The runs in a record's payload, each with its place.
pub(crate) fn runs(mut payload: Bytes) -> Result<Vec<(u64, Bytes)>, Fault> {
    let mut found = Vec::new();
    while !payload.is_empty() {
        let cut_off = || Fault::Content("framing of a body that breaks off".into());
        let (at, length) = match (payload.try_get_u64_le(), payload.try_get_u32_le()) {
            (Ok(at), Ok(length)) => (at, usize::try_from(length).unwrap_or(usize::MAX)),
            _ => return Err(cut_off()),
        };
        if length > payload.len() {
            return Err(cut_off());
        }
        found.push((at, payload.split_to(length)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_read_as_they_were_written() {
        let mut written = Runs::default();
        assert_eq!(written.take(), None);
        for (at, text) in [(7, "5\r\n"), (7, "more"), (12, "\r\n"), (12, "0\r\n"), (12, "\r\n")] {
            written.push(at, text.as_bytes());
        }
        let (first, payload) = written.take().unwrap();
        assert_eq!((first, payload.len(), written.len()), (7, 2 * HEAD + 14, 0));
        let all = runs(payload.clone()).unwrap();
        assert_eq!(all, [(7, Bytes::from_static(b"5\r\nmore")), (12, Bytes::from_static(b"\r\n0\r\n\r\n"))]);
        for end in [1, 11, 12, 18, 25, payload.len() - 1] {
            assert!(runs(payload.slice(..end)).is_err(), "{end}");
        }
    }
}
