//! aws-chunked bodies on their way: followed where their chunks are not signed, signed again where they are.

use bytes::Bytes;
use chaperone_aws::{AwsChunkedHasher, ChunkResigner, ChunkedError};
use chaperone_model::BodyDigest;
use tokio::sync::OwnedSemaphorePermit;

/// What follows an aws-chunked body.
pub(crate) enum Chunks {
    /// Goes on as it is.
    Hashed(AwsChunkedHasher),
    /// Each chunk is held until its signature is checked, in memory that is accounted for.
    Signed(Box<ChunkResigner>, #[allow(dead_code)] OwnedSemaphorePermit), // held, and given back when the body is over
}

impl Chunks {
    /// What goes on in the place of these bytes; of signed chunks possibly nothing yet.
    pub(crate) fn update(&mut self, bytes: &Bytes) -> Result<Bytes, ChunkedError> {
        match self {
            Self::Hashed(hasher) => hasher.update(bytes).map(|()| bytes.clone()),
            Self::Signed(resigner, _) => resigner.update(bytes),
        }
    }

    /// How many bytes are held back.
    pub(crate) fn held(&self) -> usize {
        match self {
            Self::Hashed(_) => 0,
            Self::Signed(resigner, _) => resigner.held(),
        }
    }

    /// The end of the body: what was inside of its framing.
    pub(crate) fn finish(self) -> Result<BodyDigest, ChunkedError> {
        match self {
            Self::Hashed(hasher) => hasher.finish(),
            Self::Signed(resigner, _) => resigner.finish(),
        }
    }
}
