//! Texts as their readers see them, and where each of their bytes stands in what came.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::MaskError;

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// As it is.
    Plain,
    /// JSON's escapes.
    Json,
    /// XML's references.
    Xml,
}

/// A decoded text.
pub(crate) struct Decoded<'a> {
    pub(crate) text: Cow<'a, [u8]>,
    /// Where runs begin: in the text, in what came, and whether bytes of the run stand for one each.
    runs: SmallVec<[(usize, usize, bool); 8]>,
    /// How much of what came is decoded; what is left is the beginning of an escape.
    pub(crate) read: usize,
}

impl Decoded<'_> {
    /// Where a byte of the text begins in what came.
    pub(crate) fn raw(&self, at: usize) -> usize {
        if self.runs.is_empty() {
            return at;
        }
        if at >= self.text.len() {
            return self.read;
        }
        let run = self.runs.partition_point(|(text, ..)| *text <= at) - 1;
        let (text, raw, plain) = self.runs[run];
        if plain { raw + (at - text) } else { raw }
    }

    /// Where what is before a byte of the text ends in what came: behind an escape that the byte before is a part of.
    pub(crate) fn raw_end(&self, at: usize) -> usize {
        if self.runs.is_empty() || at >= self.text.len() {
            return if self.runs.is_empty() { at } else { self.read };
        }
        let run = self.runs.partition_point(|(text, ..)| *text <= at) - 1;
        let (text, raw, plain) = self.runs[run];
        if plain {
            return raw + (at - text);
        }
        // Within what one escape stands for: behind it.
        if at == text { raw } else { self.runs.get(run + 1).map_or(self.read, |(_, raw, _)| *raw) }
    }
}

/// Decodes what came. With `last`, an escape that isn't whole is an error.
pub(crate) fn decode(raw: &[u8], style: Style, last: bool) -> Result<Decoded<'_>, MaskError> {
    let mark = match style {
        Style::Plain => None,
        Style::Json => memchr::memchr(b'\\', raw),
        Style::Xml => memchr::memchr(b'&', raw),
    };
    let Some(first) = mark else {
        return Ok(Decoded { text: Cow::Borrowed(raw), runs: SmallVec::new(), read: raw.len() });
    };
    let mut text = Vec::with_capacity(raw.len());
    let mut runs = SmallVec::new();
    let (mut at, mut next) = (0, Some(first));
    while let Some(escape) = next {
        if escape > at {
            runs.push((text.len(), at, true));
            text.extend_from_slice(&raw[at..escape]);
        }
        let begins = text.len();
        let length = match style {
            Style::Json => json(&raw[escape..], last, &mut text)?,
            _ => xml(&raw[escape..], &mut text)?,
        };
        let Some(length) = length else {
            if last {
                return Err(MaskError::Unparsable("a text whose escapes are whole"));
            }
            return Ok(Decoded { text: text.into(), runs, read: escape });
        };
        runs.push((begins, escape, false));
        at = escape + length;
        let mark = if style == Style::Json { b'\\' } else { b'&' };
        next = memchr::memchr(mark, &raw[at..]).map(|found| at + found);
    }
    if at < raw.len() {
        runs.push((text.len(), at, true));
        text.extend_from_slice(&raw[at..]);
    }
    Ok(Decoded { text: text.into(), runs, read: raw.len() })
}

/// One escape. `None` if it isn't whole.
fn json(raw: &[u8], last: bool, text: &mut Vec<u8>) -> Result<Option<usize>, MaskError> {
    let wrong = MaskError::Unparsable("JSON: an escape is none");
    let Some(kind) = raw.get(1) else { return Ok(None) };
    let plain = match kind {
        b'"' | b'\\' | b'/' => *kind,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => {
            let Some(high) = unit(raw.get(2..6))? else { return Ok(None) };
            if !(0xd800..0xdc00).contains(&high) {
                push(text, u32::from(high));
                return Ok(Some(6));
            }
            let rest = &raw[6..];
            if !last && rest.len() < 6 && b"\\u".starts_with(&rest[..rest.len().min(2)]) {
                return Ok(None);
            }
            if rest.starts_with(b"\\u")
                && let Some(low) = unit(rest.get(2..6))?
                && (0xdc00..0xe000).contains(&low)
            {
                push(text, 0x10000 + ((u32::from(high) - 0xd800) << 10) + (u32::from(low) - 0xdc00));
                return Ok(Some(12));
            }
            push(text, u32::from(high));
            return Ok(Some(6));
        }
        _ => return Err(wrong),
    };
    text.push(plain);
    Ok(Some(2))
}

fn unit(digits: Option<&[u8]>) -> Result<Option<u16>, MaskError> {
    let Some(digits) = digits else { return Ok(None) };
    let wrong = || MaskError::Unparsable("JSON: an escape is none");
    let mut unit = 0;
    for digit in digits {
        let digit = char::from(*digit).to_digit(16).ok_or_else(wrong)?;
        unit = unit << 4 | u16::try_from(digit).map_err(|_| wrong())?;
    }
    Ok(Some(unit))
}

/// Halves of pairs, which JSON lets stand alone, are told as what replaces them.
fn push(text: &mut Vec<u8>, point: u32) {
    let mut buffer = [0; 4];
    let point = char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER);
    text.extend_from_slice(point.encode_utf8(&mut buffer).as_bytes());
}

/// The longest reference: `&#x10FFFF;` with some zeros before.
const MAX_REFERENCE: usize = 16;

/// One reference. Only XML's own five names are known: there is no way to declare others, as a DOCTYPE is refused.
fn xml(raw: &[u8], text: &mut Vec<u8>) -> Result<Option<usize>, MaskError> {
    let wrong = MaskError::Unparsable("XML: a reference is none of its own");
    let Some(end) = raw.iter().take(MAX_REFERENCE).position(|b| *b == b';') else {
        return if raw.len() < MAX_REFERENCE { Ok(None) } else { Err(wrong) };
    };
    let point = match &raw[1..end] {
        b"amp" => u32::from(b'&'),
        b"lt" => u32::from(b'<'),
        b"gt" => u32::from(b'>'),
        b"quot" => u32::from(b'"'),
        b"apos" => u32::from(b'\''),
        [b'#', b'x', digits @ ..] => number(digits, 16).ok_or(wrong)?,
        [b'#', digits @ ..] => number(digits, 10).ok_or(wrong)?,
        _ => return Err(wrong),
    };
    push(text, point);
    Ok(Some(end + 1))
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    u32::from_str_radix(digits, radix).ok().filter(|point| *point <= 0x10_ffff)
}
