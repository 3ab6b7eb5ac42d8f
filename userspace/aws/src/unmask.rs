//! Where in a request's body texts stand that are to be replaced, by the path of the member that each is: for values
//! that were kept from an agent, and that it sends back by what stands for them.
//!
//! It reads a body that has been decoded already, and reads it once more with the places of its bytes. Only a whole text
//! of a member that the model knows as a text is found, written as it is: whatever is written in another way, is a part of
//! a text, or stands where nothing is known, isn't. What it can't read has no such text.

mod cbor;
mod form;
mod json;
mod xml;

use std::ops::Range;

use chaperone_model::{Call, Protocol};
use zeroize::Zeroizing;

use crate::catalog::{Catalog, Location, Operation, Service, Shape, ShapeId};

/// Nesting beyond this isn't followed: reading recurses. Decoding has refused it before.
const MAX_DEPTH: u32 = 128;

/// A text that was looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedText {
    /// The member, by the models' names, with `[]` behind a list's.
    pub path: String,
    /// The text.
    pub text: String,
    range: Range<usize>,
    written: Written,
}

/// How a text is written there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// With the head that tells its length.
    Cbor,
    Form,
    Json,
    Xml,
}

/// Why a member isn't one that a text can be put into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoTextMember {
    /// No operation needs the action.
    Action,
    /// There is no member of this name; those are there.
    Unknown(String, Vec<&'static str>),
    /// It is no text in a body.
    Unfit(String),
}

impl Catalog {
    /// The operations that need an action, and whose input has a text of this path in the body of the request.
    pub fn text_member(
        &'static self,
        action: &str,
        path: &str,
    ) -> Result<Vec<(&'static str, &'static str)>, NoTextMember> {
        let Some((prefix, name)) = action.split_once(':') else { return Err(NoTextMember::Action) };
        let mut all: Vec<(&'static Service, &'static Operation)> = Vec::new();
        for (position, service) in self.names.iter().enumerate() {
            if service.name != prefix && !service.signing.contains(&prefix) {
                continue;
            }
            let service = self.service(position);
            let needs = |it: &&Operation| it.actions.iter().any(|one| one.0 == action);
            all.extend(service.operations.iter().filter(needs).map(|operation| (service, operation)));
        }
        if all.iter().any(|(_, operation)| operation.name == name) {
            all.retain(|(_, operation)| operation.name == name);
        }
        let (mut found, mut wrong) = (Vec::new(), NoTextMember::Action);
        for (service, operation) in all {
            match text_at(service, operation, path) {
                Ok(()) => found.push((service.name, operation.name)),
                // The service of the action's own name tells best what is wrong.
                Err(why) if wrong == NoTextMember::Action || service.name == prefix => wrong = why,
                Err(_) => {}
            }
        }
        if found.is_empty() { Err(wrong) } else { Ok(found) }
    }

    /// The texts in a call's body that `wanted` is true of. `body` is the one that the call was decoded from.
    pub fn placed_texts(&'static self, call: &Call, body: &[u8], wanted: &dyn Fn(&str) -> bool) -> Vec<PlacedText> {
        let operation = |(service, operation): (&str, &str)| {
            let service = self.service(usize::from(self.position(service)?));
            Some((service, service.operation(operation)?))
        };
        let Some((service, operation)) = operation((&call.service, &call.operation)) else { return Vec::new() };
        let Some((shape, path)) = body_of(service, operation) else { return Vec::new() };
        let mut texts = Texts { service, path, found: Vec::new(), wanted };
        let read = match call.protocol {
            Protocol::Json | Protocol::RestJson => json::read(body, shape, &mut texts),
            Protocol::Query | Protocol::Ec2 => form::read(body, shape, call.protocol, &mut texts),
            Protocol::RestXml => xml::read(body, shape, &mut texts),
            Protocol::RpcV2Cbor => cbor::read(body, shape, &mut texts),
            Protocol::Http => None,
        };
        if read.is_some() { texts.found } else { Vec::new() }
    }
}

impl PlacedText {
    /// The body with other texts in the places of these, which are in the order in which they stand.
    pub fn replace(body: &[u8], texts: &[(Self, &[u8])]) -> Zeroizing<Vec<u8>> {
        // Nothing may be left behind by a vector that grows.
        let most = body.len() + texts.iter().map(|(_, by)| 6 * by.len() + 16).sum::<usize>();
        let mut out = Zeroizing::new(Vec::with_capacity(most));
        let mut at = 0;
        for (text, by) in texts {
            out.extend_from_slice(&body[at..text.range.start]);
            match text.written {
                Written::Cbor => cbor::write(by, &mut out),
                Written::Form => form::write(by, &mut out),
                Written::Json => json::write(by, &mut out),
                Written::Xml => xml::write(by, &mut out),
            }
            at = text.range.end;
        }
        out.extend_from_slice(&body[at..]);
        out
    }
}

/// What is found in one body.
struct Texts<'a> {
    service: &'static Service,
    path: String,
    found: Vec<PlacedText>,
    wanted: &'a dyn Fn(&str) -> bool,
}

impl Texts<'_> {
    /// A text of this shape stands here.
    fn text(&mut self, shape: Option<ShapeId>, text: &str, range: Range<usize>, written: Written) {
        let is_text = shape.is_some_and(|shape| matches!(self.service.shape(shape), Shape::String));
        if is_text && (self.wanted)(text) {
            let (path, text) = (self.path.clone(), text.to_owned());
            self.found.push(PlacedText { path, text, range, written });
        }
    }

    /// Goes into a member; gives what the path must be cut to afterwards.
    fn enter(&mut self, name: &str) -> usize {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        length
    }

    fn elements(&mut self) -> usize {
        let length = self.path.len();
        self.path.push_str("[]");
        length
    }

    fn leave(&mut self, length: usize) {
        self.path.truncate(length);
    }

    /// A member of what has this shape, by its name on the wire: its name in the model, and its shape.
    fn member<'n>(&self, shape: Option<ShapeId>, wire: &'n str) -> Option<(&'n str, ShapeId)>
    where
        'static: 'n,
    {
        match self.service.shape(shape?) {
            Shape::Structure(structure) => structure.in_body(wire).map(|member| (member.0, member.1)),
            // A key that looks like a path could be taken for one.
            Shape::Map { value, .. } => (!wire.contains(['.', '['])).then_some((wire, *value)),
            _ => None,
        }
    }

    fn element(&self, shape: Option<ShapeId>) -> Option<ShapeId> {
        match self.service.shape(shape?) {
            Shape::List { element, .. } => Some(*element),
            _ => None,
        }
    }
}

/// What an operation's body is: its shape, and the path to it. `None` if there is nothing in it to be read.
fn body_of(service: &'static Service, operation: &'static Operation) -> Option<(ShapeId, String)> {
    if operation.streams() || operation.text_body() || operation.compressible != 0 {
        return None;
    }
    let shape = operation.input?;
    match service.structure(Some(shape))?.payload {
        None => Some((shape, String::new())),
        Some(payload) => {
            let member = service.structure(Some(shape))?.by_name(payload)?;
            service.structure(Some(member.1))?;
            Some((member.1, payload.to_owned()))
        }
    }
}

/// Whether a path leads to a text in the operation's body.
fn text_at(service: &'static Service, operation: &'static Operation, path: &str) -> Result<(), NoTextMember> {
    let unfit = |why: &str| NoTextMember::Unfit(why.to_owned());
    if operation.compressible != 0 {
        return Err(unfit("is in a body that clients compress"));
    }
    let input = operation.input;
    let payload = service.structure(input).and_then(|it| it.payload);
    if body_of(service, operation).is_none() {
        let known = service.structure(input).is_some_and(|it| it.by_name(path).is_some());
        return Err(if known { unfit("is not in a body that is read") } else { unknown(service, input, path) });
    }
    let is_form = service.form().is_some();
    let mut shape = input;
    for (depth, segment) in path.split('.').enumerate() {
        let name = segment.trim_end_matches("[]");
        let lists = segment.len() - name.len();
        let id = match shape.map(|shape| service.shape(shape)) {
            Some(Shape::Structure(structure)) => {
                let member = structure.by_name(name).ok_or_else(|| unknown(service, shape, name))?;
                let in_body = depth > 0 || payload.map_or(member.location() == Location::Body, |it| it == name);
                if !in_body {
                    return Err(unfit("is not in the body of the request: it goes in its head or address"));
                }
                member.1
            }
            Some(Shape::Map { .. }) if is_form => return Err(unfit("is in a map, which forms spell in two fields")),
            Some(Shape::Map { value, .. }) if !name.is_empty() => *value,
            Some(Shape::List { .. }) => return Err(unfit("leads through a list: write `[]` behind the list's name")),
            _ => return Err(unknown(service, shape, name)),
        };
        shape = Some(id);
        for _ in 0..lists / 2 {
            shape = match shape.map(|shape| service.shape(shape)) {
                Some(Shape::List { element, .. }) => Some(*element),
                _ => return Err(unfit("has `[]` behind what is no list")),
            };
        }
    }
    match shape.map(|shape| service.shape(shape)) {
        Some(Shape::String) => Ok(()),
        Some(Shape::List { .. }) => Err(unfit("is a list: write `[]` behind its name")),
        _ => Err(unfit("is no text")),
    }
}

fn unknown(service: &'static Service, shape: Option<ShapeId>, name: &str) -> NoTextMember {
    let structure = service.structure(shape);
    let known = structure.map(|it| it.members.iter().map(|member| member.0).collect()).unwrap_or_default();
    NoTextMember::Unknown(name.to_owned(), known)
}

#[cfg(test)]
#[path = "unmask_tests.rs"]
mod tests;
