//! Who is signed in: in memory, each under the digest of a random id that the browser alone has.

use std::{collections::HashMap, time::Duration};

use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chaperone_oidc::SignedIn;
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::Person;

/// The most who are signed in at once; then whoever signed in first must do so again.
const MOST: usize = 10_000;
/// Of one person.
const MOST_OF_ONE: usize = 16;

/// One browser's.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// By what name they approve.
    pub(crate) name: String,
    pub(crate) person: Person,
    pub(crate) signed_in: SignedIn,
    /// What the page sends with everything that changes something.
    pub(crate) token: String,
    pub(crate) ends: OffsetDateTime,
    until: Instant,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Sessions {
    life: Duration,
    all: Mutex<HashMap<[u8; 32], Session>>,
}

impl Sessions {
    pub(crate) fn new(life: Duration) -> Self {
        Self { life, all: Mutex::default() }
    }

    /// Begins one, and gives its id, which is new each time: an id that somebody had before means nothing after.
    pub(crate) fn begin(&self, name: String, person: Person, signed_in: SignedIn) -> String {
        let id = URL_SAFE_NO_PAD.encode(random());
        let (now, token) = (Instant::now(), URL_SAFE_NO_PAD.encode(random()));
        let session = Session {
            name,
            person,
            signed_in,
            token,
            ends: OffsetDateTime::now_utc() + self.life,
            until: now + self.life,
        };
        let mut all = self.all.lock();
        all.retain(|_, session| session.until > now);
        let of_one = all.values().filter(|other| other.name == session.name).count();
        let oldest = |all: &HashMap<[u8; 32], Session>, of: Option<&str>| {
            let theirs = all.iter().filter(|(_, it)| of.is_none_or(|name| it.name == name));
            theirs.min_by_key(|(_, it)| it.until).map(|(key, _)| *key)
        };
        let out = if of_one >= MOST_OF_ONE {
            oldest(&all, Some(&session.name))
        } else if all.len() >= MOST {
            oldest(&all, None)
        } else {
            None
        };
        out.and_then(|key| all.remove(&key));
        all.insert(key(&id), session);
        id
    }

    /// The session of that id.
    pub(crate) fn of(&self, id: &str) -> Option<Session> {
        let all = self.all.lock();
        all.get(&key(id)).filter(|session| session.until > Instant::now()).cloned()
    }

    pub(crate) fn end(&self, id: &str) {
        self.all.lock().remove(&key(id));
    }
}

/// 32 bytes that nobody guesses.
pub(crate) fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).expect("BUG: there is no randomness");
    bytes
}

fn key(id: &str) -> [u8; 32] {
    digest::digest(&digest::SHA256, id.as_bytes()).as_ref().try_into().expect("BUG: SHA-256 has 32 bytes")
}

/// Compares secrets without telling by the time how far they are the same.
pub(crate) fn same(one: &str, other: &str) -> bool {
    verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}
