//! One record's bytes: a head of 120 bytes, laid out as `FIELDS` says, and a payload.
//!
//! A record's hash is SHA-256 over the hash before it and bytes 8 to 88 of its head. So the chain covers the payload
//! through its digest, and a body's bytes are hashed once. The checksum begins with the journal's id, so that an agent
//! can't put bytes into a body that pass for a record when a start looks over a torn end.
//!
//! `docs/journal.md` is the format byte for byte; a test holds it to what stands here.

use std::{fmt, path::PathBuf};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    codec::{Codec, FLAGS_CODEC},
    kind::Kind,
};

/// A head's length in bytes.
pub(crate) const HEAD: usize = 120;
/// The longest payload that is ever written or believed.
pub(crate) const MAX_PAYLOAD: usize = 512 << 10;
/// The longest frame of a body; longer ones are split, so that readers need little memory.
pub(crate) const MAX_FRAME: usize = 64 << 10;

pub(crate) const MAGIC: [u8; 4] = *b"CHJ1";

/// A head's fields: where each begins, how many bytes it has, and what it is. Integers are little-endian.
#[cfg(test)] // and documentation
pub(crate) const FIELDS: &[(usize, usize, &str)] = &[
    (0, 4, "`CHJ1`"),
    (4, 4, "CRC32C of the 16 bytes of the journal's id and of everything after this field, payload included"),
    (8, 4, "the payload's length"),
    (12, 1, "kind"),
    (13, 1, "flags"),
    (14, 2, "zero"),
    (16, 8, "sequence number, from 1, without gaps over all segments"),
    (24, 8, "microseconds since 1970"),
    (32, 16, "what it is about, such as the call or session; zero if nothing"),
    (48, 8, "body frames: where the frame begins in its recorded body; framing: where its first run stands; else zero"),
    (56, 32, "body frames: SHA-256 of the recorded body up to and with this frame; all else: SHA-256 of the payload"),
    (88, 32, "the chain: hash of the record before; zero for the first"),
];

/// The checkpoint that ends its segment.
pub(crate) const FLAG_SEAL: u8 = 1;
/// The first record of a commit: everything before it was durable when it was written. A start tells by it what a
/// crash can have torn (the last commit) from what must have been damaged afterwards.
pub(crate) const FLAG_COMMIT: u8 = 2;
/// What this version knows the meaning of. Other flags are kept, and mean nothing to it.
pub(crate) const KNOWN_FLAGS: u8 = FLAG_SEAL | FLAG_COMMIT | FLAGS_CODEC;

/// A record's number: from 1, without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A record's hash in the chain.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainHash(#[serde(with = "hex::serde")] pub [u8; 32]);

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A record's fixed head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// What it is.
    pub kind: Kind,
    /// Bit 0: this checkpoint ends its segment. Bit 1: everything before was durable when this was written. Bits 4 to
    /// 6: a body frame's codec. Others are a later version's.
    pub flags: u8,
    /// Its number.
    pub seq: Seq,
    /// When it was handed to the journal, in microseconds since 1970.
    pub time_us: u64,
    /// The call, session or connection that it is about; zero if none.
    pub id: [u8; 16],
    /// Body frames: where the frame begins in its body.
    pub body_offset: u64,
    /// The payload's length in bytes.
    pub payload_len: u32,
    /// Events: SHA-256 of the payload. Body frames: SHA-256 of the body up to and with this frame.
    pub digest: [u8; 32],
    /// The hash of the record before.
    pub previous: ChainHash,
}

impl RecordHead {
    /// The record's length on disk.
    pub const fn record_len(&self) -> u64 {
        HEAD as u64 + self.payload_len as u64
    }

    /// Whether the record ends its segment.
    pub const fn is_seal(&self) -> bool {
        matches!(self.kind, Kind::Checkpoint) && self.flags & FLAG_SEAL != 0
    }

    /// Whether it has flags that this version doesn't know.
    pub const fn has_unknown_flags(&self) -> bool {
        self.flags & !KNOWN_FLAGS != 0
    }

    /// How a body frame's bytes are recorded; `None` if this version doesn't know the codec.
    pub(crate) const fn codec(&self) -> Option<Codec> {
        Codec::of(self.flags)
    }

    /// The record's place in the chain.
    pub fn hash(&self) -> ChainHash {
        chain(&self.previous, &self.bytes())
    }

    /// Writes the record to the beginning of `out`, which must have room, and returns its hash.
    pub(crate) fn write(&self, salt: Salt, payload: &[u8], out: &mut [u8]) -> ChainHash {
        debug_assert_eq!(payload.len(), self.payload_len as usize);
        let mut head = self.bytes();
        let crc = salt.checksum(&head, payload);
        head[4..8].copy_from_slice(&crc.to_le_bytes());
        out[..HEAD].copy_from_slice(&head);
        out[HEAD..HEAD + payload.len()].copy_from_slice(payload);
        chain(&self.previous, &head)
    }

    fn bytes(&self) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&MAGIC);
        head[8..12].copy_from_slice(&self.payload_len.to_le_bytes());
        head[12] = self.kind.code();
        head[13] = self.flags;
        head[16..24].copy_from_slice(&self.seq.0.to_le_bytes());
        head[24..32].copy_from_slice(&self.time_us.to_le_bytes());
        head[32..48].copy_from_slice(&self.id);
        head[48..56].copy_from_slice(&self.body_offset.to_le_bytes());
        head[56..88].copy_from_slice(&self.digest);
        head[88..120].copy_from_slice(&self.previous.0);
        head
    }

    /// Reads a head; `check` with the payload must follow before anything in it is believed but the length.
    pub(crate) fn parse(head: &[u8; HEAD]) -> Result<Self, Fault> {
        if head[..4] != MAGIC {
            return Err(Fault::NotARecord);
        }
        let parsed = Self {
            kind: Kind::of(head[12]),
            flags: head[13],
            seq: Seq(u64::from_le_bytes(field(head, 16))),
            time_us: u64::from_le_bytes(field(head, 24)),
            id: field(head, 32),
            body_offset: u64::from_le_bytes(field(head, 48)),
            payload_len: u32::from_le_bytes(field(head, 8)),
            digest: field(head, 56),
            previous: ChainHash(field(head, 88)),
        };
        if parsed.payload_len as usize > MAX_PAYLOAD {
            return Err(Fault::TooLong(parsed.payload_len));
        }
        if head[14..16] != [0, 0] {
            return Err(Fault::Reserved);
        }
        Ok(parsed)
    }
}

/// What the checksums of one journal begin with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Salt(u32);

impl Salt {
    pub(crate) fn of(journal: Uuid) -> Self {
        Self(crc32c::crc32c(journal.as_bytes()))
    }

    fn checksum(self, head: &[u8; HEAD], payload: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c_append(self.0, &head[8..]), payload)
    }

    /// Whether the checksum in `head` fits `head` and `payload`.
    pub(crate) fn fits(self, head: &[u8; HEAD], payload: &[u8]) -> bool {
        head[4..8] == self.checksum(head, payload).to_le_bytes()
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// The digest of what `context` was fed, leaving it as it is.
pub(crate) fn running(context: &digest::Context) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(context.clone().finish().as_ref());
    out
}

fn chain(previous: &ChainHash, head: &[u8; HEAD]) -> ChainHash {
    let mut bytes = [0; 112];
    bytes[..32].copy_from_slice(&previous.0);
    bytes[32..].copy_from_slice(&head[8..88]);
    ChainHash(sha256(&bytes))
}

fn field<const N: usize>(head: &[u8; HEAD], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&head[at..at + N]);
    out
}

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The checksum doesn't fit.
    #[error("its checksum doesn't fit its bytes")]
    Checksum,
    /// The hash of the record before it doesn't fit.
    #[error("it does not continue the chain: the record before it hashes to something else")]
    Chain,
    /// A digest in a head isn't that of the payload, or of the body so far.
    #[error("the SHA-256 in its head is not that of its {0}")]
    Digest(&'static str),
    /// The segment ends within the record.
    #[error("the segment ends in the middle of it")]
    CutOff,
    /// There should be a record, and there are other bytes.
    #[error("there is no record where one must be")]
    NotARecord,
    /// The next segment begins with something else than a record, and this one ended properly.
    #[error("the segment begins with bytes that are no record")]
    NextSegment,
    /// The number isn't the next one.
    #[error("its number is {0}, which is not the next one")]
    Sequence(Seq),
    /// A payload longer than any.
    #[error("its length of {0} bytes is more than any record's")]
    TooLong(u32),
    /// The two bytes that are zero in this format are not.
    #[error("bytes that are zero in this format are not: see docs/journal.md")]
    Reserved,
    /// The record is intact, what it says is not true.
    #[error("{0}")]
    Content(String),
}

/// The first record that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {seq} at byte {offset} of `{}`: {fault}", file.display())]
pub struct Wrong {
    /// The segment's number.
    pub segment: u64,
    /// Its file.
    pub file: PathBuf,
    /// Where the record begins in it.
    pub offset: u64,
    /// The number that the record has, or would have to have.
    pub seq: Seq,
    /// What is wrong.
    pub fault: Fault,
}

impl Serialize for Wrong {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut out = serializer.serialize_struct("Wrong", 5)?;
        out.serialize_field("segment", &self.segment)?;
        out.serialize_field("file", &self.file)?;
        out.serialize_field("offset", &self.offset)?;
        out.serialize_field("seq", &self.seq)?;
        out.serialize_field("what", &self.fault.to_string())?;
        out.end()
    }
}

/// A place between two records: what was read or written ends here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The segment's number.
    pub segment: u64,
    /// The byte after the record, in that segment.
    pub offset: u64,
    /// The record's number.
    pub seq: Seq,
    /// The record's hash.
    pub hash: ChainHash,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Salt = Salt(1);

    fn head(payload: &[u8]) -> RecordHead {
        RecordHead {
            kind: Kind::Event,
            flags: 0,
            seq: Seq(7),
            time_us: 1_700_000_000_000_000,
            id: [9; 16],
            body_offset: 0,
            payload_len: u32::try_from(payload.len()).unwrap(),
            digest: sha256(payload),
            previous: ChainHash([3; 32]),
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let payload = b"{\"event\":\"x\"}";
        let head = head(payload);
        let mut out = vec![0; HEAD + payload.len()];
        let hash = head.write(SALT, payload, &mut out);
        let bytes: [u8; HEAD] = out[..HEAD].try_into().unwrap();
        assert_eq!(RecordHead::parse(&bytes).unwrap(), head);
        assert!(SALT.fits(&bytes, payload));
        assert!(!Salt(2).fits(&bytes, payload));
        assert_eq!(hash, head.hash());
    }

    #[test]
    fn every_flipped_bit_is_seen_by_the_magic_the_checksum_or_the_limits() {
        let payload = b"some payload";
        let mut out = vec![0; HEAD + payload.len()];
        head(payload).write(SALT, payload, &mut out);
        for bit in 0..out.len() * 8 {
            let mut bytes = out.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let head: [u8; HEAD] = bytes[..HEAD].try_into().unwrap();
            let seen = RecordHead::parse(&head).is_err() || !SALT.fits(&head, &bytes[HEAD..]);
            assert!(seen, "bit {bit}");
        }
    }

    #[test]
    fn the_hash_covers_everything_but_magic_and_checksum() {
        let head = head(b"p");
        let changes: [fn(&mut RecordHead); 8] = [
            |h| h.kind = Kind::Carry,
            |h| h.flags = 1,
            |h| h.seq = Seq(8),
            |h| h.time_us += 1,
            |h| h.id[0] ^= 1,
            |h| h.body_offset += 1,
            |h| h.payload_len += 1,
            |h| h.digest[31] ^= 1,
        ];
        for change in changes {
            let mut other = head;
            change(&mut other);
            assert_ne!(other.hash(), head.hash());
        }
        let other = RecordHead { previous: ChainHash([4; 32]), ..head };
        assert_ne!(other.hash(), head.hash());
    }
}
