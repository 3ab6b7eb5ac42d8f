//! How much of what agents have in common one of them may use at once, so that it keeps nobody else out.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// Names that are resolved at once, each in a thread of the runtime's for what blocks, which has 512. A resolver may take
/// long for names that an agent chose.
const RESOLVING: usize = 64;
/// … of one share.
const SHARES_RESOLVING: usize = 16;
/// How often it is told that an agent has as many connections as it may.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// The shares that are in use, by the cgroup that each is of: [`sharing`](chaperone_identity::Sessions::sharing).
#[derive(Debug)]
pub(crate) struct Quotas {
    of: Mutex<Of>,
    connections: usize,
    resolving: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Of {
    shares: HashMap<String, Weak<Quota>>,
    /// With so many, those that nobody uses any more are taken out.
    sweep_at: usize,
}

/// One's.
#[derive(Debug)]
pub(crate) struct Quota {
    connections: Arc<Semaphore>,
    resolving: [Arc<Semaphore>; 2],
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    last: Option<Instant>,
    /// Refused since then.
    refused: u64,
}

/// A share is used up; now and then how many were refused since that was told last.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct QuotaExceeded(pub(crate) Option<u64>);

impl Quotas {
    /// So many connections each.
    pub(crate) fn new(connections: usize) -> Self {
        Self {
            of: Mutex::default(),
            connections: connections.min(Semaphore::MAX_PERMITS),
            resolving: Arc::new(Semaphore::new(RESOLVING)),
        }
    }

    /// That of the cgroup at this path.
    pub(crate) fn of(&self, cgroup: &str) -> Arc<Quota> {
        let mut of = self.of.lock();
        if let Some(share) = of.shares.get(cgroup).and_then(Weak::upgrade) {
            return share;
        }
        if of.shares.len() >= of.sweep_at {
            of.shares.retain(|_, share| share.strong_count() > 0);
            of.sweep_at = 64 + 2 * of.shares.len();
        }
        let share = Arc::new(Quota {
            connections: Arc::new(Semaphore::new(self.connections)),
            resolving: [Arc::new(Semaphore::new(SHARES_RESOLVING)), self.resolving.clone()],
            told: Mutex::default(),
        });
        of.shares.insert(cgroup.to_owned(), Arc::downgrade(&share));
        share
    }
}

impl Quota {
    /// One connection.
    pub(crate) fn connect(&self) -> Result<OwnedSemaphorePermit, QuotaExceeded> {
        self.connections.clone().try_acquire_owned().map_err(|_| {
            let mut told = self.told.lock();
            told.refused += 1;
            if told.last.is_some_and(|last| last.elapsed() < TELL_EVERY) {
                return QuotaExceeded(None);
            }
            told.last = Some(Instant::now());
            QuotaExceeded(Some(std::mem::take(&mut told.refused)))
        })
    }

    /// One name that is resolved, once it may be: to be kept until the resolver is done, not only as long as somebody waits.
    pub(crate) async fn resolve(&self) -> [OwnedSemaphorePermit; 2] {
        let [own, all] = self.resolving.clone();
        let closed = "BUG: nobody closes them";
        let own = own.acquire_owned().await.expect(closed);
        [own, all.acquire_owned().await.expect(closed)]
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_agents_connections_leave_room_for_anothers() {
        let shares = Quotas::new(2);
        let one = shares.of("/1");
        let held = [one.connect().unwrap(), shares.of("/1").connect().unwrap()];
        assert_eq!(one.connect().unwrap_err(), QuotaExceeded(Some(1)));
        assert!(shares.of("/2").connect().is_ok());
        // Told at a limited rate, and nothing is lost of it.
        assert_eq!(one.connect().unwrap_err(), QuotaExceeded(None));
        assert_eq!(one.connect().unwrap_err(), QuotaExceeded(None));
        tokio::time::advance(TELL_EVERY).await;
        assert_eq!(one.connect().unwrap_err(), QuotaExceeded(Some(3)));
        drop(held);
        assert!(one.connect().is_ok());
    }

    #[test]
    fn one_agents_names_leave_room_for_anothers() {
        let shares = Quotas::new(1);
        let (one, other) = (shares.of("/1"), shares.of("/2"));
        let held: Vec<_> = std::iter::from_fn(|| one.resolve().now_or_never()).collect();
        assert_eq!(held.len(), SHARES_RESOLVING);
        assert!(other.resolve().now_or_never().is_some());
        drop(held);
        let many: Vec<_> = (0..RESOLVING).map(|number| shares.of(&format!("/{number}"))).collect();
        let held: Vec<_> = many.iter().filter_map(|share| share.resolve().now_or_never()).collect();
        assert_eq!(held.len(), RESOLVING);
        assert!(other.resolve().now_or_never().is_none());
    }

    #[test]
    fn shares_that_nobody_uses_are_forgotten() {
        let shares = Quotas::new(1);
        let kept = shares.of("/0");
        for number in 1..10_000 {
            shares.of(&format!("/{number}"));
        }
        assert!(shares.of.lock().shares.len() < 200);
        assert!(Arc::ptr_eq(&kept, &shares.of("/0")));
    }
}
