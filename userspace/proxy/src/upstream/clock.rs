//! What time AWS has: what is signed by another time is refused there, and a host's clock may be wrong.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use chaperone_aws::VerifyError;
use http::{HeaderMap, header::DATE};
use time::{Duration, OffsetDateTime, PrimitiveDateTime, macros::format_description};

/// Most services bear with five minutes.
const BEARABLE: i64 = 4 * 60;

/// The host's clock, and how far it is from AWS's.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// AWS's time less the host's, in seconds; 0 while it is near enough.
    ahead: AtomicI64,
}

impl Clock {
    /// AWS's time, as far as is known.
    pub(crate) fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc().saturating_add(Duration::seconds(self.ahead.load(Relaxed)))
    }

    /// Verifies an agent's signature by AWS's time, and where that differs by the host's, by which the agent goes until an
    /// answer of AWS's has told it.
    pub(crate) fn judge<T>(&self, verify: impl Fn(OffsetDateTime) -> Result<T, VerifyError>) -> Result<T, VerifyError> {
        let (now, ahead) = (self.now(), self.ahead.load(Relaxed));
        let verified = verify(now);
        if ahead == 0 || !matches!(verified, Err(VerifyError::Skewed { .. } | VerifyError::Date(_))) {
            return verified;
        }
        verify(now.saturating_sub(Duration::seconds(ahead))).or(verified)
    }

    /// Holds the clock against the date of an answer of AWS's own. Gives whether it was wrong, and now isn't.
    pub(crate) fn learn(&self, answer: &HeaderMap) -> bool {
        let Some(theirs) = answer.get(DATE).and_then(|date| date_of(date.to_str().ok()?)) else { return false };
        let wanted = (theirs - OffsetDateTime::now_utc()).whole_seconds();
        let ahead = self.ahead.load(Relaxed);
        if (wanted - ahead).abs() <= BEARABLE {
            return false;
        }
        // Near enough is the host's own.
        self.ahead.store(if wanted.abs() <= BEARABLE { 0 } else { wanted }, Relaxed);
        tracing::warn!(
            seconds = wanted,
            "AWS's clock is so far ahead of this host's (behind, if negative): calls are signed by AWS's; set the host's clock"
        );
        true
    }
}

/// RFC 9110, 5.6.7, in the form that is sent.
fn date_of(text: &str) -> Option<OffsetDateTime> {
    let format =
        format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    PrimitiveDateTime::parse(text, format).ok().map(PrimitiveDateTime::assume_utc)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(seconds: i64) -> HeaderMap {
        let format =
            format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
        let date = (OffsetDateTime::now_utc() + Duration::seconds(seconds)).format(format).unwrap();
        HeaderMap::from_iter([(DATE, date.parse().unwrap())])
    }

    fn off(clock: &Clock) -> i64 {
        (clock.now() - OffsetDateTime::now_utc()).whole_minutes()
    }

    /// By how many times a signature is judged.
    fn times(clock: &Clock) -> usize {
        let tried = std::cell::Cell::new(0);
        let judged: Result<(), _> = clock.judge(|_| {
            tried.set(tried.get() + 1);
            Err(VerifyError::Date("of a test"))
        });
        judged.unwrap_err();
        tried.get()
    }

    #[test]
    fn the_time_is_learnt_from_answers_that_are_far_from_it() {
        let clock = Clock::default();
        for near in [0, 200, -200] {
            assert!(!clock.learn(&answer(near)));
            assert_eq!((off(&clock), times(&clock)), (0, 1));
        }
        assert!(clock.learn(&answer(3605)));
        assert!((59..=60).contains(&off(&clock)), "{}", off(&clock));
        assert_eq!(times(&clock), 2, "an agent that hasn't learnt it yet is believed, too");
        assert!(!clock.learn(&answer(3600)), "that is known");
        assert!(clock.learn(&answer(-86_400)));
        assert!(off(&clock) < -1430);
        assert!(clock.learn(&answer(1)), "somebody set the host's clock");
        assert_eq!((off(&clock), times(&clock)), (0, 1));
    }

    #[test]
    fn what_is_no_date_teaches_nothing() {
        let clock = Clock::default();
        for bad in ["", "0", "Sunday, 06-Nov-94 08:49:37 GMT", "2025-06-01T00:00:00Z", "Sun, 06 Nov 1994 08:49:37 CET"]
        {
            assert!(!clock.learn(&HeaderMap::from_iter([(DATE, bad.parse().unwrap())])), "{bad}");
        }
        assert!(!clock.learn(&HeaderMap::new()));
        assert_eq!(off(&clock), 0);
    }
}
