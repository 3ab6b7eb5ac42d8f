//! Maskers of every format: whatever comes, cut anywhere, gives the same or is refused the same; where nothing is
//! selected it goes on byte for byte; and a text that a selector masks is in no byte that goes on.
#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use chaperone_masking::{Detectors, Echoes, Fixed, Format, Kind, Masker, Rules, SelectorBuilder};
use libfuzzer_sys::fuzz_target;

const FORMATS: [Format; 6] =
    [Format::Cbor, Format::EventStream, Format::Json, Format::JsonLines, Format::Text, Format::Xml];
const PLANTED: &str = "pLaNtEd-SeCrEt";
const TOKEN: &str = "ghp_16C7e42F292c6912E7710c838347Ae178B4a";

fuzz_target!(|data: &[u8]| {
    let [which, cut, body @ ..] = data else { return };
    let format = FORMATS[usize::from(*which) % FORMATS.len()];
    let cut = usize::from(*cut) % (body.len() + 1);
    let xml = format == Format::Xml;
    let path = |path: &str| {
        let mut builder = SelectorBuilder::default();
        builder.path(path, "own", Kind::Text, xml).unwrap();
        vec![Arc::new(builder.build())]
    };
    let nothing = Rules { selectors: path("no.such.member.anywhere"), ..Rules::default() };
    if let Some(out) = run(format, &nothing, &[body]) {
        assert_eq!(out, body, "nothing is selected");
    }
    let detectors = Rules { detectors: Some(Detectors::credentials()), ..Rules::default() };
    let member = if format == Format::EventStream { "*.s" } else { "s" };
    let member = Rules { selectors: path(member), ..Rules::default() };
    for rules in [&nothing, &detectors, &member] {
        let whole = run(format, rules, &[body]);
        assert_eq!(whole, run(format, rules, &[&body[..cut], &body[cut..]]), "cut at {cut}");
        if let Some(out) = &whole {
            assert!(out.len() <= body.len() * 20 + 64, "it grows");
        }
    }
    let echoes = Rules { echoes: Echoes::new([(PLANTED.as_bytes(), "placeholder")]), ..Rules::default() };
    for rules in [&echoes, &same_length(&echoes), &same_length(&detectors)] {
        let whole = run(format, rules, &[body]);
        assert_eq!(whole, run(format, rules, &[&body[..cut], &body[cut..]]), "cut at {cut}");
        if let (Some(out), true) = (&whole, rules.same_length && !matches!(format, Format::Cbor | Format::EventStream)) {
            assert_eq!(out.len(), body.len(), "its length has been told");
        }
    }
    // What comes is put beside a secret, and has none itself.
    if contains(body, PLANTED.as_bytes()) || contains(body, TOKEN.as_bytes()) {
        return;
    }
    if let Some(planted) = planted(format, body) {
        for pieces in [&[&planted[..]][..], &[&planted[..cut.min(planted.len())], &planted[cut.min(planted.len())..]]] {
            let rules = if format == Format::Text { &echoes } else { &member };
            if let Some(out) = run(format, rules, pieces) {
                assert!(!contains(&out, PLANTED.as_bytes()), "the secret goes on");
            }
        }
    }
    if format == Format::Text {
        // Whatever stands around it, unless it makes it a part of a longer word.
        let planted = [body, b"\n", TOKEN.as_bytes(), b"\n", body].concat();
        let out = run(format, &detectors, &[&planted]).expect("any bytes are text");
        assert!(!contains(&out, TOKEN.as_bytes()), "the token goes on");
    }
});

/// Something of this format in which `s` is the secret, and what came stands beside it.
fn planted(format: Format, body: &[u8]) -> Option<Vec<u8>> {
    let json = || {
        serde_json::from_slice::<serde::de::IgnoredAny>(body).ok()?;
        Some([b"{\"x\":", body, b",\"s\":\"", PLANTED.as_bytes(), b"\",\"y\":", body, b"}"].concat())
    };
    match format {
        Format::Cbor => {
            let mut rest = body;
            ciborium::from_reader::<ciborium::Value, _>(&mut rest).ok()?;
            if !rest.is_empty() {
                return None;
            }
            Some([b"\xbf\x61x", body, b"\x61s\x6e", PLANTED.as_bytes(), b"\x61y", body, b"\xff"].concat())
        }
        Format::EventStream => {
            let payload = json()?;
            let headers = b"\x0b:event-type\x07\0\x01e\x0d:content-type\x07\0\x10application/json";
            let length = u32::try_from(12 + headers.len() + payload.len() + 4).ok()?;
            let mut out = [length.to_be_bytes(), u32::try_from(headers.len()).ok()?.to_be_bytes()].concat();
            out.extend(crc32fast::hash(&out).to_be_bytes());
            out.extend_from_slice(headers);
            out.extend(payload);
            out.extend(crc32fast::hash(&out).to_be_bytes());
            Some(out)
        }
        Format::Json => json(),
        Format::JsonLines => Some([&json()?, &b"\n"[..], &json()?].concat()),
        Format::Text => Some([body, PLANTED.as_bytes(), body].concat()),
        // What opens what it doesn't close would make something else of what follows.
        Format::Xml => run(Format::Xml, &Rules::default(), &[&[b"<own>", body, b"</own>"].concat()])
            .map(|_| [b"<own>", body, b"<s>", PLANTED.as_bytes(), b"</s>", body, b"</own>"].concat()),
    }
}

fn same_length(rules: &Rules) -> Rules {
    Rules { same_length: true, ..rules.clone() }
}

fn contains(text: &[u8], what: &[u8]) -> bool {
    text.windows(what.len()).any(|it| it == what)
}

fn run(format: Format, rules: &Rules, pieces: &[&[u8]]) -> Option<Vec<u8>> {
    let mut masker = Masker::new(format, rules.clone(), Box::new(Fixed));
    let mut out = Vec::new();
    for piece in pieces {
        masker.push(&Bytes::copy_from_slice(piece), &mut out).ok()?;
    }
    masker.finish(&mut out).ok()?;
    Some(out.concat())
}
