//! Values that must not come back: each is looked for in texts as it is, and in the few ways in which services write a
//! text that they were given inside of another.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use zeroize::Zeroizing;

use crate::{
    automaton::Automaton,
    detect::{Hit, HitRule, settle},
};

/// What a finding of one is called.
pub(crate) const RULE: &str = "echo";
/// Anything shorter stands in ordinary answers by chance.
const MIN_WRITTEN: usize = 6;

/// A set of values with what goes in the place of each.
#[derive(Clone, Debug)]
pub struct Echoes(Arc<Inner>);

struct Inner {
    automaton: Automaton,
    placeholders: Vec<Box<str>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("values", &self.placeholders.len()).finish_non_exhaustive()
    }
}

impl Echoes {
    /// For these values. `None` if there is none that could be told from ordinary text.
    pub fn new<'a>(values: impl IntoIterator<Item = (&'a [u8], &'a str)>) -> Option<Self> {
        let (mut all, mut placeholders) = (Vec::new(), Vec::new());
        for (value, placeholder) in values {
            let Ok(at) = u16::try_from(placeholders.len()) else { break };
            all.extend(ways(value).into_iter().map(|written| (written, at)));
            placeholders.push(placeholder.into());
        }
        all.retain(|(written, _)| written.len() >= MIN_WRITTEN);
        all.sort_by(|one, other| one.0.as_slice().cmp(&other.0).then(one.1.cmp(&other.1)));
        all.dedup_by(|one, other| one.0 == other.0);
        if all.is_empty() {
            return None;
        }
        let automaton = Automaton::new(all.iter().map(|(written, at)| (&written[..], *at)));
        Some(Self(Arc::new(Inner { automaton, placeholders })))
    }

    /// What goes in a value's place.
    pub(crate) fn placeholder(&self, at: u16) -> &str {
        &self.0.placeholders[usize::from(at)]
    }

    /// Whether there is nothing in these bytes, which nothing follows.
    pub(crate) fn is_clean(&self, bytes: &[u8]) -> bool {
        !self.0.automaton.is_in(bytes)
    }

    /// A text with nothing of them in it: what is in its place, or `None` where it stays.
    pub fn cleaned(&self, text: &[u8]) -> Option<Vec<u8>> {
        if self.is_clean(text) {
            return None;
        }
        let mut out = Vec::with_capacity(text.len());
        let mut at = 0;
        self.0.automaton.find(text, |found| {
            out.extend_from_slice(&text[at..found.start]);
            out.extend_from_slice(self.placeholder(found.value).as_bytes());
            at = found.end;
        });
        out.extend_from_slice(&text[at..]);
        Some(out)
    }

    /// Looks through a text, of which what is before `safe` is decided as far as others are concerned. Without `last`
    /// more will follow: what is from the given position on must be looked at again together with it.
    pub(crate) fn scan(&self, text: &[u8], last: bool, safe: usize, hits: &mut Vec<Hit>) -> usize {
        let pending = self.0.automaton.find(text, |found| {
            let (start, end) = (found.start, found.end);
            hits.push(Hit { start, end, from: start, rule: HitRule::Echo(found.value) });
        });
        settle(hits, if last { safe } else { safe.min(pending) })
    }
}

/// How a value may be written. None of what makes them may move while it grows: what it was would be left behind.
fn ways(value: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut all = vec![value.to_vec(), json(value, false), json(value, true), xml(value), percent(value), hex(value)];
    all.extend((0..3).map(|shift| base64(value, shift)));
    all.into_iter().map(Zeroizing::new).collect()
}

/// As the inside of a JSON text, as most writers do it, or as those that care for HTML do.
fn json(value: &[u8], html: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() * 6);
    for &byte in value {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            b'/' if html => out.extend(b"\\/"),
            b'<' | b'>' | b'&' | b'\'' | b'=' if html => out.extend(format!("\\u{byte:04x}").bytes()),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            0..0x20 => out.extend(format!("\\u{byte:04x}").bytes()),
            _ => out.push(byte),
        }
    }
    out
}

fn xml(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() * 6);
    for &byte in value {
        match byte {
            b'&' => out.extend(b"&amp;"),
            b'<' => out.extend(b"&lt;"),
            b'>' => out.extend(b"&gt;"),
            b'"' => out.extend(b"&quot;"),
            _ => out.push(byte),
        }
    }
    out
}

fn percent(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() * 3);
    for &byte in value {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(byte);
        } else {
            out.extend(format!("%{byte:02X}").bytes());
        }
    }
    out
}

fn hex(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() * 2);
    for byte in value {
        out.extend(format!("{byte:02x}").bytes());
    }
    out
}

/// What of base64 is sure wherever the value stands in what is encoded: `shift` bytes after a group's beginning.
fn base64(value: &[u8], shift: usize) -> Vec<u8> {
    // A group of three bytes is four letters. Those that bytes before or after the value have a part in are left out.
    let from = (3 - shift) % 3;
    let Some(inner) = value.get(from..) else { return Vec::new() };
    STANDARD_NO_PAD.encode(&inner[..inner.len() / 3 * 3]).into_bytes()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{Fixed, Format, Masker, Rules, Selector, SelectorBuilder};

    const VALUE: &str = "p\"w<&d/ü=S3cret!";
    const PLACEHOLDER: &str = "chaperone-masked-0123456789abcdef";

    fn echoes() -> Echoes {
        Echoes::new([(VALUE.as_bytes(), PLACEHOLDER), (b"hunter2-hunter2", "chaperone-masked-1")]).unwrap()
    }

    fn masked(format: Format, body: &[u8], step: usize) -> (Vec<u8>, u64) {
        let rules = Rules { echoes: Some(echoes()), ..Rules::default() };
        let mut masker = Masker::new(format, rules, Box::new(Fixed));
        let mut out = Vec::new();
        for piece in body.chunks(step) {
            masker.push(&Bytes::copy_from_slice(piece), &mut out).unwrap();
        }
        masker.finish(&mut out).unwrap();
        (out.concat(), masker.findings().count())
    }

    /// What is read of it has nothing of the value, wherever it is cut.
    #[test]
    fn a_value_that_comes_back_is_masked_in_every_format_and_way() {
        let json = serde_json::json!({ "a": format!("is {VALUE} ok"), "b": serde_json::json!({ "c": VALUE }).to_string(),
            "d": base64::engine::general_purpose::STANDARD.encode(format!("x{VALUE}y")), VALUE: 1 });
        let json = json.to_string();
        let escaped = VALUE.replace('&', "&amp;").replace('<', "&lt;");
        let xml =
            format!("<Error><Message>no {escaped}.</Message><V a=\"{}\"/></Error>", escaped.replace('"', "&quot;"));
        let mut cbor = Vec::new();
        ciborium::into_writer(&[("m", format!("not {VALUE}")), ("n", VALUE.to_owned())], &mut cbor).unwrap();
        let text =
            format!("x={} y={VALUE} {}", String::from_utf8(percent(VALUE.as_bytes())).unwrap(), hex::encode(VALUE));
        for (format, body, count) in [
            (Format::Json, json.as_bytes(), 4),
            (Format::Xml, xml.as_bytes(), 2),
            (Format::Cbor, &cbor[..], 2),
            (Format::Text, text.as_bytes(), 3),
        ] {
            for step in [1, 2, 3, 7, 16, 4096] {
                let (out, found) = masked(format, body, step);
                let shown = String::from_utf8_lossy(&out);
                assert_eq!(found, count, "{format:?} {step}: {shown}");
                assert!(!shown.contains("S3cret") && shown.contains(PLACEHOLDER), "{format:?} {step}: {shown}");
            }
        }
        let (out, _) = masked(Format::Json, json.as_bytes(), 5);
        let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(read["a"], format!("is {PLACEHOLDER} ok"));
        let (out, _) = masked(Format::Cbor, &cbor, 5);
        let read: Vec<(String, String)> = ciborium::from_reader(&out[..]).unwrap();
        assert_eq!(read[1].1, PLACEHOLDER);
    }

    #[test]
    fn what_only_begins_like_one_goes_on() {
        for body in ["hunter2-hunter", "hunter2-", "xhunterhunter2-hunter3", ""] {
            for step in [1, 3, 100] {
                assert_eq!(masked(Format::Text, body.as_bytes(), step), (body.as_bytes().to_vec(), 0), "{step}");
            }
        }
        let (out, _) = masked(Format::Text, b"hunter2-hunter2-hunter2", 2);
        assert_eq!(out, b"chaperone-masked-1-hunter2");
        assert_eq!(echoes().cleaned(b"a hunter2-hunter2!").unwrap(), b"a chaperone-masked-1!");
        assert!(echoes().cleaned(b"a hunter2").is_none());
        assert!(Echoes::new([(&b"short"[..0], "x")]).is_none());
    }

    /// A detector that finds a part of one must not leave the rest.
    #[test]
    fn what_a_detector_finds_in_one_leaves_nothing_of_it() {
        let url = "postgres://app:hunter2!@db.internal:5432/x";
        let rules = Rules {
            selectors: vec![Arc::new(Selector::from(SelectorBuilder::default()))],
            detectors: Some(crate::Detectors::credentials()),
            echoes: Echoes::new([(url.as_bytes(), "chaperone-masked-2")]),
            same_length: false,
        };
        let body = format!("{{\"a\":\"use Password={url};\"}}");
        let mut masker = Masker::new(Format::Json, rules, Box::new(Fixed));
        let mut out = Vec::new();
        masker.push(&Bytes::from(body), &mut out).unwrap();
        masker.finish(&mut out).unwrap();
        let out = String::from_utf8(out.concat()).unwrap();
        assert!(!out.contains("db.internal") && !out.contains("app"), "{out}");
    }
}

#[cfg(test)]
mod hex {
    pub(super) fn encode(text: &str) -> String {
        String::from_utf8(super::hex(text.as_bytes())).unwrap()
    }
}
