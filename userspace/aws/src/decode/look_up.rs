//! What policies look for, found in all of an input of which the parameters keep a part.
//!
//! A pass over the whole body that builds nothing: values of the paths that policies name, and every ARN and account.
//! For JSON, whose documents alone grow so large in real calls; what was dropped of others stays unknown, and then every
//! `forbid` that reads parameters holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Bound,
    sync::Arc,
};

use chaperone_model::{Call, LookedUp, Protocol};
use http::request::Parts;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::{Request, json::Key};
use crate::{
    catalog::{Catalog, Service, Shape, ShapeId},
    host::HostMatch,
    resources::References,
};

/// How much of what is looked for is kept, in bytes.
const MAX_BYTES: usize = 1 << 20;

impl Catalog {
    /// Looks for these paths in the whole input of a call whose parameters are only a part of it. `parts` and `body` are
    /// those that the call was decoded from.
    pub fn look_up(
        &'static self,
        call: &mut Call,
        host: &HostMatch,
        parts: &Parts,
        body: Option<&[u8]>,
        paths: Arc<BTreeSet<String>>,
    ) {
        if !call.has_cut_texts() || !matches!(call.protocol, Protocol::Json | Protocol::RestJson) {
            return;
        }
        let Some(position) = self.position(&call.service) else { return };
        let service = self.service(usize::from(position));
        let Some(operation) = service.operation(&call.operation) else { return };
        let Ok(request) = Request::new(host, parts, body) else { return };
        let Ok(body) = request.plain(Some(operation)) else { return };
        let (mut shape, mut path) = (operation.input.unwrap_or(ShapeId::UNTYPED), String::new());
        if let Some(structure) = service.structure(operation.input)
            && let Some(payload) = structure.payload
            && let Some(member) = structure.by_name(payload)
        {
            (shape, path) = (member.1, payload.to_owned());
        }
        let mut found = Found { paths: &paths, values: BTreeMap::new(), bytes: 0, references: References::default() };
        let Ok(text) = std::str::from_utf8(body) else { return };
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let node = Node { service, shape, path: &mut path, found: &mut found };
        if node.deserialize(&mut deserializer).and_then(|()| deserializer.end()).is_err() {
            return;
        }
        // What stands elsewhere than in the body was kept.
        let Found { values, mut references, .. } = found;
        for arn in call.references.arns.iter().chain(&call.references.accounts) {
            references.collect("account", &Value::String(arn.clone()));
        }
        let (references, are_all) = references.finish();
        if are_all {
            call.references = references;
            call.looked_up = Some(LookedUp { paths, values });
        }
    }
}

struct Found<'a> {
    paths: &'a BTreeSet<String>,
    values: BTreeMap<String, Vec<String>>,
    bytes: usize,
    references: References,
}

impl Found<'_> {
    fn scalar<E: serde::de::Error>(&mut self, path: &str, text: impl FnOnce() -> String) -> Result<(), E> {
        if self.paths.contains(path) {
            let text = text();
            self.bytes += text.len() + 32;
            if self.bytes > MAX_BYTES {
                return Err(E::custom("more than is kept of what policies look for"));
            }
            self.values.entry(path.to_owned()).or_default().push(text);
        }
        Ok(())
    }

    /// Whether something is looked for below here.
    fn is_on_the_way(&self, path: &str) -> bool {
        let first = self.paths.range::<str, _>((Bound::Included(path), Bound::Unbounded)).next();
        first.is_some_and(|wanted| wanted.starts_with(path)) || path.is_empty()
    }
}

struct Node<'a, 'f> {
    service: &'a Service,
    shape: ShapeId,
    path: &'a mut String,
    found: &'a mut Found<'f>,
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.found.scalar(self.path, || value.to_string())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.found.scalar(self.path, || value.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.found.scalar(self.path, || value.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.found.scalar(self.path, || serde_json::Number::from_f64(value).map_or_else(String::new, |n| n.to_string()))
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        if matches!(self.service.shape(self.shape), Shape::Blob) {
            return Ok(());
        }
        let name = self.path.rsplit('.').next().unwrap_or_default();
        self.found.references.text(name, value);
        self.found.scalar(self.path, || value.to_owned())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let shape = match self.service.shape(self.shape) {
            Shape::List { element, .. } => *element,
            _ => ShapeId::UNTYPED,
        };
        let Self { service, path, found, .. } = self;
        while seq.next_element_seed(Node { service, shape, path: &mut *path, found: &mut *found })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { service, shape, path, found } = self;
        let shape = service.shape(shape);
        // Which of two members counts differs by reader.
        let mut seen = found.is_on_the_way(path).then(BTreeSet::new);
        while let Some(Key(key)) = map.next_key()? {
            if seen.as_mut().is_some_and(|seen| !seen.insert(key.clone().into_owned())) {
                return Err(A::Error::custom("a member twice"));
            }
            let (name, shape) = match shape {
                Shape::Structure(structure) => {
                    let Some(member) = structure.in_body(&key) else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    (member.0, member.1)
                }
                Shape::Map { value, .. } => (&*key, *value),
                _ => (&*key, ShapeId::UNTYPED),
            };
            let length = path.len();
            if length > 0 {
                path.push('.');
            }
            path.push_str(name);
            found.references.text("", &key);
            map.next_value_seed(Node { service, shape, path: &mut *path, found: &mut *found })?;
            path.truncate(length);
        }
        Ok(())
    }
}
