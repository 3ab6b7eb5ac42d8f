//! Forms of the query and ec2 protocols, with the places of their values.

use chaperone_model::Protocol;

use super::{MAX_DEPTH, Texts, Written};
use crate::{
    catalog::{Shape, ShapeId},
    route::decoded,
};

pub(super) fn read(body: &[u8], shape: ShapeId, protocol: Protocol, texts: &mut Texts<'_>) -> Option<()> {
    let body = std::str::from_utf8(body).ok()?;
    let mut at = 0;
    for pair in body.split('&') {
        if let Some((name, value)) = pair.split_once('=')
            && (texts.wanted)(value)
        {
            let name = decoded(name).ok()?;
            let segments: Vec<&str> = name.split('.').collect();
            let start = at + pair.len() - value.len();
            if let Some(path) = path(texts, protocol, shape, &segments) {
                texts.path = path;
                texts.text(text_shape(), value, start..start + value.len(), Written::Form);
            }
        }
        at += pair.len() + 1;
    }
    Some(())
}

/// A text's own shape, once its path has led to one.
const fn text_shape() -> Option<ShapeId> {
    Some(ShapeId::STRING)
}

/// The path of the member that a field is. `None` where the field isn't a text's, spelt as clients spell it.
fn path(texts: &Texts<'_>, protocol: Protocol, input: ShapeId, segments: &[&str]) -> Option<String> {
    let service = texts.service;
    let (mut path, mut shape, mut rest) = (String::new(), input, segments);
    let mut flattened = false;
    for _ in 0..MAX_DEPTH {
        match service.shape(shape) {
            Shape::Structure(structure) => {
                let (first, after) = rest.split_first()?;
                let member = structure.by_wire(first).or_else(|| {
                    // A flattened list goes by the name of its element, if that has one.
                    structure.members.iter().find(|member| {
                        matches!(service.shape(member.1),
                            Shape::List { wire: Some(wire), flattened, .. } if wire == first && (*flattened || member.flattened()))
                    })
                })?;
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(member.0);
                (shape, rest, flattened) = (member.1, after, member.flattened());
            }
            Shape::List { element, wire, flattened: flat } => {
                if !(protocol == Protocol::Ec2 || flattened || *flat) {
                    rest = rest.split_first().filter(|(first, _)| **first == wire.unwrap_or("member"))?.1;
                }
                let (number, after) = rest.split_first()?;
                let plain = !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit());
                (plain && !number.is_empty()).then_some(())?;
                path.push_str("[]");
                (shape, rest, flattened) = (*element, after, false);
            }
            Shape::String => return rest.is_empty().then_some(path),
            _ => return None,
        }
    }
    None
}

/// A field's value.
pub(super) fn write(value: &[u8], out: &mut Vec<u8>) {
    for &byte in value {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(byte);
        } else {
            let digit = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble)];
            out.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}
