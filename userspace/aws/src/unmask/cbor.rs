//! CBOR (RFC 8949), with the places of its texts.

use super::{MAX_DEPTH, Texts, Written};
use crate::catalog::ShapeId;

const BREAK: u8 = 0xff;

pub(super) fn read(body: &[u8], shape: ShapeId, texts: &mut Texts<'_>) -> Option<()> {
    let mut reader = Reader { bytes: body, at: 0 };
    reader.item(Some(shape), 0, texts)?;
    (reader.at == body.len()).then_some(())
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    /// The sort of an item, and its argument: `None` for an unknown length.
    fn head(&mut self) -> Option<(u8, Option<u64>)> {
        let initial = self.take(1)?[0];
        let argument = match initial & 0x1f {
            small @ 0..24 => Some(u64::from(small)),
            long @ 24..28 => {
                let bytes = self.take(1 << (long - 24))?;
                Some(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
            }
            31 => None,
            _ => return None,
        };
        Some((initial, argument))
    }

    /// A text or bytes whose head has been read; `None` inside where it is in parts.
    fn content(&mut self, length: Option<u64>) -> Option<Option<&'a [u8]>> {
        if let Some(length) = length {
            return Some(Some(self.take(usize::try_from(length).ok()?)?));
        }
        while !self.ends()? {
            let (_, length) = self.head()?;
            self.take(usize::try_from(length?).ok()?)?;
        }
        Some(None)
    }

    fn ends(&mut self) -> Option<bool> {
        let ends = *self.bytes.get(self.at)? == BREAK;
        self.at += usize::from(ends);
        Some(ends)
    }

    fn item(&mut self, shape: Option<ShapeId>, depth: u32, texts: &mut Texts<'_>) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        let start = self.at;
        let (initial, argument) = self.head()?;
        match initial >> 5 {
            0 | 1 => argument.map(|_| ()),
            2 => self.content(argument).map(|_| ()),
            3 => {
                if let Some(text) = self.content(argument)? {
                    let text = std::str::from_utf8(text).ok()?;
                    texts.text(shape, text, start..self.at, Written::Cbor);
                }
                Some(())
            }
            4 => {
                let element = texts.element(shape);
                let length = texts.elements();
                let mut left = argument;
                while self.more(&mut left)? {
                    self.item(element, depth + 1, texts)?;
                }
                texts.leave(length);
                Some(())
            }
            5 => {
                let mut left = argument;
                while self.more(&mut left)? {
                    let (initial, argument) = self.head()?;
                    (initial >> 5 == 3).then_some(())?;
                    let key = self.content(argument)?;
                    let key = key.map(std::str::from_utf8).transpose().ok()?;
                    let member = key.and_then(|key| texts.member(shape, key));
                    let length = texts.enter(member.map_or("", |member| member.0));
                    self.item(member.map(|member| member.1), depth + 1, texts)?;
                    texts.leave(length);
                }
                Some(())
            }
            6 => self.item(None, depth + 1, texts),
            _ => (initial != BREAK).then_some(()),
        }
    }

    fn more(&mut self, left: &mut Option<u64>) -> Option<bool> {
        match left {
            Some(0) => Some(false),
            Some(left) => {
                *left -= 1;
                Some(true)
            }
            None => Some(!self.ends()?),
        }
    }
}

/// A text with its head.
pub(super) fn write(value: &[u8], out: &mut Vec<u8>) {
    match (u8::try_from(value.len()), u16::try_from(value.len())) {
        (Ok(length @ 0..24), _) => out.push(0x60 | length),
        (Ok(length), _) => out.extend([0x78, length]),
        (_, Ok(length)) => {
            out.push(0x79);
            out.extend(length.to_be_bytes());
        }
        _ => {
            out.push(0x7b);
            out.extend((value.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(value);
}
