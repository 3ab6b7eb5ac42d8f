//! XML bodies of the rest-xml protocol. No document type, no entities but the five of XML itself.

use quick_xml::{Reader, events::Event};
use serde_json::{Map, Value};

use super::{
    DecodeError,
    value::{Budget, MAX_DEPTH},
};
use crate::catalog::{Location, Service, Shape, ShapeId};

const MAX_ELEMENTS: usize = 50_000;
const MAX_NESTING: usize = 64;

/// An element.
#[derive(Default)]
pub(crate) struct Element {
    pub name: String,
    pub text: String,
    pub children: Vec<Element>,
}

impl Element {
    /// Reads a document.
    pub fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let bad = |_| DecodeError::Body("not well-formed XML");
        let text = std::str::from_utf8(body).map_err(|_| DecodeError::Body("not UTF-8"))?;
        let mut reader = Reader::from_str(text);
        reader.config_mut().expand_empty_elements = true;
        let mut stack: Vec<Self> = Vec::new();
        let mut root = None;
        let mut count = 0;
        loop {
            match reader.read_event().map_err(bad)? {
                Event::Start(start) => {
                    count += 1;
                    if count > MAX_ELEMENTS || stack.len() >= MAX_NESTING {
                        return Err(DecodeError::TooLarge("XML document"));
                    }
                    if root.is_some() {
                        return Err(DecodeError::Body("XML with two roots"));
                    }
                    let name = String::from_utf8_lossy(start.local_name().as_ref()).into_owned();
                    let mut element = Self { name, ..Self::default() };
                    for attribute in start.attributes() {
                        let attribute = attribute.map_err(|_| DecodeError::Body("not well-formed XML"))?;
                        let key = String::from_utf8_lossy(attribute.key.as_ref()).into_owned();
                        if key.starts_with("xmlns") {
                            continue;
                        }
                        let value = attribute.unescape_value().map_err(bad)?.into_owned();
                        element.children.push(Self { name: key, text: value, children: Vec::new() });
                    }
                    stack.push(element);
                }
                Event::End(_) => {
                    let element = stack.pop().ok_or(DecodeError::Body("not well-formed XML"))?;
                    match stack.last_mut() {
                        Some(parent) => parent.children.push(element),
                        None => root = Some(element),
                    }
                }
                Event::Text(text) => {
                    let text = text.unescape().map_err(bad)?;
                    if let Some(element) = stack.last_mut() {
                        element.text.push_str(&text);
                    }
                }
                Event::CData(text) => {
                    if let Some(element) = stack.last_mut() {
                        element.text.push_str(&String::from_utf8_lossy(&text));
                    }
                }
                Event::DocType(_) => return Err(DecodeError::Body("XML with a document type")),
                Event::Eof => break,
                _ => {}
            }
        }
        root.filter(|_| stack.is_empty()).ok_or(DecodeError::Body("XML without a root"))
    }

    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }
}

/// The members of a structure.
pub(crate) fn members(
    element: &Element,
    service: &Service,
    shape: ShapeId,
    budget: &mut Budget,
    depth: u32,
) -> Map<String, Value> {
    let mut out = Map::new();
    let Some(structure) = service.structure(Some(shape)) else { return out };
    for member in structure.members.iter().filter(|member| member.location() == Location::Body) {
        let (element_shape, flat) = match service.shape(member.1) {
            Shape::List { element, flattened, .. } => (Some(*element), member.flattened() || *flattened),
            Shape::Map { flattened, .. } => (None, member.flattened() || *flattened),
            _ => (None, false),
        };
        let mut found = element.named(member.wire()).peekable();
        if found.peek().is_none() {
            continue;
        }
        if depth >= MAX_DEPTH {
            budget.dropped = true;
            break;
        }
        let value = if let (true, Some(shape)) = (flat, element_shape) {
            list(found, service, shape, budget, depth + 1)
        } else if flat && let Shape::Map { value, key_value, .. } = service.shape(member.1) {
            map(found, service, *value, *key_value, budget, depth + 1)
        } else {
            let first = found.next();
            budget.twice |= found.next().is_some();
            let Some(value) = first.and_then(|one| node(one, service, member.1, budget, depth + 1)) else { continue };
            value
        };
        out.insert(member.0.to_owned(), value);
    }
    out
}

fn list<'a>(
    elements: impl Iterator<Item = &'a Element>,
    service: &Service,
    shape: ShapeId,
    budget: &mut Budget,
    depth: u32,
) -> Value {
    budget.count();
    let mut kept = Vec::new();
    for element in elements {
        if !budget.element(depth) {
            break;
        }
        kept.extend(node(element, service, shape, budget, depth));
    }
    Value::Array(kept)
}

fn map<'a>(
    entries: impl Iterator<Item = &'a Element>,
    service: &Service,
    shape: ShapeId,
    (key_name, value_name): (&str, &str),
    budget: &mut Budget,
    depth: u32,
) -> Value {
    budget.count();
    let mut kept = Map::new();
    for entry in entries {
        if !budget.element(depth) {
            break;
        }
        let (mut keys, mut values) = (entry.named(key_name), entry.named(value_name));
        if let (Some(key), Some(value)) = (keys.next(), values.next())
            && let Some(value) = node(value, service, shape, budget, depth)
        {
            budget.twice |= kept.insert(key.text.clone(), value).is_some();
        }
        budget.twice |= keys.next().is_some() || values.next().is_some();
    }
    Value::Object(kept)
}

fn node(element: &Element, service: &Service, shape: ShapeId, budget: &mut Budget, depth: u32) -> Option<Value> {
    match service.shape(shape) {
        Shape::Structure(_) => {
            budget.count();
            Some(Value::Object(members(element, service, shape, budget, depth)))
        }
        Shape::List { element: inner, wire, .. } => {
            Some(list(element.named(wire.unwrap_or("member")), service, *inner, budget, depth + 1))
        }
        Shape::Map { value, key_value, .. } => {
            Some(map(element.named("entry"), service, *value, *key_value, budget, depth + 1))
        }
        _ => budget.scalar(&element.text, service, shape),
    }
}
