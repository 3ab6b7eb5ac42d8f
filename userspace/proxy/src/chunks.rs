//! Bodies with a framing of AWS's on their way: followed where their chunks are not signed, signed again where they are.

use bytes::Bytes;
use chaperone_aws::{AwsChunkedHasher, ChunkResigner, EventResigner};
use chaperone_model::BodyDigest;
use tokio::sync::OwnedSemaphorePermit;

use crate::body::BodyError;

/// What follows such a body.
pub(crate) enum Chunks {
    /// Goes on as it is.
    Hashed(AwsChunkedHasher),
    /// Each chunk is held until its signature is checked, in memory that is accounted for.
    Signed(Box<ChunkResigner>, #[allow(dead_code)] OwnedSemaphorePermit), // held, and given back when the body is over
    /// The same for each message.
    Events(Box<EventResigner>, #[allow(dead_code)] OwnedSemaphorePermit),
}

impl Chunks {
    /// What goes on in the place of these bytes; of signed chunks possibly nothing yet.
    pub(crate) fn update(&mut self, bytes: &Bytes) -> Result<Bytes, BodyError> {
        match self {
            Self::Hashed(hasher) => Ok(hasher.update(bytes).map(|()| bytes.clone())?),
            Self::Signed(resigner, _) => Ok(resigner.update(bytes)?),
            Self::Events(resigner, _) => Ok(resigner.update(bytes)?),
        }
    }

    /// How many bytes are held back.
    pub(crate) fn held(&self) -> usize {
        match self {
            Self::Hashed(_) => 0,
            Self::Signed(resigner, _) => resigner.held(),
            Self::Events(resigner, _) => resigner.held(),
        }
    }

    /// The end of the body: what was inside of its framing.
    pub(crate) fn finish(self) -> Result<BodyDigest, BodyError> {
        match self {
            Self::Hashed(hasher) => Ok(hasher.finish()?),
            Self::Signed(resigner, _) => Ok(resigner.finish()?),
            Self::Events(resigner, _) => Ok(resigner.finish()?),
        }
    }
}
