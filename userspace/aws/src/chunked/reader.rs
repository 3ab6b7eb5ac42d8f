//! Bodies whose chunks are not signed: checked, while the bytes go on as they are.

use super::{ChunkedError, ChunkedSink, Framing};

/// Checks an aws-chunked body and tells its payload from its framing.
pub struct AwsChunkedReader(Framing);

impl std::fmt::Debug for AwsChunkedReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AwsChunkedReader").field("total", &self.0.total).finish_non_exhaustive()
    }
}

impl AwsChunkedReader {
    /// For a body whose `x-amz-decoded-content-length` is this.
    pub fn new(declared: Option<u64>) -> Self {
        Self(Framing::new(declared))
    }

    /// Takes the next bytes of the body. All of them are in `sink` then, also after an error.
    pub fn update(&mut self, mut bytes: &[u8], sink: &mut impl ChunkedSink) -> Result<(), ChunkedError> {
        while !bytes.is_empty() {
            self.0.split(&mut bytes, sink)?;
        }
        Ok(())
    }

    /// The end of the body.
    pub fn finish(self) -> Result<(), ChunkedError> {
        if self.0.is_over() { Ok(()) } else { Err(ChunkedError::Incomplete) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunked::tests::Seen;

    /// The payload.
    fn read(body: &[u8], declared: Option<u64>, step: usize) -> Result<Vec<u8>, ChunkedError> {
        let mut reader = AwsChunkedReader::new(declared);
        let mut seen = Seen::default();
        for (piece, from) in body.chunks(step).zip((0..).step_by(step)) {
            let result = reader.update(piece, &mut seen);
            assert_eq!(seen.all, body[..from + piece.len()], "all of it is told, also of what is wrong");
            result?;
        }
        reader.finish().map(|()| seen.payload)
    }

    #[test]
    fn the_payload_is_told_however_it_is_cut() {
        let body = b"5\r\nhello\r\n6;chunk-signature=ab\r\n world\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n";
        for step in [1, 2, 3, 7, 1000] {
            assert_eq!(read(body, Some(11), step).unwrap(), b"hello world");
        }
        assert_eq!(read(b"0\r\n\r\n", Some(0), 1).unwrap(), b"");
        assert_eq!(read(b"0\r\n", None, 1).unwrap(), b"");
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
