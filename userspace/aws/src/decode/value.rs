//! The bounded document that parameters are kept in.
//!
//! Structures whose shape is known are never cut: the shape bounds them, and a policy may ask for any of their members.
//! Lists and maps are, once the budget is used up; then the document says so in `$truncated`, and whoever needs all of
//! it (to name resources, say) must refuse.

use chaperone_model::{CUT, ONLY_TEXTS, TRUNCATED};
use serde_json::{Map, Value};

use crate::catalog::{Service, Shape, ShapeId};

/// How deep parameters are kept.
pub(crate) const MAX_DEPTH: u32 = 32;
/// How many values are kept.
pub(crate) const MAX_NODES: u32 = 4096;
/// How long a string is kept.
pub(crate) const MAX_STRING: usize = 4096;
/// How many parts that nothing understands are named.
const MAX_UNREAD: usize = 32;
/// How long the name of one is, in bytes.
const MAX_UNREAD_NAME: usize = 160;

/// What may still be kept.
pub(crate) struct Budget {
    left: u32,
    /// Strings were cut.
    cut: bool,
    /// Elements were left out: what isn't in the document may yet be in the request.
    pub dropped: bool,
    /// Something comes twice that may come once: which of the two counts differs by reader.
    pub twice: bool,
    /// The members that are being read, outermost first: what is unread is named by them.
    path: Vec<&'static str>,
    unread: Vec<String>,
}

impl Budget {
    pub const fn new() -> Self {
        Self { left: MAX_NODES, cut: false, dropped: false, twice: false, path: Vec::new(), unread: Vec::new() }
    }

    /// Reading goes on inside a member.
    pub fn enter(&mut self, member: &'static str) {
        self.path.push(member);
    }

    /// Reading comes out of it again.
    pub fn leave(&mut self) {
        self.path.pop();
    }

    /// Something in the body, below what is being read, that the shape has no place for. An empty name is the member itself.
    pub fn unread_in_body(&mut self, name: &str) {
        if self.unread.len() > MAX_UNREAD {
            return;
        }
        let mut place = String::from("body");
        for part in self.path.iter().copied().chain((!name.is_empty()).then_some(name)) {
            if place.len() >= MAX_UNREAD_NAME {
                break;
            }
            place.push('.');
            place.push_str(&part[..part.floor_char_boundary(MAX_UNREAD_NAME)]);
        }
        self.unread(&place);
    }

    /// Something elsewhere that nothing here understands, by its place: `query.frobnicate`.
    pub fn unread(&mut self, place: &str) {
        if self.unread.len() > MAX_UNREAD {
            return;
        }
        let bounded = &place[..place.floor_char_boundary(MAX_UNREAD_NAME)];
        let mut place: String = bounded.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        if self.unread.contains(&place) {
            return;
        }
        if self.unread.len() == MAX_UNREAD {
            place = String::from("…");
        }
        self.unread.push(place);
    }

    /// How many parts were unread.
    pub fn unread_count(&self) -> usize {
        self.unread.len()
    }

    /// What was unread; the last says `…` where more was left out.
    pub fn take_unread(&mut self) -> Vec<String> {
        std::mem::take(&mut self.unread)
    }

    /// Whether one more element of a list or map may be kept at this depth.
    pub fn element(&mut self, depth: u32) -> bool {
        let keeps = self.left > 0 && depth < MAX_DEPTH;
        self.dropped |= !keeps;
        keeps
    }

    /// Counts one value.
    pub fn count(&mut self) {
        self.left = self.left.saturating_sub(1);
    }

    pub fn string(&mut self, text: &str) -> Value {
        self.count();
        if text.len() <= MAX_STRING {
            return Value::String(text.to_owned());
        }
        self.cut = true;
        let mut end = MAX_STRING;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Value::String(format!("{}{CUT}", &text[..end]))
    }

    /// A value that came as text, by what it should be; `None` for blobs.
    pub fn scalar(&mut self, text: &str, service: &Service, shape: ShapeId) -> Option<Value> {
        let trimmed = text.trim_matches(|c: char| c.is_ascii_whitespace());
        let typed = match service.shape(shape) {
            Shape::Blob => return None,
            Shape::Boolean if trimmed.eq_ignore_ascii_case("true") => Some(Value::Bool(true)),
            Shape::Boolean if trimmed.eq_ignore_ascii_case("false") => Some(Value::Bool(false)),
            Shape::Integer => trimmed.parse::<i64>().ok().map(Value::from),
            Shape::Float => trimmed.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::Number),
            _ => None,
        };
        if typed.is_some() {
            self.count();
        }
        Some(typed.unwrap_or_else(|| self.string(text)))
    }

    /// Marks the document if something was left out.
    pub fn finish(&self, mut members: Map<String, Value>) -> Value {
        if self.cut || self.dropped {
            members.insert(TRUNCATED.to_owned(), Value::Bool(true));
        }
        if self.cut && !self.dropped {
            members.insert(ONLY_TEXTS.to_owned(), Value::Bool(true));
        }
        Value::Object(members)
    }
}
