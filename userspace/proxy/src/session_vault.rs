//! What a session's placeholders stand for, in memory until the session ends: for values that go back to AWS where a
//! policy lets them, and so that they don't come back to the agent in an answer.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use chaperone_masking::Echoes;
use chaperone_policy::{Unmask, UnmaskTarget};
use foldhash::HashMap;
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use zeroize::Zeroizing;

/// What every placeholder begins with.
pub(crate) const PREFIX: &str = "chaperone-masked-";
/// Longer values are no passwords or keys; looking for them in every answer would cost more than it is worth.
const MAX_VALUE: usize = 4096;
/// Shorter ones can't be told from ordinary text when they come back, and so don't go there.
const MIN_VALUE: usize = 6;
/// … and what no policy lets go back isn't kept, if it is as short as an ordinary word.
const MIN_OTHER: usize = 12;

/// As many as are looked for at once: more would be kept, and come back unseen.
const MAX_VALUES: usize = u16::MAX as usize;

/// How much is kept for one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VaultLimits {
    /// How many values.
    pub values: usize,
    /// How many bytes they have in all.
    pub bytes: usize,
}

impl Default for VaultLimits {
    fn default() -> Self {
        Self { values: 256, bytes: 32 << 10 }
    }
}

/// A session's masked values.
#[derive(Default)]
pub(crate) struct SessionVault {
    inner: Mutex<Inner>,
    /// All of them, ready to be looked for; taken away when there are others.
    echoes: ArcSwapOption<Echoes>,
    any: AtomicBool,
    unmasks: AtomicBool,
}

#[derive(Default)]
struct Inner {
    values: HashMap<Box<str>, Kept>,
    /// The oldest first.
    order: VecDeque<Box<str>>,
    bytes: usize,
}

struct Kept {
    value: Zeroizing<Vec<u8>>,
    unmask: Arc<[Unmask]>,
    /// It has gone to AWS, which could give it back: it stays until the session ends.
    used: bool,
}

impl std::fmt::Debug for SessionVault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionVault").field("values", &self.inner.lock().values.len()).finish_non_exhaustive()
    }
}

impl SessionVault {
    /// Keeps what a placeholder stands for, and where it may go.
    pub(crate) fn keep(&self, placeholder: &str, value: &[u8], unmask: &Arc<[Unmask]>, limits: VaultLimits) {
        let least = if unmask.is_empty() { MIN_OTHER } else { MIN_VALUE };
        if !(least..=MAX_VALUE).contains(&value.len()) {
            return;
        }
        let mut inner = self.inner.lock();
        if let Some(known) = inner.values.get_mut(placeholder) {
            known.unmask = unmask.clone();
        } else {
            if !inner.make_room(value.len(), limits) {
                return;
            }
            inner.bytes += value.len();
            inner.order.push_back(placeholder.into());
            let kept = Kept { value: Zeroizing::new(value.to_vec()), unmask: unmask.clone(), used: false };
            inner.values.insert(placeholder.into(), kept);
            self.echoes.store(None);
            self.any.store(true, Ordering::Release);
        }
        if !unmask.is_empty() {
            self.unmasks.store(true, Ordering::Release);
        }
    }

    /// Whether anything is kept.
    pub(crate) fn has_any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Whether something of it may go anywhere.
    pub(crate) fn may_unmask(&self) -> bool {
        self.unmasks.load(Ordering::Acquire)
    }

    /// What a placeholder stands for, and the policy that lets it go where `may` says.
    pub(crate) fn unmask(
        &self,
        placeholder: &str,
        may: impl Fn(&str, &UnmaskTarget) -> bool,
    ) -> Option<(Zeroizing<Vec<u8>>, String)> {
        let mut inner = self.inner.lock();
        let kept = inner.values.get_mut(placeholder)?;
        let lets = |(id, targets): &&Unmask| targets.iter().any(|target| may(id, target));
        let by = kept.unmask.iter().find(lets)?.0.clone();
        kept.used = true;
        Some((kept.value.clone(), by))
    }

    /// All values, to be looked for.
    pub(crate) fn echoes(&self) -> Option<Echoes> {
        if !self.has_any() {
            return None;
        }
        if let Some(ready) = &*self.echoes.load() {
            return Some(Echoes::clone(ready));
        }
        let inner = self.inner.lock();
        let values = inner.order.iter().filter_map(|it| Some((&inner.values.get(it)?.value[..], &**it)));
        let made = Echoes::new(values)?;
        // Under the lock, so that a newer value isn't forgotten.
        self.echoes.store(Some(Arc::new(made.clone())));
        Some(made)
    }

    /// Takes them out of an answer's head.
    pub(crate) fn clean(&self, headers: &mut HeaderMap) {
        let Some(echoes) = self.echoes() else { return };
        for value in headers.values_mut() {
            if let Some(clean) = echoes.cleaned(value.as_bytes()) {
                *value = HeaderValue::from_bytes(&clean).unwrap_or(HeaderValue::from_static(""));
            }
        }
    }
}

impl Inner {
    /// Forgets the oldest that haven't gone anywhere. Gives whether there is room then.
    fn make_room(&mut self, bytes: usize, limits: VaultLimits) -> bool {
        let mut at = 0;
        while self.values.len() >= limits.values.min(MAX_VALUES) || self.bytes + bytes > limits.bytes {
            let Some(oldest) = self.order.get(at) else { return false };
            if self.values.get(oldest).is_some_and(|kept| kept.used) {
                at += 1;
                continue;
            }
            if let Some(gone) = self.order.remove(at).and_then(|it| self.values.remove(&it)) {
                self.bytes -= gone.value.len();
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unmask() -> Arc<[Unmask]> {
        let target = UnmaskTarget { action: "a:B".into(), path: "P".into(), operations: Vec::new() };
        Arc::from([("policy".to_owned(), Arc::new(vec![target]))])
    }

    fn value(vault: &SessionVault, placeholder: &str) -> Option<String> {
        let found = vault.unmask(placeholder, |_, target| target.path == "P")?;
        assert_eq!(found.1, "policy");
        Some(String::from_utf8(found.0.to_vec()).unwrap())
    }

    #[test]
    fn the_oldest_go_and_what_has_gone_to_aws_stays() {
        let vault = SessionVault::default();
        let limits = VaultLimits { values: 3, bytes: 1000 };
        assert!(!vault.has_any() && !vault.may_unmask() && vault.echoes().is_none());
        let keep = |name: &str| vault.keep(name, format!("value-{name}").as_bytes(), &unmask(), limits);
        ["a", "b", "c"].into_iter().for_each(keep);
        assert_eq!(value(&vault, "a").as_deref(), Some("value-a"));
        assert!(vault.unmask("b", |_, _| false).is_none());
        keep("d");
        assert_eq!((value(&vault, "b"), value(&vault, "a").is_some()), (None, true), "b hadn't gone anywhere");
        // Whatever fills the session's memory doesn't make it forget what could come back.
        for name in ["c", "d"] {
            value(&vault, name).unwrap();
        }
        keep("e");
        assert_eq!(value(&vault, "e"), None);
        assert!(vault.echoes().unwrap().cleaned(b"is value-a").is_some());
        let bytes = VaultLimits { values: 100, bytes: 20 };
        let vault = SessionVault::default();
        for name in ["a", "b", "c"] {
            vault.keep(name, b"0123456789", &unmask(), bytes);
        }
        assert_eq!((value(&vault, "a"), value(&vault, "c").is_some()), (None, true));
    }

    #[test]
    fn what_cannot_be_known_again_is_not_kept() {
        let vault = SessionVault::default();
        let limits = VaultLimits::default();
        vault.keep("short", b"short", &unmask(), limits);
        vault.keep("long", &[b'x'; MAX_VALUE + 1], &unmask(), limits);
        vault.keep("word", b"production", &Arc::default(), limits);
        assert!(!vault.has_any());
        vault.keep("secret", b"a long secret", &Arc::default(), limits);
        assert!(vault.has_any() && !vault.may_unmask());
        assert!(vault.unmask("secret", |_, _| true).is_none());
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-error-message", HeaderValue::from_static("no a long secret!"));
        headers.insert("etag", HeaderValue::from_static("a long"));
        vault.clean(&mut headers);
        assert_eq!(headers["x-amz-error-message"], "no secret!");
        assert_eq!(headers["etag"], "a long");
        assert!(!format!("{vault:?}").contains("long"));
    }

    #[test]
    fn a_newer_value_is_looked_for_too() {
        let vault = SessionVault::default();
        vault.keep("one", b"first-value", &unmask(), VaultLimits::default());
        assert!(vault.echoes().unwrap().cleaned(b"second-value").is_none());
        vault.keep("two", b"second-value", &unmask(), VaultLimits::default());
        assert_eq!(vault.echoes().unwrap().cleaned(b"second-value").unwrap(), b"two");
    }
}
