//! Form-encoded bodies of the query and ec2 protocols: `A.member.1.B=value`.

use std::{borrow::Cow, cmp::Ordering};

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
    /// Reads forms (of the query and of the body) into one. A name that comes twice is refused: which of the two counts
    /// differs by service.
    pub fn parse(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, DecodeError> {
        let mut pairs = Vec::new();
        for pair in texts.into_iter().flat_map(|text| text.split('&')).filter(|pair| !pair.is_empty()) {
            if pairs.len() >= MAX_PAIRS {
                return Err(DecodeError::TooLarge("form"));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decoded(name), decoded(value)));
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

    /// The members of the operation's input.
    pub fn members(&self, service: &Service, shape: Option<ShapeId>, budget: &mut Budget) -> Map<String, Value> {
        let mut members = Map::new();
        if let Some(shape) = shape {
            structure(Level { pairs: &self.0, at: 0 }, service, shape, budget, 0, &mut members);
        }
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

    /// The levels below `1`, `2`, …, in the order of their numbers.
    fn elements(self, budget: &mut Budget) -> Vec<Level<'a>> {
        let mut found: Vec<_> =
            self.children().filter_map(|(name, level)| Some((name.parse::<u32>().ok()?, level))).collect();
        found.sort_unstable_by_key(|(number, _)| *number);
        // `1` and `01`
        budget.twice |= found.windows(2).any(|two| two[0].0 == two[1].0);
        found.into_iter().map(|(_, level)| level).collect()
    }
}

fn structure(
    level: Level<'_>,
    service: &Service,
    shape: ShapeId,
    budget: &mut Budget,
    depth: u32,
    out: &mut Map<String, Value>,
) {
    let Some(structure) = service.structure(Some(shape)) else { return };
    for (segment, below) in level.children() {
        // A flattened list goes by the name of its element, if that has one.
        let member = structure.by_wire(segment).or_else(|| {
            structure.members.iter().find(|member| {
                matches!(service.shape(member.1),
                    Shape::List { wire: Some(wire), flattened, .. } if *wire == segment && (*flattened || member.flattened()))
            })
        });
        let Some(member) = member else { continue };
        if depth >= MAX_DEPTH {
            budget.dropped = true;
            return;
        }
        if let Some(value) = node(below, service, member.1, member.flattened(), budget, depth + 1) {
            budget.twice |= out.insert(member.0.to_owned(), value).is_some();
        }
    }
}

fn node(
    level: Level<'_>,
    service: &Service,
    shape: ShapeId,
    flattened: bool,
    budget: &mut Budget,
    depth: u32,
) -> Option<Value> {
    match service.shape(shape) {
        Shape::Structure(_) => {
            budget.count();
            let mut members = Map::new();
            structure(level, service, shape, budget, depth, &mut members);
            Some(Value::Object(members))
        }
        Shape::List { element, wire, flattened: flat } => {
            budget.count();
            // ec2 numbers at once; query puts `member` or the element's own name before the number.
            let wrapped = level.child(wire.unwrap_or("member")).filter(|_| !flattened && !flat);
            let mut kept = Vec::new();
            for below in wrapped.unwrap_or(level).elements(budget) {
                if !budget.element(depth) {
                    break;
                }
                kept.extend(node(below, service, *element, false, budget, depth + 1));
            }
            Some(Value::Array(kept))
        }
        Shape::Map { value, key_value: (key_name, value_name), .. } => {
            budget.count();
            let mut kept = Map::new();
            for entry in level.child("entry").unwrap_or(level).elements(budget) {
                if !budget.element(depth) {
                    break;
                }
                let key = entry.child(key_name).and_then(Level::value);
                let below = entry.child(value_name);
                if let (Some(key), Some(below)) = (key, below)
                    && let Some(value) = node(below, service, *value, false, budget, depth + 1)
                {
                    budget.twice |= kept.insert(key.to_owned(), value).is_some();
                }
            }
            Some(Value::Object(kept))
        }
        _ => budget.scalar(level.value()?, service, shape),
    }
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
