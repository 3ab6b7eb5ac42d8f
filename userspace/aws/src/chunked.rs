//! A reader of aws-chunked bodies that passes: it checks the framing and hashes what is inside, while the bytes go on as
//! they are.
//!
//! `HEX-SIZE[;extension]CRLF data CRLF … 0[;extension]CRLF trailers CRLF`, as in
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html>.

use aws_lc_rs::digest;
use chaperone_model::BodyDigest;

const MAX_LINE: usize = 4096;
const MAX_TRAILERS: usize = 32;
/// S3 takes at most 5 GiB in one request; chunks larger than that are a lie.
const MAX_CHUNK: u64 = 5 * 1024 * 1024 * 1024;

/// What is wrong with an aws-chunked body. The agent's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkedError {
    /// It ended in the middle.
    #[error("the aws-chunked body ends before its last chunk")]
    Incomplete,
    /// The inner length is not the declared one.
    #[error("the aws-chunked body holds {actual} bytes and x-amz-decoded-content-length says {declared}")]
    Length {
        /// What the header says.
        declared: u64,
        /// What was there, so far.
        actual: u64,
    },
    /// The framing can't be read.
    #[error("the aws-chunked framing is wrong: {0}")]
    Malformed(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a line with a chunk's size.
    Size,
    /// In a chunk's data.
    Data,
    /// In the CRLF after a chunk's data: how many bytes of it are to come.
    DataEnd(u8),
    /// In a trailer's line.
    Trailer,
    Done,
}

/// Checks an aws-chunked body and hashes its payload.
pub struct AwsChunkedHasher {
    state: State,
    line: Vec<u8>,
    left: u64,
    total: u64,
    declared: Option<u64>,
    trailers: usize,
    hash: digest::Context,
}

impl std::fmt::Debug for AwsChunkedHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AwsChunkedHasher").field("total", &self.total).finish_non_exhaustive()
    }
}

impl AwsChunkedHasher {
    /// For a body whose `x-amz-decoded-content-length` is this.
    pub fn new(declared: Option<u64>) -> Self {
        Self {
            state: State::Size,
            line: Vec::new(),
            left: 0,
            total: 0,
            declared,
            trailers: 0,
            hash: digest::Context::new(&digest::SHA256),
        }
    }

    /// Takes the next bytes of the body.
    pub fn update(&mut self, mut bytes: &[u8]) -> Result<(), ChunkedError> {
        while let Some(&first) = bytes.first() {
            match self.state {
                State::Data => {
                    let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                    self.hash.update(&bytes[..here]);
                    bytes = &bytes[here..];
                    self.left -= here as u64;
                    if self.left == 0 {
                        self.state = State::DataEnd(2);
                    }
                }
                State::DataEnd(left) => {
                    if first != if left == 2 { b'\r' } else { b'\n' } {
                        return Err(ChunkedError::Malformed("no CRLF after a chunk"));
                    }
                    bytes = &bytes[1..];
                    self.state = if left == 2 { State::DataEnd(1) } else { State::Size };
                }
                State::Size | State::Trailer => {
                    let end = bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| at + 1);
                    if self.line.len() + end > MAX_LINE {
                        return Err(ChunkedError::Malformed("a line that is too long"));
                    }
                    self.line.extend_from_slice(&bytes[..end]);
                    bytes = &bytes[end..];
                    if self.line.ends_with(b"\n") {
                        let line = std::mem::take(&mut self.line);
                        let line = line.strip_suffix(b"\r\n").ok_or(ChunkedError::Malformed("a line without CR"))?;
                        if self.state == State::Size {
                            self.size(line)?;
                        } else {
                            self.trailer(line)?;
                        }
                        self.line.clear();
                    }
                }
                State::Done => return Err(ChunkedError::Malformed("bytes after the end")),
            }
        }
        Ok(())
    }

    /// The end of the body: the payload's length and SHA-256.
    pub fn finish(self) -> Result<BodyDigest, ChunkedError> {
        // Some clients leave out the empty line after the trailers; S3 takes that.
        let ended = self.state == State::Done || (self.state == State::Trailer && self.line.is_empty());
        if !ended {
            return Err(ChunkedError::Incomplete);
        }
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.hash.finish().as_ref());
        Ok(BodyDigest { bytes: self.total, sha256 })
    }

    fn size(&mut self, line: &[u8]) -> Result<(), ChunkedError> {
        let digits = line.split(|b| *b == b';').next().unwrap_or_default();
        let text = std::str::from_utf8(digits).unwrap_or_default();
        if text.is_empty() || text.len() > 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ChunkedError::Malformed("a chunk's size that is not hexadecimal"));
        }
        if line.iter().any(u8::is_ascii_control) {
            return Err(ChunkedError::Malformed("a control character in a chunk's head"));
        }
        let size = u64::from_str_radix(text, 16).map_err(|_| ChunkedError::Malformed("a chunk's size"))?;
        if size > MAX_CHUNK {
            return Err(ChunkedError::Malformed("a chunk that is too large"));
        }
        if size > 0 {
            self.total = self.total.saturating_add(size);
            if let Some(declared) = self.declared
                && self.total > declared
            {
                return Err(ChunkedError::Length { declared, actual: self.total });
            }
            self.left = size;
            self.state = State::Data;
            return Ok(());
        }
        if let Some(declared) = self.declared
            && self.total != declared
        {
            return Err(ChunkedError::Length { declared, actual: self.total });
        }
        self.state = State::Trailer;
        Ok(())
    }

    fn trailer(&mut self, line: &[u8]) -> Result<(), ChunkedError> {
        if line.is_empty() {
            self.state = State::Done;
            return Ok(());
        }
        self.trailers += 1;
        let colon = line.iter().position(|b| *b == b':');
        if self.trailers > MAX_TRAILERS || colon.is_none_or(|at| at == 0) || line.iter().any(u8::is_ascii_control) {
            return Err(ChunkedError::Malformed("a trailer that can't be read"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8], declared: Option<u64>, step: usize) -> Result<BodyDigest, ChunkedError> {
        let mut hasher = AwsChunkedHasher::new(declared);
        for piece in body.chunks(step) {
            hasher.update(piece)?;
        }
        hasher.finish()
    }

    #[test]
    fn the_payload_is_hashed_however_it_is_cut() {
        let body = b"5\r\nhello\r\n6;chunk-signature=ab\r\n world\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n";
        let sha256 = digest::digest(&digest::SHA256, b"hello world");
        for step in [1, 2, 3, 7, 1000] {
            let digest = read(body, Some(11), step).unwrap();
            assert_eq!((digest.bytes, &digest.sha256[..]), (11, sha256.as_ref()));
        }
        assert_eq!(read(b"0\r\n\r\n", Some(0), 1).unwrap().bytes, 0);
        assert_eq!(read(b"0\r\n", None, 1).unwrap().bytes, 0);
    }

    #[test]
    fn lies_are_refused() {
        use ChunkedError::{Incomplete, Length, Malformed};
        let error = |body: &[u8], declared| read(body, declared, 3).unwrap_err();
        assert_eq!(error(b"5\r\nhello\r\n0\r\n\r\n", Some(6)), Length { declared: 6, actual: 5 });
        assert_eq!(error(b"5\r\nhello\r\n0\r\n\r\n", Some(4)), Length { declared: 4, actual: 5 });
        assert_eq!(error(b"5\r\nhel", None), Incomplete);
        assert_eq!(error(b"5\r\nhello\r\n", None), Incomplete);
        assert_eq!(error(b"0\r\nx-amz", None), Incomplete);
        for bad in [
            &b"\r\n"[..],
            b"+5\r\nhello\r\n",
            b"0x5\r\nhello\r\n",
            b" 5\r\nhello\r\n",
            b"5\nhello\r\n",
            b"5\r\nhelloX\r\n",
            b"5\r\nhello\n",
            b"fffffffffffffffff\r\n",
            b"ffffffffffffffff\r\n",
            b"5;\x00\r\nhello\r\n",
            b"0\r\nno-colon\r\n\r\n",
            b"0\r\n:x\r\n\r\n",
            b"0\r\n\r\nmore",
            &[b'1'; 5000],
        ] {
            assert!(matches!(error(bad, None), Malformed(_)), "{:?}", String::from_utf8_lossy(bad));
        }
    }
}
