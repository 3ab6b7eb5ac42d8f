//! XML bodies of the rest-xml protocol, by the few forms that AWS's clients write: elements without prefixes, text, the
//! five entities of XML itself. What another reader could take in another way is refused: document types, processing
//! instructions, comments, other encodings, raw carriage returns, foreign namespaces, text beside elements.
//!
//! The work is linear in the body's length: attributes are bounded for each element (quick-xml holds each against all
//! before it), and a structure's members are looked up by name for each child.

use quick_xml::{
    Reader,
    events::{BytesDecl, BytesStart, Event},
};
use serde_json::{Map, Value};

use super::{
    DecodeError,
    value::{Budget, MAX_DEPTH},
};
use crate::catalog::{Member, Service, Shape, ShapeId, Structure};

/// Elements and attributes together.
const MAX_NODES: usize = 50_000;
const MAX_NESTING: usize = 64;
/// S3's grantees have two, and no element has more.
const MAX_ATTRIBUTES: usize = 4;
/// How long a start tag is, in bytes, its attributes included.
const MAX_TAG: usize = 1024;

const MALFORMED: DecodeError = DecodeError::Body("not well-formed XML");

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
        Self::read(body, &mut Tree::within(body.len()))
    }

    fn read(body: &[u8], tree: &mut Tree) -> Result<Self, DecodeError> {
        let text = std::str::from_utf8(body).map_err(|_| DecodeError::Body("not UTF-8"))?;
        if memchr::memchr(b'\r', body).is_some() {
            return Err(DecodeError::Body("XML with a raw carriage return, which readers change"));
        }
        if text.starts_with('\u{feff}') {
            return Err(DecodeError::Body("XML with a byte order mark"));
        }
        if text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')) {
            return Err(DecodeError::Body("XML with a control character"));
        }
        let mut reader = Reader::from_str(text);
        reader.config_mut().expand_empty_elements = true;
        let mut first = true;
        loop {
            let event = reader.read_event().map_err(|_| MALFORMED)?;
            tree.works(event.len())?;
            match event {
                Event::Start(start) => tree.start(&start)?,
                Event::End(_) => tree.end()?,
                Event::Text(text) => tree.text(&text.unescape().map_err(|_| MALFORMED)?)?,
                Event::CData(text) => tree.cdata(std::str::from_utf8(&text).map_err(|_| MALFORMED)?)?,
                Event::Decl(declaration) if first && body.starts_with(b"<?xml") => check_declaration(&declaration)?,
                Event::Decl(_) => return Err(DecodeError::Body("XML with a declaration that isn't at its beginning")),
                Event::DocType(_) => return Err(DecodeError::Body("XML with a document type")),
                Event::PI(_) => return Err(DecodeError::Body("XML with a processing instruction")),
                Event::Comment(_) => return Err(DecodeError::Body("XML with a comment")),
                Event::Eof => return tree.finish(),
                Event::Empty(_) => return Err(MALFORMED), // expanded
            }
            first = false;
        }
    }

    /// The texts of the children that are called so.
    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }
}

/// `<?xml version="1.0" encoding="UTF-8"?>`, and nothing that says otherwise.
fn check_declaration(declaration: &BytesDecl<'_>) -> Result<(), DecodeError> {
    if declaration.version().map_err(|_| MALFORMED)?.as_ref() != b"1.0" {
        return Err(DecodeError::Body("XML of another version than 1.0"));
    }
    match declaration.encoding() {
        None => {}
        Some(Ok(encoding)) if encoding.eq_ignore_ascii_case(b"utf-8") => {}
        Some(_) => return Err(DecodeError::Body("XML that declares another encoding than UTF-8")),
    }
    match declaration.standalone() {
        None => Ok(()),
        Some(Ok(value)) if value.as_ref() == b"yes" || value.as_ref() == b"no" => Ok(()),
        Some(_) => Err(MALFORMED),
    }
}

/// The document as far as it was read.
#[derive(Default)]
struct Tree {
    open: Vec<Element>,
    root: Option<Element>,
    /// The root's namespace, which is everybody's.
    namespace: Option<String>,
    nodes: usize,
    /// Bytes looked at so far, and how many may be.
    work: usize,
    most: usize,
}

/// How often each byte of a body may be looked at, over all.
const MAX_LOOKS: usize = 8;

impl Tree {
    /// For a body of this length.
    fn within(length: usize) -> Self {
        Self { most: (length + 1024) * MAX_LOOKS, ..Self::default() }
    }

    /// Work is bounded by the body's length, whatever is in it.
    fn works(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.work += bytes;
        if self.work > self.most { Err(DecodeError::TooLarge("XML document")) } else { Ok(()) }
    }

    fn node(&mut self) -> Result<(), DecodeError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES { Err(DecodeError::TooLarge("XML document")) } else { Ok(()) }
    }

    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), DecodeError> {
        self.node()?;
        if start.len() > MAX_TAG || self.open.len() >= MAX_NESTING {
            return Err(DecodeError::TooLarge("XML document"));
        }
        if self.root.is_some() {
            return Err(DecodeError::Body("XML with two roots"));
        }
        if let Some(parent) = self.open.last_mut() {
            if !is_blank(&parent.text) {
                return Err(DecodeError::Body("XML with text beside elements"));
            }
            // What is between elements means nothing, and isn't looked at again.
            parent.text.clear();
        }
        let name = std::str::from_utf8(start.name().into_inner()).map_err(|_| MALFORMED)?;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b)) {
            return Err(DecodeError::Body("XML with an element of a foreign namespace, or whose name AWS has nowhere"));
        }
        let mut element = Element { name: name.to_owned(), ..Element::default() };
        for (count, attribute) in start.attributes().enumerate() {
            if count >= MAX_ATTRIBUTES {
                return Err(DecodeError::Body("XML with more attributes than AWS's elements have"));
            }
            let attribute = attribute.map_err(|_| MALFORMED)?;
            // Its name is held against those before it.
            self.works(attribute.value.len() + attribute.key.as_ref().len() * (count + 1))?;
            let value = attribute.unescape_value().map_err(|_| MALFORMED)?;
            match attribute.key.as_ref() {
                b"xmlns" => self.namespace(&value)?,
                b"xmlns:xsi" if value == "http://www.w3.org/2001/XMLSchema-instance" => {}
                b"xsi:type" if value.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                    self.node()?;
                    let (name, text) = ("xsi:type".to_owned(), value.into_owned());
                    element.children.push(Element { name, text, children: Vec::new() });
                }
                _ => return Err(DecodeError::Body("XML with an attribute that AWS's elements don't have")),
            }
        }
        self.open.push(element);
        Ok(())
    }

    /// A default namespace: one of AWS's own, at the root, and the same wherever it is said again.
    fn namespace(&mut self, name: &str) -> Result<(), DecodeError> {
        const FOREIGN: DecodeError = DecodeError::Body("XML with a foreign namespace");
        if let Some(of_root) = &self.namespace {
            return if of_root == name { Ok(()) } else { Err(FOREIGN) };
        }
        let rest = name.strip_prefix("https://").or_else(|| name.strip_prefix("http://")).ok_or(FOREIGN)?;
        let (host, path) = rest.split_once('/').ok_or(FOREIGN)?;
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._/".contains(&b));
        let ours = host == "amazonaws.com" || host.ends_with(".amazonaws.com") || host == "awss3control.amazonaws.com";
        if !ours || !path.starts_with("doc/") || !plain(host) || !plain(path) || !self.open.is_empty() {
            return Err(FOREIGN);
        }
        self.namespace = Some(name.to_owned());
        Ok(())
    }

    fn end(&mut self) -> Result<(), DecodeError> {
        let element = self.open.pop().ok_or(MALFORMED)?;
        match self.open.last_mut() {
            Some(parent) => parent.children.push(element),
            None => self.root = Some(element),
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), DecodeError> {
        let Some(element) = self.open.last_mut() else {
            return if is_blank(text) { Ok(()) } else { Err(DecodeError::Body("XML with text outside of its root")) };
        };
        // An attribute stands among the children too.
        if element.children.iter().any(|child| child.name != "xsi:type") {
            return if is_blank(text) { Ok(()) } else { Err(DecodeError::Body("XML with text beside elements")) };
        }
        if text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t' | '\r')) {
            return Err(DecodeError::Body("XML with a control character"));
        }
        element.text.push_str(text);
        Ok(())
    }

    fn cdata(&mut self, text: &str) -> Result<(), DecodeError> {
        if self.open.is_empty() {
            return Err(DecodeError::Body("XML with text outside of its root"));
        }
        self.text(text)
    }

    fn finish(&mut self) -> Result<Element, DecodeError> {
        self.root.take().filter(|_| self.open.is_empty()).ok_or(DecodeError::Body("XML without a root"))
    }
}

fn is_blank(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_whitespace())
}

/// The members of a structure.
pub(crate) fn members(
    element: &Element,
    service: &'static Service,
    shape: ShapeId,
    budget: &mut Budget,
    depth: u32,
) -> Map<String, Value> {
    let mut out = Map::new();
    let Some(structure) = service.structure(Some(shape)) else { return out };
    if !is_blank(&element.text) {
        budget.unread_in_body("");
    }
    for (member, found) in by_member(element, structure, budget) {
        if depth >= MAX_DEPTH {
            budget.dropped = true;
            break;
        }
        budget.enter(member.wire());
        let value = match service.shape(member.1) {
            Shape::List { element, flattened, .. } if member.flattened() || *flattened => {
                Some(list(found.into_iter(), service, *element, budget, depth + 1))
            }
            Shape::Map { value, key_value, flattened } if member.flattened() || *flattened => {
                Some(map(found.into_iter(), service, *value, *key_value, budget, depth + 1))
            }
            _ => {
                budget.twice |= found.len() > 1;
                node(found[0], service, member.1, budget, depth + 1)
            }
        };
        budget.leave();
        if let Some(value) = value {
            out.insert(member.0.to_owned(), value);
        }
    }
    out
}

/// The children, each with the member that it is, in the order of their names; none is looked at twice.
fn by_member<'a>(
    element: &'a Element,
    structure: &'static Structure,
    budget: &mut Budget,
) -> Vec<(&'static Member, Vec<&'a Element>)> {
    let mut all: Vec<(&'static Member, &Element)> = Vec::with_capacity(element.children.len());
    for child in &element.children {
        match structure.in_body(&child.name) {
            Some(member) => all.push((member, child)),
            None => budget.unread_in_body(&child.name),
        }
    }
    all.sort_by_key(|(member, _)| member.wire());
    let mut grouped: Vec<(&Member, Vec<&Element>)> = Vec::new();
    for (member, child) in all {
        match grouped.last_mut() {
            Some((last, children)) if std::ptr::eq(*last, member) => children.push(child),
            _ => grouped.push((member, vec![child])),
        }
    }
    grouped
}

fn list<'a>(
    elements: impl Iterator<Item = &'a Element>,
    service: &'static Service,
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
    service: &'static Service,
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
        only(entry, &[key_name, value_name], budget);
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

/// Notes what an element has besides children that are called so.
fn only(element: &Element, names: &[&str], budget: &mut Budget) {
    if !is_blank(&element.text) {
        budget.unread_in_body("");
    }
    for child in element.children.iter().filter(|child| !names.contains(&child.name.as_str())) {
        budget.unread_in_body(&child.name);
    }
}

fn node(
    element: &Element,
    service: &'static Service,
    shape: ShapeId,
    budget: &mut Budget,
    depth: u32,
) -> Option<Value> {
    match service.shape(shape) {
        Shape::Structure(_) => {
            budget.count();
            Some(Value::Object(members(element, service, shape, budget, depth)))
        }
        Shape::List { element: inner, wire, .. } => {
            let wire = wire.unwrap_or("member");
            only(element, &[wire], budget);
            Some(list(element.named(wire), service, *inner, budget, depth + 1))
        }
        Shape::Map { value, key_value, .. } => {
            only(element, &["entry"], budget);
            Some(map(element.named("entry"), service, *value, *key_value, budget, depth + 1))
        }
        _ => {
            only_text(element, budget);
            budget.scalar(&element.text, service, shape)
        }
    }
}

/// Notes what a text has besides itself: elements, and white space around it, which readers keep or drop.
fn only_text(element: &Element, budget: &mut Budget) {
    if !is_blank(&element.text) && element.text.trim_ascii().len() != element.text.len() {
        budget.unread_in_body("");
    }
    for child in &element.children {
        budget.unread_in_body(&child.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes are looked at for each byte of the body.
    fn looks(body: &str) -> (usize, bool) {
        let mut tree = Tree::within(body.len());
        let read = Element::read(body.as_bytes(), &mut tree).is_ok();
        (tree.work.div_ceil(body.len()), read)
    }

    /// Two such bodies once held both cores for twenty seconds.
    #[test]
    fn the_work_grows_as_the_body_does() {
        let attributes = |count: usize| (0..count).map(|i| format!(" a{i}=\"\"")).collect::<String>();
        let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        for (body, reads) in [
            (format!("<a{}/>", attributes(50_000)), false),
            (format!("<r>{}</r>", format!("<a{}/>", attributes(50)).repeat(900)), false),
            (
                format!(
                    "<r>{}</r>",
                    "<a xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:type=\"x\"/>".repeat(6_000)
                ),
                true,
            ),
            (format!("<r>{}</r>", "<a/>\n        ".repeat(40_000)), true),
            (format!("<r>{}</r>", "<a>b&amp;c</a>".repeat(40_000)), true),
            (format!("<r>{}</r>", "<a/>".repeat(60_000)), false),
            (format!("<r>{}</r>", "&amp;".repeat(100_000)), true),
            (format!("<r>{}</r>", "<![CDATA[x]]>".repeat(40_000)), true),
            (nested(60), true),
            (nested(100_000), false),
        ] {
            let (looks, read) = looks(&body);
            assert!(looks <= 3, "{looks} looks at each byte of {}…", &body[..40]);
            assert_eq!(read, reads, "{}…", &body[..40]);
        }
    }
}
