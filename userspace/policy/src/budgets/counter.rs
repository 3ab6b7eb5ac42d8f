//! What is used of one budget by one agent or session.
//!
//! What is counted is written down every few seconds, and calls are counted meanwhile. So a copy shares what it was made of,
//! and the first change after it copies no more than the part that it changes.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap as _};

use super::{Added, Budget};
use crate::approvals::Millis;

/// A window's parts: what happened is forgotten in such steps, never before its time.
const STEPS: u64 = 60;
/// What is counted once is in so many parts, so that one of them is soon copied: some hundred of 100,000 resources.
const PARTS: usize = 256;

/// How much was counted, and when.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Counter {
    steps: VecDeque<(u64, u64)>,
    /// What is counted once.
    seen: Seen,
}

impl Counter {
    /// Forgets what the window has left behind.
    pub(super) fn forget(&mut self, budget: &Budget, now: Millis) {
        let oldest = oldest(budget, now);
        while self.steps.front().is_some_and(|(step, _)| *step < oldest) {
            self.steps.pop_front();
        }
        self.seen.forget(oldest);
    }

    pub(super) fn used(&self) -> u64 {
        self.steps.iter().map(|(_, amount)| amount).sum()
    }

    /// What is used in the window that ends now.
    pub(super) fn used_at(&self, budget: &Budget, now: Millis) -> u64 {
        let oldest = oldest(budget, now);
        self.steps.iter().filter(|(step, _)| *step >= oldest).map(|(_, amount)| amount).sum()
    }

    /// Of these, those that weren't counted before, each once.
    pub(super) fn unseen(&self, all: &[String]) -> Vec<String> {
        let mut new: Vec<_> = all.iter().filter(|one| !self.seen.contains(one)).cloned().collect();
        new.sort_unstable();
        new.dedup();
        new
    }

    pub(super) fn see(&mut self, step: u64, all: &[String]) {
        for one in all {
            self.seen.insert(one.clone(), step);
        }
    }

    pub(super) fn add(&mut self, step: u64, amount: u64) {
        // The clock may have been set back.
        match self.steps.iter_mut().rev().find(|(at, _)| *at <= step) {
            Some((at, sum)) if *at == step => *sum = sum.saturating_add(amount),
            _ => {
                let place = self.steps.partition_point(|(at, _)| *at < step);
                self.steps.insert(place, (step, amount));
            }
        }
    }

    pub(super) fn take_back(&mut self, added: &Added) {
        if let Some((_, sum)) = self.steps.iter_mut().find(|(at, _)| *at == added.step) {
            *sum = sum.saturating_sub(added.amount);
        }
        for resource in &added.resources {
            self.seen.remove(resource);
        }
    }
}

/// The first step of the window that ends now. What happened at a step's end is counted for the whole window after that.
fn oldest(budget: &Budget, now: Millis) -> u64 {
    if budget.window == 0 { 0 } else { now.saturating_sub(budget.window) / step_length(budget) }
}

const fn step_length(budget: &Budget) -> u64 {
    let step = budget.window / STEPS;
    if step == 0 { 1 } else { step }
}

/// The step that a time is in.
pub(super) const fn step_of(budget: &Budget, now: Millis) -> u64 {
    if budget.window == 0 { 0 } else { now / step_length(budget) }
}

/// Things by the step that they were counted in.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// None, or [`PARTS`].
    parts: Vec<Arc<HashMap<String, u64>>>,
    /// Agents choose resources' names, and not which part they come to.
    hasher: RandomState,
    /// What is older than this was forgotten.
    oldest: u64,
}

impl Seen {
    fn place(&self, one: &str) -> usize {
        usize::try_from(self.hasher.hash_one(one) % PARTS as u64).expect("BUG: less than PARTS")
    }

    fn contains(&self, one: &str) -> bool {
        self.parts.get(self.place(one)).is_some_and(|part| part.contains_key(one))
    }

    fn insert(&mut self, one: String, step: u64) {
        if self.parts.is_empty() {
            self.parts.resize_with(PARTS, Arc::default);
        }
        let place = self.place(&one);
        Arc::make_mut(&mut self.parts[place]).insert(one, step);
    }

    fn remove(&mut self, one: &str) {
        let place = self.place(one);
        if let Some(part) = self.parts.get_mut(place).filter(|part| part.contains_key(one)) {
            Arc::make_mut(part).remove(one);
        }
    }

    /// Once in a step: looking through all of it for each call would make calls slower, the more there is.
    fn forget(&mut self, oldest: u64) {
        if oldest <= self.oldest {
            return;
        }
        self.oldest = oldest;
        for part in self.parts.iter_mut().filter(|part| part.values().any(|step| *step < oldest)) {
            Arc::make_mut(part).retain(|_, step| *step >= oldest);
        }
    }
}

impl Serialize for Seen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.parts.iter().map(|part| part.len()).sum()))?;
        for (one, step) in self.parts.iter().flat_map(|part| &**part) {
            map.serialize_entry(one, step)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Seen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut seen = Self::default();
        for (one, step) in HashMap::<String, u64>::deserialize(deserializer)? {
            seen.insert(one, step);
        }
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_after_a_copy_copies_one_part_of_many() {
        let name = |at: usize| format!("arn:aws:s3:::bucket-{at}");
        let mut counter = Counter::default();
        (0..100_000).for_each(|at| counter.see(0, &[name(at)]));
        let copy = counter.clone();
        let shared = |one: &Counter, other: &Counter| {
            one.seen.parts.iter().zip(&other.seen.parts).filter(|(one, other)| Arc::ptr_eq(one, other)).count()
        };
        assert_eq!(shared(&counter, &copy), PARTS);
        counter.see(0, &[name(100_000)]);
        assert_eq!(shared(&counter, &copy), PARTS - 1);
        let largest = counter.seen.parts.iter().map(|part| part.len()).max();
        assert!(largest < Some(1_000), "{largest:?}");
        assert!(counter.unseen(&[name(100_000)]).is_empty() && copy.unseen(&[name(100_000)]).len() == 1);
        // Written down, and read again, it is the same.
        let again: Counter = serde_json::from_slice(&serde_json::to_vec(&counter).unwrap()).unwrap();
        assert!((0..=100_000).all(|at| again.unseen(&[name(at)]).is_empty()));
        assert_eq!(again.unseen(&[name(100_001)]).len(), 1);
    }

    #[test]
    fn what_was_seen_is_forgotten_with_its_step() {
        let mut seen = Seen::default();
        seen.insert("a".into(), 1);
        seen.insert("b".into(), 2);
        seen.forget(1);
        assert!(seen.contains("a") && seen.contains("b"));
        seen.forget(2);
        assert!(!seen.contains("a") && seen.contains("b"));
    }
}
