//! CBOR bodies (RFC 8949) of the rpc-v2-cbor protocol, read straight into the bounded document.

use serde_json::{Map, Value};

use super::{
    DecodeError,
    value::{Budget, MAX_DEPTH, MAX_STRING},
};
use crate::catalog::{Service, Shape, ShapeId};

/// Nesting beyond this is refused, kept or not: reading recurses.
const MAX_NESTING: u32 = 128;

const MALFORMED: DecodeError = DecodeError::Body("not well-formed CBOR");

/// Reads the members of the operation's input.
pub(crate) fn members(
    body: &[u8],
    service: &'static Service,
    shape: ShapeId,
    budget: &mut Budget,
) -> Result<Map<String, Value>, DecodeError> {
    let mut reader = CborReader { rest: body, service };
    let value = reader.node(shape, budget, 0, true)?;
    if !reader.rest.is_empty() {
        return Err(DecodeError::Body("bytes after the CBOR document"));
    }
    match value {
        Some(Value::Object(members)) => Ok(members),
        _ => Err(DecodeError::Body("CBOR that is not a map")),
    }
}

/// Whether a value that begins so is of the shape's kind. Tags and simple values are told by what is in them.
fn fits(shape: &Shape, initial: u8) -> bool {
    match initial >> 5 {
        0 | 1 => matches!(shape, Shape::Integer | Shape::Float | Shape::Timestamp | Shape::Untyped),
        2 => matches!(shape, Shape::Blob | Shape::Integer | Shape::Float | Shape::Untyped),
        3 => matches!(shape, Shape::String | Shape::Untyped),
        4 => matches!(shape, Shape::List { .. } | Shape::Integer | Shape::Float | Shape::Untyped),
        5 => matches!(shape, Shape::Structure(_) | Shape::Map { .. } | Shape::Untyped),
        6 => true,
        _ => match initial & 0x1f {
            20 | 21 => matches!(shape, Shape::Boolean | Shape::Untyped),
            25..=27 => matches!(shape, Shape::Float | Shape::Timestamp | Shape::Integer | Shape::Untyped),
            _ => true,
        },
    }
}

struct CborReader<'a> {
    rest: &'a [u8],
    service: &'static Service,
}

impl<'a> CborReader<'a> {
    fn byte(&mut self) -> Result<u8, DecodeError> {
        let (first, rest) = self.rest.split_first().ok_or(MALFORMED)?;
        self.rest = rest;
        Ok(*first)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(length).map_err(|_| MALFORMED)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(MALFORMED)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The argument of an initial byte; `None` means an indefinite length.
    fn argument(&mut self, initial: u8) -> Result<Option<u64>, DecodeError> {
        Ok(Some(match initial & 0x1f {
            small @ 0..=23 => u64::from(small),
            24 => u64::from(self.byte()?),
            25 => self.take(2)?.iter().fold(0, |n, b| n << 8 | u64::from(*b)),
            26 => self.take(4)?.iter().fold(0, |n, b| n << 8 | u64::from(*b)),
            27 => self.take(8)?.iter().fold(0, |n, b| n << 8 | u64::from(*b)),
            31 => return Ok(None),
            _ => return Err(MALFORMED),
        }))
    }

    /// Whether the next byte ends something of indefinite length; takes it.
    fn ends(&mut self) -> Result<bool, DecodeError> {
        let ends = *self.rest.first().ok_or(MALFORMED)? == 0xff;
        if ends {
            self.byte()?;
        }
        Ok(ends)
    }

    /// The bytes of a byte or text string, in one piece or in chunks.
    fn bytes(&mut self, initial: u8) -> Result<Vec<u8>, DecodeError> {
        if let Some(length) = self.argument(initial)? {
            return Ok(self.take(length)?.to_vec());
        }
        let mut all = Vec::new();
        while !self.ends()? {
            let chunk = self.byte()?;
            if chunk >> 5 != initial >> 5 {
                return Err(MALFORMED);
            }
            let length = self.argument(chunk)?.ok_or(MALFORMED)?;
            all.extend_from_slice(self.take(length)?);
        }
        Ok(all)
    }

    fn text(&mut self, initial: u8) -> Result<String, DecodeError> {
        String::from_utf8(self.bytes(initial)?).map_err(|_| MALFORMED)
    }

    /// Reads a value, and keeps it if `keep`.
    fn node(
        &mut self,
        shape: ShapeId,
        budget: &mut Budget,
        depth: u32,
        keep: bool,
    ) -> Result<Option<Value>, DecodeError> {
        if depth > MAX_NESTING {
            return Err(DecodeError::TooLarge("CBOR document"));
        }
        let initial = self.byte()?;
        if keep {
            budget.count();
        }
        let service = self.service;
        if keep && !fits(service.shape(shape), initial) {
            // A lenient reader may make something of a value of another kind.
            budget.unread_in_body("");
        }
        Ok(match initial >> 5 {
            0 => Some(self.argument(initial)?.ok_or(MALFORMED)?.into()),
            1 => {
                let n = self.argument(initial)?.ok_or(MALFORMED)?;
                Some(i64::try_from(n).map_or(Value::Null, |n| (-1 - n).into()))
            }
            2 => {
                self.bytes(initial)?;
                None
            }
            3 => {
                let text = self.text(initial)?;
                keep.then(|| budget.string(&text))
            }
            4 => {
                let element = match service.shape(shape) {
                    Shape::List { element, .. } => *element,
                    _ => ShapeId::UNTYPED,
                };
                let mut left = self.argument(initial)?;
                let mut kept = Vec::new();
                while self.more(&mut left)? {
                    let keeps = keep && budget.element(depth + 1);
                    if let Some(value) = self.node(element, budget, depth + 1, keeps)?
                        && keeps
                    {
                        kept.push(value);
                    }
                }
                Some(Value::Array(kept))
            }
            5 => Some(Value::Object(self.map(initial, shape, budget, depth, keep)?)),
            6 => {
                // Times and large numbers: Smithy's RPC v2 has no other tags.
                if !(1..=4).contains(&self.argument(initial)?.ok_or(MALFORMED)?) {
                    return Err(DecodeError::Body("CBOR with a tag that AWS's protocol doesn't have"));
                }
                self.node(shape, budget, depth + 1, keep)?
            }
            _ => match initial & 0x1f {
                20 => Some(Value::Bool(false)),
                21 => Some(Value::Bool(true)),
                22 | 23 => None,
                25 => {
                    self.take(2)?; // half floats are of no use to a policy
                    None
                }
                26 => {
                    let bits = self.argument(initial)?.and_then(|bits| u32::try_from(bits).ok()).ok_or(MALFORMED)?;
                    serde_json::Number::from_f64(f64::from(f32::from_bits(bits))).map(Value::Number)
                }
                27 => {
                    let bits = self.argument(initial)?.ok_or(MALFORMED)?;
                    serde_json::Number::from_f64(f64::from_bits(bits)).map(Value::Number)
                }
                _ => return Err(MALFORMED),
            },
        })
    }

    fn more(&mut self, left: &mut Option<u64>) -> Result<bool, DecodeError> {
        match left {
            Some(0) => Ok(false),
            Some(n) => {
                *n -= 1;
                Ok(true)
            }
            None => Ok(!self.ends()?),
        }
    }

    fn map(
        &mut self,
        initial: u8,
        shape: ShapeId,
        budget: &mut Budget,
        depth: u32,
        keep: bool,
    ) -> Result<Map<String, Value>, DecodeError> {
        let service = self.service;
        let mut left = self.argument(initial)?;
        let mut kept = Map::new();
        while self.more(&mut left)? {
            let initial = self.byte()?;
            if initial >> 5 != 3 {
                return Err(DecodeError::Body("CBOR with a key that is not text"));
            }
            let key = self.text(initial)?;
            let mut entered = false;
            let (name, element, keeps) = match service.shape(shape) {
                Shape::Structure(structure) => {
                    if let Some(member) = structure.by_wire(&key) {
                        budget.dropped |= depth >= MAX_DEPTH;
                        budget.enter(member.wire());
                        entered = true;
                        (member.0.to_owned(), member.1, keep && depth < MAX_DEPTH)
                    } else {
                        if keep {
                            budget.unread_in_body(&key);
                        }
                        (key, ShapeId::UNTYPED, false)
                    }
                }
                Shape::Map { value, .. } => (key, *value, keep && budget.element(depth + 1)),
                _ => (key, ShapeId::UNTYPED, keep && budget.element(depth + 1)),
            };
            let value = self.node(element, budget, depth + 1, keeps)?;
            if entered {
                budget.leave();
            }
            budget.dropped |= keeps && name.len() > MAX_STRING;
            if keeps && kept.insert(name, value.unwrap_or(Value::Null)).is_some() {
                return Err(DecodeError::Contradiction("a member of the body comes twice"));
            }
        }
        kept.retain(|_, value| !value.is_null());
        Ok(kept)
    }
}
