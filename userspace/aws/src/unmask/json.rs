//! JSON, with the places of its texts.

use super::{MAX_DEPTH, Texts, Written};
use crate::catalog::ShapeId;

pub(super) fn read(body: &[u8], shape: ShapeId, texts: &mut Texts<'_>) -> Option<()> {
    let mut reader = Reader { text: std::str::from_utf8(body).ok()?, at: 0 };
    reader.value(Some(shape), 0, texts)?;
    reader.blank();
    (reader.at == body.len()).then_some(())
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn blank(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
    }

    /// The next byte that isn't blank.
    fn next(&mut self) -> Option<u8> {
        self.blank();
        let byte = *self.text.as_bytes().get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// The inside of a text whose first quote has been read, if it has no escapes, and where it begins.
    fn string(&mut self) -> Option<(Option<&'a str>, usize)> {
        let start = self.at;
        let mut escaped = false;
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            self.at += memchr::memchr2(b'"', b'\\', rest)? + 1;
            if self.text.as_bytes()[self.at - 1] == b'"' {
                let inside = self.text.get(start..self.at - 1)?;
                return Some(((!escaped).then_some(inside), start));
            }
            escaped = true;
            // What is escaped may be a quote.
            self.at += 1;
            if self.at > self.text.len() {
                return None;
            }
        }
    }

    fn value(&mut self, shape: Option<ShapeId>, depth: u32, texts: &mut Texts<'_>) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.next()? {
            b'"' => {
                let (text, start) = self.string()?;
                if let Some(text) = text {
                    texts.text(shape, text, start..start + text.len(), Written::Json);
                }
            }
            b'{' => self.object(shape, depth, texts)?,
            b'[' => {
                let element = texts.element(shape);
                let length = texts.elements();
                self.items(b']', |this| {
                    this.at -= 1;
                    this.value(element, depth + 1, texts)
                })?;
                texts.leave(length);
            }
            // Numbers and words: decoding has seen that they are well-formed.
            byte if byte.is_ascii_alphanumeric() || byte == b'-' => {
                let rest = &self.text.as_bytes()[self.at..];
                self.at += rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)).count();
            }
            _ => return None,
        }
        Some(())
    }

    fn object(&mut self, shape: Option<ShapeId>, depth: u32, texts: &mut Texts<'_>) -> Option<()> {
        // `items` lends the first byte of each; the borrow of `texts` is this closure's alone.
        let mut inner = |this: &mut Self| {
            let key = this.string()?.0;
            (this.next()? == b':').then_some(())?;
            let member = key.and_then(|key| texts.member(shape, key));
            let length = texts.enter(member.map_or("", |member| member.0));
            this.value(member.map(|member| member.1), depth + 1, texts)?;
            texts.leave(length);
            Some(())
        };
        self.items(b'}', |this| {
            (this.text.as_bytes()[this.at - 1] == b'"').then_some(())?;
            inner(this)
        })
    }

    /// What is between brackets. `one` is called behind the first byte of each.
    fn items(&mut self, end: u8, mut one: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        let mut byte = self.next()?;
        if byte == end {
            return Some(());
        }
        loop {
            one(self)?;
            byte = self.next()?;
            if byte == end {
                return Some(());
            }
            (byte == b',').then_some(())?;
            self.next()?;
        }
    }
}

/// A text's inside. What isn't UTF-8 never was a text's.
pub(super) fn write(value: &[u8], out: &mut Vec<u8>) {
    for &byte in value {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            0..0x20 | 0x7f => {
                let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
                out.extend([b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
            }
            _ => out.push(byte),
        }
    }
}
