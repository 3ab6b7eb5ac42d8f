//! Memory that agents' bytes take, counted as they arrive.
//!
//! The allocator isn't asked: whoever keeps an agent's bytes says how many. Of each pool, the last quarter is for requests
//! that hold little, so that small ones never wait behind large ones.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

/// Whoever holds no more may use a pool's last quarter. Nearly all requests of the SDKs are smaller, head and body.
const SMALL: usize = 160 << 10;

/// So many bytes, of one session, of one agent, or of all.
#[derive(Debug)]
pub(crate) struct Pool {
    limit: usize,
    used: AtomicUsize,
    freed: Notify,
}

impl Pool {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), freed: Notify::new() })
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize, is_small: bool) -> bool {
        let limit = if is_small { self.limit } else { self.limit - self.limit / 4 };
        let more = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= limit);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
        self.freed.notify_waiters();
    }
}

/// Bytes that are held of a session's pool, its agent's and everybody's; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    pools: [Arc<Pool>; 3],
    bytes: usize,
}

impl Held {
    pub(crate) fn new(pools: [Arc<Pool>; 3]) -> Self {
        Self { pools, bytes: 0 }
    }

    /// So many more; if not, which of the pools has no room.
    pub(crate) fn try_grow(&mut self, bytes: usize) -> Result<(), usize> {
        let is_small = self.bytes.saturating_add(bytes) <= SMALL;
        for (level, pool) in self.pools.iter().enumerate() {
            if !pool.take(bytes, is_small) {
                self.pools[..level].iter().for_each(|pool| pool.give_back(bytes));
                return Err(level);
            }
        }
        self.bytes += bytes;
        Ok(())
    }

    /// The same, waiting for room until then.
    pub(crate) async fn grow_until(&mut self, bytes: usize, until: Instant) -> Result<(), usize> {
        loop {
            let pools = self.pools.clone();
            let [own, agents, all] = pools.each_ref().map(|pool| Box::pin(pool.freed.notified()));
            let (mut own, mut agents, mut all) = (own, agents, all);
            // Before the try: what is given back in between is not missed.
            for freed in [&mut own, &mut agents, &mut all] {
                freed.as_mut().enable();
            }
            let Err(level) = self.try_grow(bytes) else { return Ok(()) };
            let freed = [own, agents, all].into_iter().nth(level).expect("BUG: one of three pools");
            if timeout_at(until, freed).await.is_err() {
                return Err(level);
            }
        }
    }

    /// No more than so many any longer.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        if less > 0 {
            self.bytes = bytes;
            self.pools.iter().for_each(|pool| pool.give_back(less));
        }
    }

    /// How many there are.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pools(limits: [usize; 3]) -> [Arc<Pool>; 3] {
        limits.map(Pool::new)
    }

    #[test]
    fn what_has_no_room_on_one_level_is_taken_of_none() {
        let pools = pools([1000, 500, 2000]);
        let mut held = Held::new(pools.clone());
        assert_eq!(held.try_grow(600), Err(1));
        assert_eq!(pools.each_ref().map(|pool| pool.used()), [0, 0, 0]);
        held.try_grow(400).unwrap();
        assert_eq!(held.try_grow(usize::MAX), Err(0));
        held.shrink_to(100);
        assert_eq!(pools.each_ref().map(|pool| pool.used()), [100, 100, 100]);
        drop(held);
        assert_eq!(pools.each_ref().map(|pool| pool.used()), [0, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_what_others_give_back_or_is_told_in_time() {
        let pools = pools([1 << 20; 3]);
        let mut one = Held::new(pools.clone());
        one.try_grow(700 << 10).unwrap();
        let waiting = tokio::spawn({
            let mut other = Held::new(pools.clone());
            async move { other.grow_until(200 << 10, Instant::now() + Duration::from_secs(5)).await.map(|()| other) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        one.shrink_to(100 << 10);
        let other = waiting.await.unwrap().unwrap();
        assert_eq!(other.bytes(), 200 << 10);
        let mut third = Held::new(pools);
        assert_eq!(third.grow_until(900 << 10, Instant::now() + Duration::from_secs(5)).await, Err(0));
    }
}
