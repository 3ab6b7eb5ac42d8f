//! Writes segments as another version of Chaperone would, from `docs/journal.md` alone: nothing here uses the journal's
//! own code.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{Ed25519KeyPair, KeyPair as _},
};
use serde_json::{Value, json};

const HEAD: usize = 120;

/// A segment that is being made, behind those that are there.
pub struct Segment {
    dir: PathBuf,
    journal: [u8; 16],
    key: Ed25519KeyPair,
    number: u64,
    bytes: Vec<u8>,
    seq: u64,
    hash: [u8; 32],
}

impl Segment {
    /// Seals the last segment of the journal in `dir`, which nobody writes, and begins one whose header has `members` too.
    pub fn begin(dir: &Path, members: &Value) -> Self {
        let text = fs::read_to_string(dir.join("journal.id")).unwrap().trim().replace('-', "");
        let mut segments: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "segment"))
            .filter(|path| fs::read(path).unwrap().iter().any(|byte| *byte != 0)) // not only preallocated
            .collect();
        segments.sort();
        let last = segments.pop().unwrap();
        let mut segment = Self {
            dir: dir.to_owned(),
            journal: u128::from_str_radix(&text, 16).unwrap().to_be_bytes(),
            key: Ed25519KeyPair::from_pkcs8(&fs::read(dir.join("journal.key")).unwrap()).unwrap(),
            number: last.file_stem().unwrap().to_str().unwrap().parse().unwrap(),
            bytes: fs::read(&last).unwrap(),
            seq: 0,
            hash: [0; 32],
        };
        let mut at = 0;
        while segment.bytes[at..].iter().take(4).eq(b"CHJ1") {
            let head = &segment.bytes[at..at + HEAD];
            let number =
                |from: usize, to: usize| head[from..to].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            let (length, seq) = (usize::try_from(number(8, 12)).unwrap(), number(16, 24));
            segment.hash = sha256(&[&head[88..120], &head[8..88]].concat());
            segment.seq = seq;
            at += HEAD + length;
        }
        segment.bytes.truncate(at);
        segment.checkpoint(1);
        fs::write(&last, &segment.bytes).unwrap();

        segment.number += 1;
        segment.bytes.clear();
        let mut header = json!({
            "journal": text, "segment": segment.number, "previous": hex::encode(segment.hash),
            "key": segment.key_id(), "carries": 0,
        });
        header.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        segment.json(1, 0, [0; 16], &header);
        segment
    }

    /// An event, about what has this id.
    pub fn event(&mut self, id: [u8; 16], event: &Value) {
        self.json(3, 0, id, event);
    }

    /// A record with a JSON payload.
    pub fn json(&mut self, kind: u8, flags: u8, id: [u8; 16], payload: &Value) {
        let payload = payload.to_string();
        self.record(kind, flags, id, 0, sha256(payload.as_bytes()), payload.as_bytes());
    }

    /// Any record.
    pub fn record(&mut self, kind: u8, flags: u8, id: [u8; 16], offset: u64, digest: [u8; 32], payload: &[u8]) {
        self.seq += 1;
        let head = [
            u32::try_from(payload.len()).unwrap().to_le_bytes().as_slice(),
            &[kind, flags, 0, 0],
            &self.seq.to_le_bytes(),
            &1_900_000_000_000_000_u64.to_le_bytes(),
            &id,
            &offset.to_le_bytes(),
            &digest,
            &self.hash,
        ]
        .concat();
        self.hash = sha256(&[&self.hash, &head[..80]].concat());
        let checksum = crc32c::crc32c(&[self.journal.as_slice(), &head, payload].concat());
        self.bytes.extend([b"CHJ1".as_slice(), &checksum.to_le_bytes(), &head, payload].concat());
    }

    /// Signs what is there, and writes the segment with room for more. The number of its last record.
    pub fn end(mut self) -> u64 {
        self.checkpoint(0);
        self.bytes.resize(256 << 10, 0);
        fs::write(self.dir.join(format!("{:012}.segment", self.number)), &self.bytes).unwrap();
        self.seq
    }

    fn checkpoint(&mut self, flags: u8) {
        let time_us = 1_900_000_000_000_000_u64;
        let message = [
            b"chaperone checkpoint v1\0\0".as_slice(),
            &self.journal,
            &self.seq.to_be_bytes(),
            &time_us.to_be_bytes(),
            &self.hash,
        ]
        .concat();
        let checkpoint = json!({
            "journal": hex::encode(self.journal), "seq": self.seq, "hash": hex::encode(self.hash), "time_us": time_us,
            "key": self.key_id(), "signature": hex::encode(self.key.sign(&message)),
        });
        self.json(6, flags, [0; 16], &checkpoint);
    }

    fn key_id(&self) -> String {
        hex::encode(&sha256(self.key.public_key().as_ref())[..16])
    }
}

/// A segment of the made-up next version, with everything that it may have added, and the number of its last record.
/// `ended` is a call that it ends in a way which this version doesn't know.
pub fn write_next_version(dir: &Path, ended: [u8; 16]) -> u64 {
    let members = json!({ "format": 1, "minor": 77, "requires": [], "written_by": "9.9.9", "sealed_to": ["age1…"] });
    let mut segment = Segment::begin(dir, &members);
    segment.event([7; 16], &json!({ "event": "call-held", "call": "x", "approvers": ["ops"], "nested": { "a": [1] } }));
    segment.event([0; 16], &json!({ "event": "daemon-stopped", "at": "2030-03-17T17:46:40Z", "why": "an update" }));
    segment.event(ended, &json!({ "event": "call-outcome", "outcome": { "expired": 3 } }));
    segment.json(3, 0x8c, [0; 16], &json!({ "event": "daemon-stopped", "at": "2030-03-17T17:46:41Z" }));
    segment.record(200, 0x84, [8; 16], 5, sha256(b"\xff\0binary"), b"\xff\0binary");
    segment.end()
}

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().unwrap()
}
