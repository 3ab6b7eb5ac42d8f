//! aws-chunked bodies that pass: the framing is checked and the payload told from it, and where chunks are signed each
//! signature is checked and replaced by ours.
//!
//! `HEX-SIZE[;extension]CRLF data CRLF … 0[;extension]CRLF trailers CRLF`, as in
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html>.

mod reader;
mod resigner;

pub use reader::AwsChunkedReader;
pub use resigner::{ChunkKey, ChunkResigner};

/// Where the parts of an aws-chunked body go, in their order. Nothing is left out, whatever is wrong with it.
pub trait ChunkedSink {
    /// Bytes of the payload.
    fn payload(&mut self, bytes: &[u8]);
    /// Bytes around it: sizes, signatures, trailers, and what can't be read as any of these.
    fn framing(&mut self, bytes: &[u8]);
}

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
    /// The signature of a chunk or of the trailer is not the one that the session's key makes of it.
    #[error("the signature of {0} is not the one that this session's key makes")]
    Signature(&'static str),
    /// A signed chunk must be held until its signature is checked, and is too large for that.
    #[error("a signed chunk has {size} bytes, and at most {bound} are held to be checked (limits.signed_chunk_bytes)")]
    TooLarge {
        /// The chunk's length.
        size: u64,
        /// What would be held.
        bound: usize,
    },
}

/// Reads the framing, however the bytes are cut.
struct Framing {
    state: State,
    line: Vec<u8>,
    left: u64,
    total: u64,
    declared: Option<u64>,
    trailers: usize,
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

/// A part of the body. Lines come without their CRLF.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    /// The CRLF after a chunk's data.
    ChunkEnd,
    /// Bytes of a chunk.
    Data(&'a [u8]),
    /// The empty line at the end.
    End,
    /// A chunk's first line.
    Head(u64, &'a [u8]),
    /// A trailer's line; there is a colon in it, and a name before that.
    Trailer(&'a [u8]),
}

impl Framing {
    /// For a body whose `x-amz-decoded-content-length` is this.
    fn new(declared: Option<u64>) -> Self {
        Self { state: State::Size, line: Vec::new(), left: 0, total: 0, declared, trailers: 0 }
    }

    /// The next piece of what is taken off the front of `bytes`; `None` when they are used up.
    fn next<'a, 'b: 'a>(&'a mut self, bytes: &mut &'b [u8]) -> Result<Option<Piece<'a>>, ChunkedError> {
        while let Some(&first) = bytes.first() {
            match self.state {
                State::Data => {
                    let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                    let (data, rest) = bytes.split_at(here);
                    *bytes = rest;
                    self.left -= here as u64;
                    if self.left == 0 {
                        self.state = State::DataEnd(2);
                    }
                    return Ok(Some(Piece::Data(data)));
                }
                State::DataEnd(left) => {
                    if first != if left == 2 { b'\r' } else { b'\n' } {
                        return Err(ChunkedError::Malformed("no CRLF after a chunk"));
                    }
                    *bytes = &bytes[1..];
                    if left == 2 {
                        self.state = State::DataEnd(1);
                    } else {
                        self.state = State::Size;
                        return Ok(Some(Piece::ChunkEnd));
                    }
                }
                State::Size | State::Trailer => {
                    if self.line.ends_with(b"\n") {
                        self.line.clear();
                    }
                    let end = bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| at + 1);
                    if self.line.len() + end > MAX_LINE {
                        return Err(ChunkedError::Malformed("a line that is too long"));
                    }
                    let (part, rest) = bytes.split_at(end);
                    self.line.extend_from_slice(part);
                    *bytes = rest;
                    if self.line.ends_with(b"\n") {
                        return if self.state == State::Size { self.head() } else { self.trailer() }.map(Some);
                    }
                }
                State::Done => return Err(ChunkedError::Malformed("bytes after the end")),
            }
        }
        Ok(None)
    }

    /// The same, and each part goes to `sink`; after an error, all that is left.
    fn split<'a, 'b: 'a>(
        &'a mut self,
        bytes: &mut &'b [u8],
        sink: &mut impl ChunkedSink,
    ) -> Result<Option<Piece<'a>>, ChunkedError> {
        let before = *bytes;
        let piece = match self.next(bytes) {
            Ok(piece) => piece,
            Err(error) => {
                sink.framing(before);
                *bytes = &[];
                return Err(error);
            }
        };
        let part = &before[..before.len() - bytes.len()];
        match piece {
            Some(Piece::Data(_)) => sink.payload(part),
            _ => sink.framing(part),
        }
        Ok(piece)
    }

    /// Whether this may be the body's end.
    fn is_over(&self) -> bool {
        // Some clients leave out the empty line after the trailers; S3 takes that.
        self.state == State::Done
            || (self.state == State::Trailer && (self.line.is_empty() || self.line.ends_with(b"\n")))
    }

    fn line(&self) -> Result<&[u8], ChunkedError> {
        let line = self.line.strip_suffix(b"\r\n").ok_or(ChunkedError::Malformed("a line without CR"))?;
        if line.iter().any(u8::is_ascii_control) {
            return Err(ChunkedError::Malformed("a control character in a line"));
        }
        Ok(line)
    }

    fn head(&mut self) -> Result<Piece<'_>, ChunkedError> {
        let line = self.line()?;
        let digits = line.split(|b| *b == b';').next().unwrap_or_default();
        let text = std::str::from_utf8(digits).unwrap_or_default();
        if text.is_empty() || text.len() > 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ChunkedError::Malformed("a chunk's size that is not hexadecimal"));
        }
        let size = u64::from_str_radix(text, 16).map_err(|_| ChunkedError::Malformed("a chunk's size"))?;
        if size > MAX_CHUNK {
            return Err(ChunkedError::Malformed("a chunk that is too large"));
        }
        self.total = self.total.saturating_add(size);
        match self.declared {
            Some(declared) if self.total > declared || (size == 0 && self.total != declared) => {
                return Err(ChunkedError::Length { declared, actual: self.total });
            }
            _ => {}
        }
        self.left = size;
        self.state = if size == 0 { State::Trailer } else { State::Data };
        self.line().map(|line| Piece::Head(size, line))
    }

    fn trailer(&mut self) -> Result<Piece<'_>, ChunkedError> {
        if self.line()?.is_empty() {
            self.state = State::Done;
            return Ok(Piece::End);
        }
        self.trailers += 1;
        let line = self.line()?;
        let colon = line.iter().position(|b| *b == b':');
        if self.trailers > MAX_TRAILERS || colon.is_none_or(|at| at == 0) {
            return Err(ChunkedError::Malformed("a trailer that can't be read"));
        }
        Ok(Piece::Trailer(line))
    }
}

#[cfg(test)]
mod tests {
    use super::ChunkedSink;

    /// What was told apart, and all of it in its order.
    #[derive(Debug, Default, PartialEq, Eq)]
    pub(super) struct Seen {
        pub payload: Vec<u8>,
        pub all: Vec<u8>,
    }

    impl ChunkedSink for Seen {
        fn payload(&mut self, bytes: &[u8]) {
            self.payload.extend_from_slice(bytes);
            self.all.extend_from_slice(bytes);
        }

        fn framing(&mut self, bytes: &[u8]) {
            self.all.extend_from_slice(bytes);
        }
    }
}
