//! A bound on lines in the log that anybody can cause.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// After so long, lines are logged again.
const QUIET: Duration = Duration::from_secs(10);
/// So many are logged in that time.
const LOGGED: u32 = 5;

/// Lines of one kind: some are logged, and the others are counted.
#[derive(Debug)]
pub struct LogLimit(Mutex<Recent>);

#[derive(Debug)]
struct Recent {
    since: Option<Instant>,
    logged: u32,
    left_out: u64,
}

impl LogLimit {
    /// None logged yet.
    pub const fn new() -> Self {
        Self(Mutex::new(Recent { since: None, logged: 0, left_out: 0 }))
    }

    /// Whether a line is logged, and then how many weren't since the last one that was.
    pub fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut recent = self.0.lock();
        if recent.since.is_none_or(|since| now.duration_since(since) >= QUIET) {
            (recent.since, recent.logged) = (Some(now), 0);
        }
        if recent.logged >= LOGGED {
            recent.left_out += 1;
            return None;
        }
        recent.logged += 1;
        Some(std::mem::take(&mut recent.left_out))
    }
}

impl Default for LogLimit {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_logged_and_the_others_are_counted() {
        let (limit, now) = (LogLimit::new(), Instant::now());
        let logged = (0..1000).filter(|_| limit.admit_at(now).is_some()).count();
        assert_eq!(logged, 5);
        assert_eq!(limit.admit_at(now + QUIET), Some(995));
        assert_eq!(limit.admit_at(now + QUIET), Some(0));
    }
}
