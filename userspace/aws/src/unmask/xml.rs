//! XML, with the places of its texts.

use std::borrow::Cow;

use quick_xml::{Reader, events::Event};

use super::{MAX_DEPTH, Texts, Written};
use crate::catalog::{Shape, ShapeId};

/// An element that is open.
struct Open {
    shape: Option<ShapeId>,
    /// It is the wrapper of a list, or the member whose elements stand without one.
    list: bool,
    /// What the path is cut to behind it.
    path: usize,
    /// Where its text is, while it has nothing else.
    text: Option<(usize, usize)>,
    /// It has something else than one text.
    other: bool,
}

pub(super) fn read(body: &[u8], shape: ShapeId, texts: &mut Texts<'_>) -> Option<()> {
    let body = std::str::from_utf8(body).ok()?;
    let mut reader = Reader::from_str(body);
    let mut stack: Vec<Open> = Vec::new();
    let start = body.as_ptr() as usize;
    loop {
        let event = reader.read_event().ok()?;
        match event {
            Event::Start(_) | Event::Empty(_) => {
                if stack.len() >= MAX_DEPTH as usize {
                    return None;
                }
                let (tag, empty) = match &event {
                    Event::Start(tag) => (tag, false),
                    Event::Empty(tag) => (tag, true),
                    _ => return None,
                };
                let name = std::str::from_utf8(tag.local_name().into_inner()).ok()?.to_owned();
                let open = match stack.last_mut() {
                    None => Open { shape: Some(shape), list: false, path: texts.path.len(), text: None, other: false },
                    Some(parent) => {
                        parent.other = true;
                        let (shape, list) = (parent.shape, parent.list);
                        open(&name, shape, list, texts)
                    }
                };
                if empty {
                    texts.leave(open.path);
                } else {
                    stack.push(open);
                }
            }
            Event::End(_) => {
                let open = stack.pop()?;
                if let Some((from, to)) = open.text.filter(|_| !open.other) {
                    texts.text(open.shape, &body[from..to], from..to, Written::Xml);
                }
                texts.leave(open.path);
            }
            Event::Text(text) => {
                if let Some(open) = stack.last_mut() {
                    // The reader lends what it reads of a text.
                    let Cow::Borrowed(text) = text.into_inner() else { return None };
                    let from = (text.as_ptr() as usize).checked_sub(start)?;
                    open.other |= open.text.is_some();
                    open.text = Some((from, from + text.len()));
                }
            }
            Event::Decl(_) => {}
            Event::Eof => return stack.is_empty().then_some(()),
            // Nothing of clients' has CDATA, comments or the like.
            _ => return None,
        }
    }
}

/// A child of an open element of this shape.
fn open(name: &str, shape: Option<ShapeId>, list: bool, texts: &mut Texts<'_>) -> Open {
    let nothing =
        |texts: &Texts<'_>| Open { shape: None, list: false, path: texts.path.len(), text: None, other: false };
    let Some(id) = shape else { return nothing(texts) };
    let service = texts.service;
    match service.shape(id) {
        Shape::List { element, wire, .. } if list => {
            if name != wire.unwrap_or("member") {
                return nothing(texts);
            }
            let path = texts.elements();
            Open { shape: Some(*element), list: is_list(texts, *element), path, text: None, other: false }
        }
        Shape::Structure(structure) => {
            let Some(member) = structure.in_body(name) else { return nothing(texts) };
            let path = texts.enter(member.0);
            match service.shape(member.1) {
                Shape::List { element, flattened, .. } if member.flattened() || *flattened => {
                    texts.elements();
                    Open { shape: Some(*element), list: is_list(texts, *element), path, text: None, other: false }
                }
                Shape::List { .. } => Open { shape: Some(member.1), list: true, path, text: None, other: false },
                // Maps spell their keys in elements of their own: nothing is put into them.
                Shape::Map { .. } => Open { shape: None, list: false, path, text: None, other: false },
                _ => Open { shape: Some(member.1), list: false, path, text: None, other: false },
            }
        }
        _ => nothing(texts),
    }
}

fn is_list(texts: &Texts<'_>, shape: ShapeId) -> bool {
    matches!(texts.service.shape(shape), Shape::List { .. })
}

/// An element's text.
pub(super) fn write(value: &[u8], out: &mut Vec<u8>) {
    for &byte in value {
        match byte {
            b'&' => out.extend(b"&amp;"),
            b'<' => out.extend(b"&lt;"),
            b'>' => out.extend(b"&gt;"),
            b'\r' => out.extend(b"&#13;"),
            _ => out.push(byte),
        }
    }
}
