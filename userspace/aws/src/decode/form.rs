//! Form-encoded bodies of the query and ec2 protocols: `A.member.1.B=value`.

use std::{borrow::Cow, cmp::Ordering};

use chaperone_model::Protocol;
use serde_json::{Map, Value};

use super::{
    DecodeError,
    value::{Budget, MAX_DEPTH},
};
use crate::{
    catalog::{Service, Shape, ShapeId},
    route::decoded,
};

/// More pairs than any real call has; EC2's limit for a request is lower.
const MAX_PAIRS: usize = 20_000;

/// The pairs of a form, each name once.
pub(crate) struct Form<'a>(Vec<Pair<'a>>);

/// Name and value.
type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

impl<'a> Form<'a> {
    /// Reads a form, of the query or of the body. A name that comes twice is refused: which of the two counts differs by
    /// service; and so is whatever another parser could split or decode in another way.
    pub fn parse(text: &'a str) -> Result<Self, DecodeError> {
        if text.bytes().any(|b| b == b';' || b.is_ascii_control() || b == b' ' || !b.is_ascii()) {
            return Err(DecodeError::Body(
                "a form with a raw `;`, space, control or other character that is not encoded",
            ));
        }
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if pairs.len() >= MAX_PAIRS {
                return Err(DecodeError::TooLarge("form"));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decoded(name)?, decoded(value)?));
        }
        pairs.sort_unstable_by(|(one, _), (other, _)| by_segment(one, other));
        if pairs.windows(2).any(|two| two[0].0 == two[1].0) {
            return Err(DecodeError::Contradiction("a form field comes twice"));
        }
        Ok(Self(pairs))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| &**value)
    }

    /// The names of the fields.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }

    /// The members of the operation's input.
    pub fn members(
        &self,
        service: &'static Service,
        shape: Option<ShapeId>,
        protocol: Protocol,
        budget: &mut Budget,
    ) -> Map<String, Value> {
        let mut members = Map::new();
        let mut reader = FormReader { service, protocol, budget };
        reader.structure(Level { pairs: &self.0, at: 0 }, shape, 0, &mut members);
        members
    }
}

/// The order of `a.split('.')` and `b.split('.')`: a name's end comes before the dot, and the dot before all else.
fn by_segment(a: &str, b: &str) -> Ordering {
    let rank = |byte: u8| (byte != b'.', byte);
    match a.bytes().zip(b.bytes()).find(|(x, y)| x != y) {
        Some((x, y)) => rank(x).cmp(&rank(y)),
        None => a.len().cmp(&b.len()),
    }
}

/// Pairs that agree in what comes before byte `at` of their names.
#[derive(Clone, Copy)]
struct Level<'a> {
    pairs: &'a [Pair<'a>],
    at: usize,
}

impl<'a> Level<'a> {
    /// The next segments of the names, each with the level below it.
    fn children(self) -> impl Iterator<Item = (&'a str, Level<'a>)> {
        let mut rest = self.pairs;
        std::iter::from_fn(move || {
            loop {
                let (first, _) = rest.first()?;
                let Some(segment) = first.get(self.at..).and_then(|tail| tail.split('.').next()) else {
                    rest = &rest[1..];
                    continue;
                };
                let same = |name: &str| name.get(self.at..).and_then(|tail| tail.split('.').next()) == Some(segment);
                let end = rest.iter().position(|(name, _)| !same(name)).unwrap_or(rest.len());
                let (these, others) = rest.split_at(end);
                rest = others;
                return Some((segment, Level { pairs: these, at: self.at + segment.len() + 1 }));
            }
        })
    }

    fn child(self, segment: &str) -> Option<Level<'a>> {
        self.children().find(|(name, _)| *name == segment).map(|(_, level)| level)
    }

    /// The value of the pair whose name ends here.
    fn value(self) -> Option<&'a str> {
        self.pairs.iter().find(|(name, _)| name.len() + 1 == self.at).map(|(_, value)| &**value)
    }

    /// The name of the first pair, as it came, from byte `from` on.
    fn first_name(self, from: usize) -> &'a str {
        self.pairs.first().and_then(|(name, _)| name.get(from..)).unwrap_or_default()
    }
}

/// Reads pairs by a shape. What the shape has no place for is noted, and whatever could be a list's element is kept.
struct FormReader<'b> {
    service: &'static Service,
    protocol: Protocol,
    budget: &'b mut Budget,
}

impl FormReader<'_> {
    /// Notes a level's pairs, all of which nothing reads: names agree up to `at`, and what differs comes after.
    fn unread(&mut self, level: Level<'_>) {
        for (name, _) in level.pairs {
            self.budget.unread(&["body.", name].concat());
        }
    }

    /// Notes the pair that ends here, where the shape takes no text.
    fn no_value(&mut self, level: Level<'_>) {
        if level.value().is_some() {
            let name = level.first_name(0);
            let end = level.at.saturating_sub(1).min(name.len());
            self.budget.unread(&["body.", &name[..end]].concat());
        }
    }

    fn structure(&mut self, level: Level<'_>, shape: Option<ShapeId>, depth: u32, out: &mut Map<String, Value>) {
        let service = self.service;
        if depth > 0 {
            self.no_value(level);
        }
        for (segment, below) in level.children() {
            let structure = service.structure(shape);
            // A flattened list goes by the name of its element, if that has one.
            let member = structure.and_then(|structure| {
                structure.by_wire(segment).or_else(|| {
                    structure.members.iter().find(|member| {
                        matches!(service.shape(member.1),
                            Shape::List { wire: Some(wire), flattened, .. } if *wire == segment && (*flattened || member.flattened()))
                    })
                })
            });
            let Some(member) = member else {
                let control = matches!(segment, "Action" | "Version") || is_v2_of_simpledb(service, segment);
                if depth > 0 || !control {
                    self.unread(below);
                }
                continue;
            };
            if depth >= MAX_DEPTH {
                self.budget.dropped = true;
                return;
            }
            if let Some(value) = self.node(below, member.1, member.flattened(), depth + 1) {
                self.budget.twice |= out.insert(member.0.to_owned(), value).is_some();
            }
        }
    }

    fn node(&mut self, level: Level<'_>, shape: ShapeId, flattened: bool, depth: u32) -> Option<Value> {
        let service = self.service;
        match service.shape(shape) {
            Shape::Structure(_) => {
                self.budget.count();
                let mut members = Map::new();
                self.structure(level, Some(shape), depth, &mut members);
                Some(Value::Object(members))
            }
            Shape::List { element, wire, flattened: flat } => {
                self.budget.count();
                // ec2 numbers at once; query puts `member` or the element's own name before the number.
                let wrapper = wire.unwrap_or("member");
                let bare = self.protocol == Protocol::Ec2 || flattened || *flat;
                let wrapped = level.child(wrapper).filter(|_| !bare);
                if !bare && wrapped.is_none() {
                    // Numbered at once, as no client of this protocol does it.
                    level.children().for_each(|(_, below)| self.unread(below));
                }
                if let Some(wrapped) = wrapped {
                    for (segment, below) in level.children() {
                        if segment != wrapper {
                            self.unread(below);
                        }
                    }
                    self.no_value(wrapped);
                }
                // query says of a list that it is empty.
                if self.protocol != Protocol::Query || level.pairs.len() > 1 || level.value() != Some("") {
                    self.no_value(level);
                }
                let mut kept = Vec::new();
                for below in self.elements(wrapped.unwrap_or(level)) {
                    if !self.budget.element(depth) {
                        break;
                    }
                    kept.extend(self.node(below, *element, false, depth + 1));
                }
                Some(Value::Array(kept))
            }
            Shape::Map { value, key_value: (key_name, value_name), .. } => {
                self.budget.count();
                self.no_value(level);
                let wrapped = level.child("entry");
                if let Some(wrapped) = wrapped {
                    for (segment, below) in level.children() {
                        if segment != "entry" {
                            self.unread(below);
                        }
                    }
                    self.no_value(wrapped);
                }
                let mut kept = Map::new();
                for entry in self.elements(wrapped.unwrap_or(level)) {
                    if !self.budget.element(depth) {
                        break;
                    }
                    self.entry(entry, *value, key_name, value_name, depth, &mut kept);
                }
                Some(Value::Object(kept))
            }
            _ => {
                for (_, below) in level.children() {
                    self.unread(below);
                }
                self.budget.scalar(level.value()?, service, shape)
            }
        }
    }

    fn entry(
        &mut self,
        entry: Level<'_>,
        shape: ShapeId,
        key_name: &str,
        value_name: &str,
        depth: u32,
        kept: &mut Map<String, Value>,
    ) {
        self.no_value(entry);
        for (segment, below) in entry.children() {
            if segment != key_name && segment != value_name {
                self.unread(below);
            }
        }
        let named = entry.child(key_name);
        if let Some(named) = named {
            for (_, below) in named.children() {
                self.unread(below);
            }
        }
        let (key, below) = (named.and_then(Level::value), entry.child(value_name));
        match (key, below) {
            (Some(key), Some(below)) => {
                if let Some(value) = self.node(below, shape, false, depth + 1) {
                    self.budget.twice |= kept.insert(key.to_owned(), value).is_some();
                }
            }
            // Half an entry.
            _ => self.unread(entry),
        }
    }

    /// The levels below `1`, `2`, …, in the order of their numbers. What isn't numbered so, one after the other and
    /// without zeros or signs before the number, is noted: readers differ by what they take.
    fn elements<'a>(&mut self, level: Level<'a>) -> Vec<Level<'a>> {
        let mut found = Vec::new();
        for (segment, below) in level.children() {
            let number = Some(segment).filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            match number.and_then(|text| text.parse::<u32>().ok()) {
                Some(number) => {
                    if segment.starts_with('0') {
                        self.unread(below);
                    }
                    found.push((number, below));
                }
                None => self.unread(below),
            }
        }
        found.sort_unstable_by_key(|(number, _)| *number);
        // `1` and `01`
        self.budget.twice |= found.windows(2).any(|two| two[0].0 == two[1].0);
        for (expected, (number, below)) in (1..).zip(&found) {
            if *number != expected {
                self.unread(*below);
                break;
            }
        }
        found.into_iter().map(|(_, level)| level).collect()
    }
}

/// SimpleDB's clients know no newer signature than the one inside of the form. (Nothing is signed so here: such a request
/// is decoded to be refused for what it is.)
pub(super) fn is_v2_of_simpledb(service: &Service, name: &str) -> bool {
    service.name == "sdb"
        && matches!(
            name,
            "AWSAccessKeyId" | "SecurityToken" | "Signature" | "SignatureMethod" | "SignatureVersion" | "Timestamp"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_their_segments() {
        let names = ["", ".", "a", "a.", "a..b", "a.b", "a.b.c", "a.bc", "a-b", "a-b.c", "a0", "ab", "ä", "ä.a", "z"];
        for a in names {
            for b in names {
                assert_eq!(by_segment(a, b), a.split('.').cmp(b.split('.')), "{a:?} {b:?}");
            }
        }
    }
}
