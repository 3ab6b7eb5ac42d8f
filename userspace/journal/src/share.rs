//! Whose records fill the disk: when little room is left, it is kept for those who didn't take it.

use std::time::{Duration, Instant};

use chaperone_model::SessionId;
use foldhash::HashMap;

/// After so long, half of what somebody recorded is forgotten.
const HALF_LIFE: Duration = Duration::from_mins(10);
/// Of the room that is kept, one session may have recorded this part lately, and still record; an agent, twice as much.
const PART: u64 = 4;
/// Who recorded no more than this part of a share may record whatever its agent's other sessions did.
const LITTLE: f64 = 8.0;
/// Agents that are remembered; past it, those that recorded least lately are forgotten.
const MAX_AGENTS: usize = 4096;

/// Bytes that somebody recorded, the older the fewer.
#[derive(Clone, Copy, Debug)]
struct Lately {
    bytes: f64,
    at: Instant,
}

impl Lately {
    fn new(now: Instant) -> Self {
        Self { bytes: 0.0, at: now }
    }

    #[allow(clippy::cast_precision_loss)] // a share needn't be exact
    fn add(&mut self, bytes: usize, now: Instant) {
        self.bytes = self.read(now) + bytes as f64;
        self.at = now;
    }

    fn read(&self, now: Instant) -> f64 {
        let half_lives = now.saturating_duration_since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.bytes * (-half_lives).exp2()
    }
}

/// What all sessions recorded lately.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    sessions: HashMap<SessionId, (Lately, String)>,
    agents: HashMap<String, Lately>,
}

impl Shares {
    /// A session of this agent begins.
    pub(crate) fn begin(&mut self, session: SessionId, agent: &str) {
        self.sessions.entry(session).or_insert_with(|| (Lately::new(Instant::now()), agent.to_owned()));
    }

    /// A session is over. What its agent recorded stays: the next session has no new share by that.
    pub(crate) fn end(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }

    /// So many bytes of it are recorded.
    pub(crate) fn add(&mut self, session: SessionId, bytes: usize, now: Instant) {
        let Some((own, agent)) = self.sessions.get_mut(&session) else { return };
        own.add(bytes, now);
        if let Some(all) = self.agents.get_mut(agent.as_str()) {
            all.add(bytes, now);
            return;
        }
        if self.agents.len() >= MAX_AGENTS {
            let mut read: Vec<_> = self.agents.values().map(|lately| lately.read(now)).collect();
            read.sort_by(f64::total_cmp);
            let median = read.get(read.len() / 2).copied().unwrap_or_default();
            self.agents.retain(|_, lately| lately.read(now) > median);
        }
        let mut new = Lately::new(now);
        new.add(bytes, now);
        self.agents.insert(agent.clone(), new);
    }

    /// Whether it may record more, of `room` bytes that are left, of which `kept` are for those who recorded little.
    #[allow(clippy::cast_precision_loss)] // a share needn't be exact
    pub(crate) fn may(&self, session: SessionId, room: u64, kept: u64, now: Instant) -> bool {
        if room >= kept {
            return true;
        }
        let share = (kept / PART) as f64;
        let Some((own, agent)) = self.sessions.get(&session) else { return true };
        let all = self.agents.get(agent.as_str()).map_or(0.0, |lately| lately.read(now));
        let own = own.read(now);
        own <= share / LITTLE || own <= share && all <= 2.0 * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_kept_for_those_who_did_not_take_it() {
        let mut shares = Shares::default();
        let (hog, next, other) = (SessionId::new(), SessionId::new(), SessionId::new());
        for (session, agent) in [(hog, "a"), (next, "a"), (other, "b")] {
            shares.begin(session, agent);
        }
        let now = Instant::now();
        shares.add(hog, 900, now);
        shares.add(next, 100, now);
        shares.add(other, 200, now);
        let may = |shares: &Shares, session, room| shares.may(session, room, 1000, now);
        assert!(may(&shares, hog, 1000), "as long as there is room, it is everybody's");
        assert!(!may(&shares, hog, 999) && !may(&shares, next, 999), "the agent's other sessions neither");
        assert!(may(&shares, other, 999));
        let new = SessionId::new();
        shares.begin(new, "a");
        assert!(may(&shares, new, 999), "but who recorded nothing yet");
        shares.end(hog);
        assert!(!may(&shares, next, 999), "nor when that session is over");
        // What is long ago is forgotten.
        assert!(shares.may(next, 999, 1000, now + 2 * HALF_LIFE));
    }

    #[test]
    fn agents_without_number_are_not_remembered() {
        let mut shares = Shares::default();
        for number in 0..3 * MAX_AGENTS {
            let session = SessionId::new();
            shares.begin(session, &format!("{number}"));
            shares.add(session, number, Instant::now());
            shares.end(session);
        }
        assert!(shares.agents.len() <= MAX_AGENTS);
        assert!(shares.sessions.is_empty());
    }
}
