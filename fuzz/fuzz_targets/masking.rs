//! Maskers of every format: whatever comes, cut anywhere, gives the same or is refused the same; where nothing is
//! selected it goes on byte for byte; and a text that a selector masks is in no byte that goes on.
#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use chaperone_masking::{Detectors, Fixed, Format, Kind, Masker, Rules, SelectorBuilder};
use libfuzzer_sys::fuzz_target;

const FORMATS: [Format; 6] =
    [Format::Cbor, Format::EventStream, Format::Json, Format::JsonLines, Format::Text, Format::Xml];
const PLANTED: &str = "pLaNtEd-SeCrEt";

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
    let member = Rules { selectors: path("s"), ..Rules::default() };
    for rules in [&nothing, &detectors, &member] {
        let whole = run(format, rules, &[body]);
        assert_eq!(whole, run(format, rules, &[&body[..cut], &body[cut..]]), "cut at {cut}");
        if let Some(out) = &whole {
            assert!(out.len() <= body.len() * 20 + 64, "it grows");
        }
    }
    // What comes is put beside a secret.
    if format == Format::Json && serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() {
        let planted = [b"{\"s\":\"", PLANTED.as_bytes(), b"\",\"x\":", body, b"}"].concat();
        if let Some(out) = run(format, &member, &[&planted]) {
            assert!(!out.windows(PLANTED.len()).any(|it| it == PLANTED.as_bytes()));
        }
    }
});

fn run(format: Format, rules: &Rules, pieces: &[&[u8]]) -> Option<Vec<u8>> {
    let mut masker = Masker::new(format, rules.clone(), Box::new(Fixed));
    let mut out = Vec::new();
    for piece in pieces {
        masker.push(&Bytes::copy_from_slice(piece), &mut out).ok()?;
    }
    masker.finish(&mut out).ok()?;
    Some(out.concat())
}
