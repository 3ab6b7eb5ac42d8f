//! What a body's bytes pass between the proxy and the chain.
//!
//! The chain covers what is recorded: a frame's place and digest are those of the encoded bytes, so that anybody can
//! verify a journal whose bodies only some can read. The codec's number is in the flags of each frame.

use bytes::Bytes;

/// The codec's number in the flags of a body's frame.
pub(crate) const FLAGS_CODEC: u8 = 0b0111_0000;

/// How a body's bytes are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Codec {
    /// As they are.
    #[default]
    Plain,
}

impl Codec {
    /// All of them: number, name and what it is.
    #[cfg(test)] // and documentation
    pub(crate) const ALL: &'static [(u8, &'static str, &'static str)] = &[(0, "plain", "The bytes as they are.")];

    /// The codec in a frame's flags, if this version knows it.
    pub(crate) const fn of(flags: u8) -> Option<Self> {
        match number(flags) {
            0 => Some(Self::Plain),
            _ => None,
        }
    }

    /// What it puts into a frame's flags.
    pub(crate) const fn flags(self) -> u8 {
        match self {
            Self::Plain => 0,
        }
    }

    /// A part of a body as it is recorded.
    pub(crate) fn encode(self, part: Bytes) -> Bytes {
        match self {
            Self::Plain => part,
        }
    }

    /// A recorded part as it was.
    pub(crate) fn decode(self, part: Bytes) -> Bytes {
        match self {
            Self::Plain => part,
        }
    }
}

/// The codec's number in a frame's flags.
pub(crate) const fn number(flags: u8) -> u8 {
    (flags & FLAGS_CODEC) >> FLAGS_CODEC.trailing_zeros()
}
