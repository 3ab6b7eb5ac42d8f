//! All of a call that the policies of a slice look at, and what was decided of such before.
//!
//! Cedar is asked by these inputs and the slice alone, so that the same ones always have the same answer: there is nothing
//! else that it could see. Most calls of an agent differ in nothing that its policies look at.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use cedar_policy::RestrictedExpression;
use parking_lot::Mutex;

use crate::ruling::Decided;

/// Decisions that are kept, of all slices of a policy version; past this they are made anew.
const MAX_DECISIONS: usize = 4096;
/// Larger inputs aren't kept, in bytes: they hold parameters, and hardly come again.
const MAX_BYTES: usize = 1024;

/// A value of the context.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fact {
    Text(String),
    Long(i64),
    Truth(bool),
    Set(Vec<String>),
}

impl Fact {
    pub(crate) fn cedar(&self) -> RestrictedExpression {
        match self {
            Self::Text(text) => RestrictedExpression::new_string(text.clone()),
            Self::Long(number) => RestrictedExpression::new_long(*number),
            Self::Truth(truth) => RestrictedExpression::new_bool(*truth),
            Self::Set(all) => RestrictedExpression::new_set(all.iter().cloned().map(RestrictedExpression::new_string)),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Long(_) | Self::Truth(_) => 0,
            Self::Set(all) => all.iter().map(|one| one.len() + 32).sum(),
        }
    }
}

/// What of a call is put to a slice's policies.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Inputs {
    /// Empty, if they look at no resource.
    pub(crate) resource: String,
    /// Those attributes of the context that they look at.
    pub(crate) context: Vec<(&'static str, Fact)>,
    /// The parameters, each path with its values, if they look at any.
    pub(crate) parameters: Option<BTreeMap<String, Vec<String>>>,
}

impl Inputs {
    fn bytes(&self) -> usize {
        let context = self.context.iter().map(|(_, fact)| fact.bytes() + 64).sum::<usize>();
        let parameters = self
            .parameters
            .iter()
            .flatten()
            .map(|(path, values)| path.len() + 96 + values.iter().map(|value| value.len() + 32).sum::<usize>());
        self.resource.len() + context + parameters.sum::<usize>()
    }
}

/// What was decided of some inputs of some slices.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    of: Mutex<HashMap<(u64, Inputs), Decided>>,
    last: AtomicU64,
}

impl Decisions {
    /// For a slice that is made.
    pub(crate) fn id(&self) -> u64 {
        self.last.fetch_add(1, Relaxed)
    }

    /// What was decided before, or is decided now. An error that isn't a decision is not kept.
    pub(crate) fn of(
        &self,
        slice: u64,
        inputs: Inputs,
        decide: impl FnOnce(&Inputs) -> Result<Decided, Box<dyn std::error::Error>>,
    ) -> Result<Decided, Box<dyn std::error::Error>> {
        if inputs.bytes() > MAX_BYTES {
            return decide(&inputs);
        }
        let key = (slice, inputs);
        if let Some(decided) = self.of.lock().get(&key) {
            return Ok(decided.clone());
        }
        let decided = decide(&key.1)?;
        let mut of = self.of.lock();
        if of.len() >= MAX_DECISIONS {
            of.clear();
        }
        of.insert(key, decided.clone());
        Ok(decided)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(resource: &str) -> Inputs {
        Inputs { resource: resource.to_owned(), context: Vec::new(), parameters: None }
    }

    #[test]
    fn what_is_kept_is_bounded_and_of_its_own_slice() {
        let decisions = Decisions::default();
        let ask = |slice: u64, resource: &str, id: &str| {
            decisions.of(slice, inputs(resource), |_| Ok(Ok(vec![id.to_owned()]))).unwrap().unwrap().concat()
        };
        assert_eq!(ask(1, "a", "first"), "first");
        assert_eq!(ask(1, "a", "second"), "first");
        assert_eq!(ask(2, "a", "third"), "third");
        let long = "a".repeat(MAX_BYTES + 1);
        assert_eq!((ask(1, &long, "fourth"), ask(1, &long, "fifth")), ("fourth".into(), "fifth".into()));
        for number in 0..3 * MAX_DECISIONS {
            ask(1, &number.to_string(), "");
        }
        assert!(decisions.of.lock().len() <= MAX_DECISIONS);
        assert!(decisions.of(3, inputs("a"), |_| Err("no decision".into())).is_err());
        assert_eq!(ask(3, "a", "sixth"), "sixth");
    }
}
