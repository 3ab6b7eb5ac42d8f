//! Answers that hide a secret where a reader of only the usual places would miss it, and such that are broken: nothing
//! of the secret goes on, in whatever pieces they come.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::sync::Arc;

use bytes::Bytes;
use chaperone_masking::{Detectors, Echoes, Fixed, Format, Kind, MaskError, Masker, Rules, SelectorBuilder};

const TOKEN: &str = "ghp_16C7e42F292c6912E7710c838347Ae178B4a";
const SECRET: &str = "correct-horse-battery";

fn detectors() -> Rules {
    let echoes = Echoes::new([(SECRET.as_bytes(), "chaperone-masked-0123456789abcdef")]);
    Rules { detectors: Some(Detectors::credentials()), echoes, ..Rules::default() }
}

fn member(xml: bool) -> Rules {
    let mut builder = SelectorBuilder::default();
    builder.path("s", "own", Kind::Text, xml).unwrap();
    builder.path("b", "own", Kind::Blob, xml).unwrap();
    Rules { selectors: vec![Arc::new(builder.build())], ..Rules::default() }
}

fn run(format: Format, rules: &Rules, body: &[u8], step: usize) -> Result<Vec<u8>, MaskError> {
    let mut masker = Masker::new(format, rules.clone(), Box::new(Fixed));
    let mut out = Vec::new();
    for piece in body.chunks(step.max(1)) {
        masker.push(&Bytes::copy_from_slice(piece), &mut out)?;
    }
    masker.finish(&mut out)?;
    Ok(out.concat())
}

/// It is refused, or has nothing of the secret in it; the same for all pieces.
fn hides(format: Format, rules: &Rules, body: &[u8]) -> Option<Vec<u8>> {
    let whole = run(format, rules, body, body.len());
    for step in [1, 2, 3, 5, 16, 17, 63] {
        assert_eq!(run(format, rules, body, step), whole, "{format:?} in pieces of {step}");
    }
    let out = whole.ok()?;
    for secret in [TOKEN, SECRET] {
        let found = out.windows(secret.len()).any(|it| it == secret.as_bytes());
        assert!(!found, "{format:?}: {}", String::from_utf8_lossy(&out));
    }
    Some(out)
}

/// A message of an event stream.
fn message(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    for (name, value) in headers {
        all.push(u8::try_from(name.len()).unwrap());
        all.extend_from_slice(name.as_bytes());
        all.push(7);
        all.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        all.extend_from_slice(value.as_bytes());
    }
    let length = u32::try_from(12 + all.len() + payload.len() + 4).unwrap();
    let mut out = [length.to_be_bytes(), u32::try_from(all.len()).unwrap().to_be_bytes()].concat();
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out.extend(all);
    out.extend_from_slice(payload);
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out
}

#[test]
fn secrets_are_found_wherever_a_text_can_stand() {
    for secret in [TOKEN, SECRET] {
        for (format, body) in [
            (Format::Json, format!("{{\"{secret}\":1}}")),
            (Format::Json, format!("{{\"a\":\"x\",\"a\":\"{secret}\"}}")),
            (Format::Json, format!("\u{feff}[\"{secret}\"]")),
            (
                Format::Json,
                format!("[\"{}\"]", secret.chars().map(|it| format!("\\u{:04x}", it as u32)).collect::<String>()),
            ),
            (Format::JsonLines, format!("1\n\"{secret}\"\n{{\"{secret}\":[]}}")),
            (Format::Xml, format!("<a b=\"{secret}\"/>")),
            (Format::Xml, format!("<a\tb='{secret}'></a>")),
            (Format::Xml, format!("<a\nb = \"{secret}\"\r/>")),
            (Format::Xml, format!("<a><!-- {secret} --></a>")),
            (Format::Xml, format!("<a><![CDATA[{secret}]]></a>")),
            (Format::Xml, format!("<a>&#x{:x};{}</a>", secret.as_bytes()[0], &secret[1..])),
            (Format::Xml, format!("<?xml version=\"1.0\"?><a>{secret}</a>")),
            (Format::Text, format!("\0\u{fffd}{secret}\0")),
        ] {
            let out = hides(format, &detectors(), body.as_bytes()).unwrap_or_else(|| panic!("{body}: refused"));
            assert!(String::from_utf8_lossy(&out).contains("chaperone-masked"), "{body}");
        }
        let text = u8::try_from(secret.len()).unwrap();
        for cbor in [
            [&[0xa1, 0x78, text], secret.as_bytes(), &[1]].concat(),
            [&[0x9f, 0x78, text], secret.as_bytes(), &[0xff]].concat(),
            // A text in pieces, cut within the secret.
            [&[0x7f, 0x65], &secret.as_bytes()[..5], &[0x78, text - 5], &secret.as_bytes()[5..], &[0xff]].concat(),
            // Behind tags, and as bytes in pieces.
            [&[0xc1, 0xd8, 0x40, 0x78, text], secret.as_bytes()].concat(),
        ] {
            hides(Format::Cbor, &detectors(), &cbor).unwrap_or_else(|| panic!("{cbor:x?}: refused"));
        }
    }
}

#[test]
fn event_streams_are_looked_through_in_headers_and_over_messages() {
    for secret in [TOKEN, SECRET] {
        let error = message(&[(":message-type", "error"), (":error-message", &format!("no {secret}!"))], b"");
        let out = hides(Format::EventStream, &detectors(), &error).unwrap();
        assert!(String::from_utf8_lossy(&out).contains("no chaperone-masked"));
        // What is framed anew can be read.
        assert_eq!(run(Format::EventStream, &detectors(), &out, 7).unwrap(), out);
        let chunk = |payload: &str| message(&[(":event-type", "PayloadChunk")], payload.as_bytes());
        let cut = [chunk("a "), chunk(&secret[..7]), chunk(&secret[7..]), chunk(" b")].concat();
        hides(Format::EventStream, &detectors(), &cut).unwrap();
        let json = [(":event-type", "e"), (":content-type", "application/json")];
        let all = message(&json, format!("{{\"x\":[\"{secret}\"]}}").as_bytes());
        hides(Format::EventStream, &detectors(), &all).unwrap();
        // What says that it is another format is refused.
        let wrong = [(":event-type", "e"), (":content-type", "application/xml")];
        assert!(hides(Format::EventStream, &detectors(), &message(&wrong, secret.as_bytes())).is_none());
    }
}

#[test]
fn members_are_masked_however_they_are_written() {
    for body in [
        format!("{{\"s\":\"{SECRET}\",\"s\":\"{SECRET}\"}}"),
        format!("{{\"\\u0073\":\"{SECRET}\"}}"),
        format!("{{\"s\":[\"{SECRET}\",{{\"x\":\"{SECRET}\"}}]}}"),
    ] {
        hides(Format::Json, &member(false), body.as_bytes());
    }
    for body in [
        format!("<r><m><s>{SECRET}</s></m></r>"),
        format!("<r><m><s><![CDATA[{SECRET}]]></s></m></r>"),
        format!("<r><m><n:s xmlns:n=\"u\">{SECRET}</n:s></m></r>"),
        format!("<r><m><s><t>{SECRET}</t></s></m></r>"),
        format!("<r><m><s>{SECRET}<!-- --></s></m></r>"),
    ] {
        hides(Format::Xml, &member(true), body.as_bytes());
    }
    let text = u8::try_from(SECRET.len()).unwrap();
    for value in [
        [&[0x78, text], SECRET.as_bytes()].concat(),
        [&[0x7f, 0x61, SECRET.as_bytes()[0], 0x78, text - 1], &SECRET.as_bytes()[1..], &[0xff]].concat(),
        [&[0x5f, 0x58, text], SECRET.as_bytes(), &[0xff]].concat(),
        [&[0xc2, 0x58, text], SECRET.as_bytes()].concat(),
        [&[0x9f, 0x78, text], SECRET.as_bytes(), &[0xff]].concat(),
    ] {
        for key in [&b"\x61s"[..], b"\x7f\x61s\xff", b"\x7f\x60\x61s\x60\xff"] {
            for (opens, closes) in [(&b"\xa1"[..], &b""[..]), (b"\xbf", b"\xff")] {
                let _ = hides(Format::Cbor, &member(false), &[opens, key, &value, closes].concat());
            }
        }
    }
}

#[test]
fn what_is_broken_is_refused() {
    let utf16: Vec<u8> = format!("\u{feff}{{\"s\":\"{SECRET}\"}}").encode_utf16().flat_map(u16::to_be_bytes).collect();
    let utf16_le: Vec<u8> =
        format!("\u{feff}{{\"s\":\"{SECRET}\"}}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let deep = [vec![0x81; 100_000], vec![0]].concat();
    let tags = [vec![0xc1; 100], vec![0]].concat();
    for (format, body) in [
        (Format::Json, &utf16[..]),
        (Format::Json, &utf16_le),
        (Format::Json, b"{\"a\":\"\xc3\x28\"}"),
        (Format::Json, b"{\"a\":\"\xed\xa0\x80\"}"),
        (Format::Json, "[".repeat(100_000).as_bytes()),
        (Format::Xml, &utf16),
        (Format::Xml, b"<a>\xff</a>"),
        (Format::Xml, b"<!DOCTYPE a [<!ENTITY s \"ghp_\">]><a>&s;</a>"),
        (Format::Xml, b"<a>&s;</a>"),
        (Format::Xml, b"<a>&#xffffffff;</a>"),
        (Format::Xml, "<a>".repeat(100_000).as_bytes()),
        (Format::Cbor, &deep),
        (Format::Cbor, &tags),
        (Format::Cbor, b"\x7f\x41a\xff"),
        (Format::Cbor, b"\x9f\x01"),
        (Format::Cbor, b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff"),
        (Format::Cbor, b"\xbf\x61a\xff"),
        (Format::EventStream, b"\0\0\0\x10\0\0\0\0\x05\xc2\x48\xeb\x7d\x98\xc8"),
    ] {
        for rules in [member(format == Format::Xml), detectors()] {
            for step in [1, 7, body.len()] {
                assert!(run(format, &rules, body, step).is_err(), "{format:?}: {:?}", &body[..body.len().min(40)]);
            }
        }
    }
}

/// Ten million bytes in one text go on in bounded memory, and what is masked of it is.
#[test]
fn one_long_text_is_read_in_bounded_memory() {
    let long = "x y".repeat(10 << 20);
    for (rules, clean) in [(member(false), true), (detectors(), true), (member(false), false)] {
        let name = if clean { "t" } else { "s" };
        let body = Bytes::from(format!("{{\"{name}\":\"{}\"}}", &long[..10 << 20]));
        let mut masker = Masker::new(Format::Json, rules, Box::new(Fixed));
        let (mut given, mut least) = (0, 0);
        for at in (0..body.len()).step_by(64 << 10) {
            let mut out = Vec::new();
            let piece = body.slice(at..body.len().min(at + (64 << 10)));
            least += piece.len();
            masker.push(&piece, &mut out).unwrap();
            given += out.iter().map(Bytes::len).sum::<usize>();
            assert!(!clean || given + (64 << 10) > least, "little of what can go on is held");
        }
        let mut out = Vec::new();
        masker.finish(&mut out).unwrap();
        let all = given + out.iter().map(Bytes::len).sum::<usize>();
        assert_eq!(all == body.len(), clean);
        assert!(clean || all < 100);
    }
}
