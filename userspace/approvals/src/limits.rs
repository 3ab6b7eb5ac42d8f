//! How often somebody may ask: token buckets, of which there are only so many.

use std::{collections::HashMap, hash::Hash, net::IpAddr, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// The most who are counted at once. Whoever comes beyond that is counted in the place of those seen longest ago.
const MOST: usize = 10_000;

/// A bucket for each `K`.
#[derive(Debug)]
pub(crate) struct Limits<K> {
    burst: f64,
    per_second: f64,
    buckets: Mutex<HashMap<K, (f64, Instant)>>,
}

impl<K: Hash + Eq + Clone> Limits<K> {
    /// So many at once, and after that so many in each `per`.
    pub(crate) fn new(burst: u32, per: Duration) -> Self {
        let burst = f64::from(burst);
        Self { burst, per_second: burst / per.as_secs_f64(), buckets: Mutex::default() }
    }

    /// Takes one; or says after how many seconds there is one again.
    pub(crate) fn take(&self, who: &K) -> Result<(), u64> {
        self.of(who, 1.0)
    }

    /// Whether there is one.
    pub(crate) fn look(&self, who: &K) -> Result<(), u64> {
        self.of(who, 0.0)
    }

    fn of(&self, who: &K, taken: f64) -> Result<(), u64> {
        let now = Instant::now();
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MOST && !buckets.contains_key(who) {
            self.make_room(&mut buckets, now);
        }
        let (left, at) = buckets.entry(who.clone()).or_insert((self.burst, now));
        *left = (*left + now.duration_since(*at).as_secs_f64() * self.per_second).min(self.burst);
        *at = now;
        if *left < 1.0 {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a number of seconds, rounded up
            return Err(((1.0 - *left) / self.per_second).ceil() as u64);
        }
        *left -= taken;
        Ok(())
    }

    fn make_room(&self, buckets: &mut HashMap<K, (f64, Instant)>, now: Instant) {
        let full = |(left, at): &(f64, Instant)| left + now.duration_since(*at).as_secs_f64() * self.per_second;
        buckets.retain(|_, bucket| full(bucket) < self.burst);
        if buckets.len() >= MOST {
            let mut times: Vec<Instant> = buckets.values().map(|(_, at)| *at).collect();
            let (_, middle, _) = times.select_nth_unstable(MOST / 2);
            let middle = *middle;
            buckets.retain(|_, (_, at)| *at > middle);
        }
    }
}

/// Who an address is for counting: of IPv6, the network that one customer has.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_empties_and_fills() {
        let limits = Limits::new(3, Duration::from_secs(30));
        for _ in 0..3 {
            assert_eq!(limits.take(&"a"), Ok(()));
        }
        assert_eq!(limits.take(&"a"), Err(10));
        assert_eq!(limits.take(&"b"), Ok(()));
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!((limits.take(&"a"), limits.take(&"a")), (Ok(()), Err(9)));
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_only_so_many() {
        let limits = Limits::new(1, Duration::from_secs(1_000_000));
        for who in 0..3 * MOST {
            assert_eq!(limits.take(&who), Ok(()));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(limits.buckets.lock().len() <= MOST);
    }

    #[test]
    fn addresses_of_one_customer_are_one() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2:ffff::"));
        assert_ne!(of("2001:db8:1:2::"), of("2001:db8:1:3::"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
