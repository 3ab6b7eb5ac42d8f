//! Holds `docs/journal.md` to the code: its tables are what the code says, and its rules are what the code does.

use std::{fmt::Write as _, fs, path::Path};

use chaperone_model::Event;

use crate::{
    codec::{Codec, FLAGS_CODEC},
    header::{FEATURES, FORMAT, MINOR},
    kind::Kind,
    record::{
        FIELDS, FLAG_COMMIT, FLAG_SEAL, HEAD, KNOWN_FLAGS, MAGIC, MAX_FRAME, MAX_PAYLOAD, RecordHead, Salt, Seq, sha256,
    },
};

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/journal.md");
    fs::read_to_string(path).unwrap()
}

/// A table as it stands in the document.
fn table(title: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut out = format!("| {} |\n|{}\n", title.join(" | "), "---|".repeat(title.len()));
    for row in rows {
        writeln!(out, "| {} |", row.join(" | ")).unwrap();
    }
    out
}

fn assert_has(table: &str) {
    assert!(document().contains(table), "docs/journal.md doesn't have this table as it is in the code:\n{table}");
}

#[test]
fn heads() {
    let rows = FIELDS.iter().map(|(at, length, what)| vec![at.to_string(), length.to_string(), (*what).into()]);
    assert_has(&table(&["at", "bytes", "what"], rows));
    // The fields cover the head without a gap, and are where the code writes them.
    let ends = FIELDS.iter().scan(0, |end, (at, length, _)| {
        let is_next = *at == *end;
        *end += length;
        Some((is_next, *end))
    });
    assert!(ends.clone().all(|(is_next, _)| is_next));
    assert_eq!(ends.last().unwrap().1, HEAD);
    let head = RecordHead {
        kind: Kind::Unknown(0x21),
        flags: 0x31,
        seq: Seq(0x4142_4344_4546_4748),
        time_us: 0x5152_5354_5556_5758,
        id: [0x61; 16],
        body_offset: 0x7172_7374_7576_7778,
        payload_len: 3,
        digest: [0x81; 32],
        previous: crate::ChainHash([0x91; 32]),
    };
    let mut out = [0; HEAD + 3];
    let journal = uuid::Uuid::from_u128(5);
    let hash = head.write(Salt::of(journal), b"abc", &mut out);
    let checksum = crc32c::crc32c(&[journal.as_bytes(), &out[8..]].concat()).to_le_bytes();
    let values: [&[u8]; 12] = [
        &MAGIC,
        &checksum,
        &3_u32.to_le_bytes(),
        &[0x21],
        &[0x31],
        &[0, 0],
        &head.seq.0.to_le_bytes(),
        &head.time_us.to_le_bytes(),
        &[0x61; 16],
        &head.body_offset.to_le_bytes(),
        &[0x81; 32],
        &[0x91; 32],
    ];
    for ((at, length, what), value) in FIELDS.iter().zip(values) {
        assert_eq!(&out[*at..at + length], value, "{what}");
    }
    assert_eq!(hash.0, sha256(&[[0x91; 32].as_slice(), &out[8..88]].concat()));
}

#[test]
fn kinds_flags_codecs_and_events() {
    let three = |(code, name, what): &(u8, &str, &str)| vec![code.to_string(), format!("`{name}`"), what.trim().into()];
    assert_has(&table(&["kind", "name", "payload"], Kind::ALL.iter().map(three)));
    assert_has(&table(&["codec", "name", "what is recorded"], Codec::ALL.iter().map(three)));
    let flags = [
        (FLAG_SEAL, "this checkpoint ends its segment"),
        (FLAG_COMMIT, "the first record of a commit: all before it was durable when it was written"),
        (FLAGS_CODEC, "of body frames: the codec's number, from 0 to 7"),
        (!KNOWN_FLAGS, "unused: a reader passes over those that it doesn't know"),
    ];
    assert_eq!(flags.iter().fold(0, |all, (bits, _)| all | bits), 0xff);
    let rows = flags.map(|(bits, what)| vec![format!("`{bits:#04x}`"), what.to_owned()]);
    assert_has(&table(&["bits", "what"], rows));
    let rows = Event::KINDS
        .iter()
        .map(|kind| vec![format!("`{}`", kind.name), kind.about.to_owned(), kind.documentation.trim().to_owned()]);
    assert_has(&table(&["event", "about", "what it says"], rows));
}

#[test]
fn limits_and_versions() {
    let features = if FEATURES.is_empty() { "none".to_owned() } else { FEATURES.join(", ") };
    for said in [
        format!("`format` is {FORMAT}, `minor` is {MINOR}, features: {features}"),
        format!("at most {MAX_PAYLOAD} bytes"),
        format!("at most {MAX_FRAME} bytes"),
        format!("A record is a head of {HEAD} bytes"),
    ] {
        assert!(document().contains(&said), "docs/journal.md doesn't say: {said}");
    }
}
