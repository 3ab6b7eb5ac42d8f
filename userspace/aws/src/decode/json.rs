//! JSON bodies, read while parsing into the bounded document: nothing that isn't kept is ever built.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::value::Budget;
use crate::catalog::{Service, Shape, ShapeId};

/// Reads a JSON object's members, named as the shape names them.
pub(crate) fn members(
    body: &[u8],
    service: &'static Service,
    shape: ShapeId,
    budget: &mut Budget,
) -> Result<Map<String, Value>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text(body)?);
    let value = Node { service, shape, budget, depth: 0 }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    match value {
        Some(Value::Object(members)) => Ok(members),
        None => Ok(Map::new()),
        Some(_) => Err(serde::de::Error::custom("the body is not an object")),
    }
}

/// All of it, for what serde passes over it doesn't look into.
fn text(body: &[u8]) -> Result<&str, serde_json::Error> {
    std::str::from_utf8(body).map_err(serde::de::Error::custom)
}

/// Reads any JSON value.
pub(crate) fn value(
    body: &[u8],
    service: &'static Service,
    shape: ShapeId,
    budget: &mut Budget,
) -> Result<Option<Value>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text(body)?);
    let value = Node { service, shape, budget, depth: 0 }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

struct Node<'a> {
    service: &'static Service,
    shape: ShapeId,
    budget: &'a mut Budget,
    depth: u32,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    /// `None`: null, a blob, or left out.
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Node<'_> {
    /// Notes a value that is of another kind than the shape's: a lenient reader may make something of it.
    fn expect(&mut self, fits: impl Fn(&Shape) -> bool) {
        let shape = self.service.shape(self.shape);
        if !matches!(shape, Shape::Untyped) && !fits(shape) {
            self.budget.unread_in_body("");
        }
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(mut self, value: bool) -> Result<Self::Value, E> {
        self.expect(|shape| matches!(shape, Shape::Boolean));
        self.budget.count();
        Ok(Some(Value::Bool(value)))
    }

    fn visit_i64<E>(mut self, value: i64) -> Result<Self::Value, E> {
        self.expect(|shape| matches!(shape, Shape::Integer | Shape::Float | Shape::Timestamp));
        self.budget.count();
        Ok(Some(value.into()))
    }

    fn visit_u64<E>(mut self, value: u64) -> Result<Self::Value, E> {
        self.expect(|shape| matches!(shape, Shape::Integer | Shape::Float | Shape::Timestamp));
        self.budget.count();
        Ok(Some(value.into()))
    }

    fn visit_f64<E>(mut self, value: f64) -> Result<Self::Value, E> {
        self.expect(|shape| matches!(shape, Shape::Float | Shape::Timestamp));
        self.budget.count();
        Ok(serde_json::Number::from_f64(value).map(Value::Number))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(mut self, value: &str) -> Result<Self::Value, E> {
        if matches!(self.service.shape(self.shape), Shape::Blob) {
            return Ok(None);
        }
        // Numbers that JSON has no literal for are texts: `NaN`, `Infinity`.
        self.expect(|shape| matches!(shape, Shape::String | Shape::Timestamp | Shape::Float));
        Ok(Some(self.budget.string(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Self::Value, A::Error> {
        self.expect(|shape| matches!(shape, Shape::List { .. }));
        let element = match self.service.shape(self.shape) {
            Shape::List { element, .. } => *element,
            _ => ShapeId::UNTYPED,
        };
        let (service, depth) = (self.service, self.depth + 1);
        self.budget.count();
        let mut kept = Vec::new();
        while self.budget.element(depth) {
            match seq.next_element_seed(Node { service, shape: element, budget: self.budget, depth })? {
                Some(Some(value)) => kept.push(value),
                Some(None) => {}
                None => return Ok(Some(Value::Array(kept))),
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Some(Value::Array(kept)))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        self.expect(|shape| matches!(shape, Shape::Structure(_) | Shape::Map { .. } | Shape::EventStream));
        let Self { service, shape, budget, depth } = self;
        budget.count();
        let shape = service.shape(shape);
        let mut kept = Map::new();
        let put = |kept: &mut Map<String, Value>, name: String, value| {
            // Which of two members counts differs by parser, so a document with both means nothing for sure.
            match kept.insert(name, value) {
                None => Ok(()),
                Some(_) => Err(serde::de::Error::custom("a member twice")),
            }
        };
        while let Some(Key(key)) = map.next_key()? {
            match shape {
                Shape::Structure(structure) => match structure.in_body(&key) {
                    Some(member) if depth < super::value::MAX_DEPTH => {
                        budget.enter(member.wire());
                        let node = Node { service, shape: member.1, budget: &mut *budget, depth: depth + 1 };
                        let value = map.next_value_seed(node)?.unwrap_or(Value::Null);
                        budget.leave();
                        put(&mut kept, member.0.to_owned(), value)?;
                    }
                    known => {
                        match known {
                            Some(_) => budget.dropped = true,
                            // Newer than the catalog, or spelled otherwise; or a member whose place is elsewhere.
                            None => budget.unread_in_body(&key),
                        }
                        map.next_value::<IgnoredAny>()?;
                    }
                },
                other => {
                    if !budget.element(depth + 1) {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let element = match other {
                        Shape::Map { value, .. } => *value,
                        _ => ShapeId::UNTYPED,
                    };
                    let value = map.next_value_seed(Node { service, shape: element, budget, depth: depth + 1 })?;
                    budget.dropped |= key.len() > super::value::MAX_STRING;
                    put(&mut kept, key.chars().take(super::value::MAX_STRING).collect(), value.unwrap_or(Value::Null))?;
                }
            }
        }
        // Nulls were kept to find members that come twice; as parameters they say nothing.
        kept.retain(|_, value| !value.is_null());
        Ok(Some(Value::Object(kept)))
    }
}

/// A member's name, copied only if it has escapes.
pub(super) struct Key<'de>(pub Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl<'de> Visitor<'de> for Name {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(name.to_owned())))
            }
        }

        deserializer.deserialize_str(Name)
    }
}
