//! Bodies whose chunks are not signed: checked and hashed, while the bytes go on as they are.

use aws_lc_rs::digest;
use chaperone_model::BodyDigest;

use super::{ChunkedError, Framing, Piece};

/// Checks an aws-chunked body and hashes its payload.
pub struct AwsChunkedHasher {
    framing: Framing,
    hash: digest::Context,
}

impl std::fmt::Debug for AwsChunkedHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AwsChunkedHasher").field("total", &self.framing.total).finish_non_exhaustive()
    }
}

impl AwsChunkedHasher {
    /// For a body whose `x-amz-decoded-content-length` is this.
    pub fn new(declared: Option<u64>) -> Self {
        Self { framing: Framing::new(declared), hash: digest::Context::new(&digest::SHA256) }
    }

    /// Takes the next bytes of the body.
    pub fn update(&mut self, mut bytes: &[u8]) -> Result<(), ChunkedError> {
        while let Some(piece) = self.framing.next(&mut bytes)? {
            if let Piece::Data(data) = piece {
                self.hash.update(data);
            }
        }
        Ok(())
    }

    /// The end of the body: the payload's length and SHA-256.
    pub fn finish(self) -> Result<BodyDigest, ChunkedError> {
        if !self.framing.is_over() {
            return Err(ChunkedError::Incomplete);
        }
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.hash.finish().as_ref());
        Ok(BodyDigest { bytes: self.framing.total, sha256 })
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
