//! How much of what agents have in common one of them may use at once, so that it keeps nobody else out.
//!
//! Everything is shared on three levels: a session (with the containers that it starts), its agent, and all of them. What
//! is over a share is refused at once or waits a bounded time, is counted, and is told by name; it fails closed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
    time::Duration,
};

use http::Request;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::{
    connection::{
        fair::{AgentTurns, Lane, Scheduler},
        memory::{Held, Pool},
    },
    limits::Limits,
    metrics::{OverShare, Shared},
};

/// Names that are resolved at once, each in a thread of the runtime's for what blocks, which has 512. A resolver may take
/// long for names that an agent chose.
const RESOLVING: usize = 64;
/// … of one session.
const SESSION_RESOLVING: usize = 16;
/// … of one agent.
const AGENT_RESOLVING: usize = 32;
/// TLS handshakes of one session at once: each takes a processor for about a millisecond, and others want theirs.
const SESSION_HANDSHAKES: usize = 16;
/// Connections of one session to the metadata services' stand-in. They are not among the others, so that a session that
/// has as many of those as it may still gets its credentials.
const SESSION_METADATA: usize = 64;
/// Connections beyond `limits.connections` that are accepted, to see whose they are, and to the metadata services' stand-in.
pub(crate) const BEYOND: usize = 1024;
/// How often it is told that an agent is over a share.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// How long `status` names an agent for it.
const NAMED_FOR: Duration = Duration::from_mins(10);
/// How many agents it names.
const MAX_NAMED: usize = 256;

/// A share is used up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{whose} has as much as it may of what agents share: {what} ({setting}); try again, more slowly")]
pub struct QuotaExceeded {
    pub(crate) what: &'static str,
    pub(crate) whose: Whose,
    pub(crate) setting: &'static str,
    /// Now and then: how many were refused since that was told last. Else nothing is to be told.
    pub(crate) told: Option<u64>,
}

/// Whose share it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    Session,
    Agent,
    All,
}

impl std::fmt::Display for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Session => "this session",
            Self::Agent => "this agent, with all its sessions,",
            Self::All => "everybody together",
        })
    }
}

/// The shares that are in use, by the cgroup that each is of: [`sharing`](chaperone_identity::Sessions::sharing).
#[derive(Debug)]
pub(crate) struct Quotas {
    of: Mutex<Of>,
    limits: Limits,
    connections: Arc<Semaphore>,
    resolving: Arc<Semaphore>,
    working: Arc<Semaphore>,
    processors: Arc<Scheduler>,
    memory: Arc<Pool>,
    over: Arc<OverShare>,
    named: Arc<Mutex<Named>>,
}

/// Agents that were over a share lately, with when that was last and how often, by what they had too much of.
type Named = BTreeMap<(String, Shared), (Instant, u64)>;

#[derive(Debug, Default)]
struct Of {
    shares: HashMap<String, Weak<Quota>>,
    agents: HashMap<String, Weak<AgentQuota>>,
    /// With so many, those that nobody uses any more are taken out.
    sweep_at: usize,
}

#[derive(Debug)]
struct AgentQuota {
    name: String,
    turns: Arc<AgentTurns>,
    connections: Arc<Semaphore>,
    resolving: Arc<Semaphore>,
    memory: Arc<Pool>,
    refusals: Rate,
}

/// One session's.
#[derive(Debug)]
pub(crate) struct Quota {
    agent: Arc<AgentQuota>,
    connections: Arc<Semaphore>,
    all_connections: Arc<Semaphore>,
    metadata: Arc<Semaphore>,
    resolving: [Arc<Semaphore>; 3],
    handshakes: Semaphore,
    working: [Arc<Semaphore>; 2],
    lane: Lane,
    memory: [Arc<Pool>; 3],
    refusals: Rate,
    unwanted: Pace,
    told: Mutex<BTreeMap<Shared, Told>>,
    over: Arc<OverShare>,
    named: Arc<Mutex<Named>>,
}

#[derive(Debug, Default)]
struct Told {
    last: Option<Instant>,
    /// Refused since then.
    refused: u64,
}

/// So many a second, and ten seconds' at once.
#[derive(Debug)]
struct Rate {
    per_second: f64,
    left: Mutex<(f64, Instant)>,
}

/// What [`Rate`] lets come at once, in seconds' worth.
const BURST_SECONDS: f64 = 10.0;

impl Rate {
    fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, left: Mutex::new((per_second * BURST_SECONDS, Instant::now())) }
    }

    fn take(&self) -> bool {
        let mut left = self.left.lock();
        let now = Instant::now();
        let come = now.duration_since(left.1).as_secs_f64() * self.per_second;
        *left = ((left.0 + come).min(self.per_second * BURST_SECONDS), now);
        let enough = left.0 >= 1.0;
        if enough {
            left.0 -= 1.0;
        }
        enough
    }
}

/// So many bytes a second: whoever takes more waits until they would have come.
#[derive(Debug)]
struct Pace {
    per_second: f64,
    /// What may be taken at once; below nought, what others have taken already.
    left: Mutex<(f64, Instant)>,
}

impl Pace {
    fn new(per_second: u64) -> Self {
        #[allow(clippy::cast_precision_loss)] // to a byte or so
        let per_second = per_second.max(1) as f64;
        Self { per_second, left: Mutex::new((per_second, Instant::now())) }
    }

    /// Takes them, and says how long to wait for them. At once there is no more than a second's worth.
    fn take(&self, bytes: usize, now: Instant) -> Duration {
        let mut left = self.left.lock();
        let come = now.saturating_duration_since(left.1).as_secs_f64() * self.per_second;
        #[allow(clippy::cast_precision_loss)] // to a byte or so
        let rest = (left.0 + come).min(self.per_second) - bytes as f64;
        *left = (rest, now);
        Duration::try_from_secs_f64(-rest / self.per_second).unwrap_or_default()
    }
}

/// Memory that a session's bytes take; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Memory {
    held: Held,
    share: Arc<Quota>,
}

impl Memory {
    /// So many bytes more, now or not at all.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), QuotaExceeded> {
        self.held.try_grow(bytes).map_err(|level| self.share.no_memory(level))
    }

    /// So many bytes more, as soon as they are there; at most until then.
    pub(crate) async fn grow_until(&mut self, bytes: usize, until: Instant) -> Result<(), QuotaExceeded> {
        self.held.grow_until(bytes, until).await.map_err(|level| self.share.no_memory(level))
    }

    /// As many bytes as this, more or fewer than before.
    pub(crate) fn resize(&mut self, bytes: usize) -> Result<(), QuotaExceeded> {
        match bytes.checked_sub(self.held.bytes()) {
            Some(0) => Ok(()),
            Some(more) => self.grow(more),
            None => {
                self.held.shrink_to(bytes);
                Ok(())
            }
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.held.bytes()
    }
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place(#[allow(dead_code)] [Option<OwnedSemaphorePermit>; 3]); // held, not used

impl Quotas {
    pub(crate) fn new(limits: &Limits, over: Arc<OverShare>) -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            of: Mutex::default(),
            limits: limits.clone(),
            connections: Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))),
            resolving: Arc::new(Semaphore::new(RESOLVING)),
            working: Arc::new(Semaphore::new(processors)),
            processors: Arc::default(),
            memory: Pool::new(limits.memory_total()),
            over,
            named: Arc::default(),
        }
    }

    /// That of the cgroup at this path, which is this agent's.
    pub(crate) fn of(&self, cgroup: &str, agent: &str) -> Arc<Quota> {
        let mut of = self.of.lock();
        if let Some(share) = of.shares.get(cgroup).and_then(Weak::upgrade)
            && share.agent.name == agent
        {
            return share;
        }
        if of.shares.len() + of.agents.len() >= of.sweep_at {
            of.shares.retain(|_, share| share.strong_count() > 0);
            of.agents.retain(|_, share| share.strong_count() > 0);
            of.sweep_at = 64 + 2 * (of.shares.len() + of.agents.len());
        }
        let limits = &self.limits;
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        let agent = of.agents.get(agent).and_then(Weak::upgrade).unwrap_or_else(|| {
            let new = Arc::new(AgentQuota {
                name: agent.to_owned(),
                turns: Arc::new(AgentTurns::new(&self.processors)),
                connections: semaphore(limits.agent_connections),
                resolving: semaphore(AGENT_RESOLVING),
                memory: Pool::new(limits.memory_share(limits.agent_percent)),
                refusals: Rate::new(limits.refusals_per_second.saturating_mul(2)),
            });
            of.agents.insert(agent.to_owned(), Arc::downgrade(&new));
            new
        });
        let share = Arc::new(Quota {
            connections: semaphore(limits.session_connections),
            all_connections: self.connections.clone(),
            metadata: semaphore(SESSION_METADATA),
            resolving: [semaphore(SESSION_RESOLVING), agent.resolving.clone(), self.resolving.clone()],
            handshakes: Semaphore::new(SESSION_HANDSHAKES),
            working: [semaphore(1), self.working.clone()],
            lane: Lane::new(self.processors.clone(), agent.turns.clone()),
            memory: [Pool::new(limits.memory_share(limits.session_percent)), agent.memory.clone(), self.memory.clone()],
            refusals: Rate::new(limits.refusals_per_second),
            unwanted: Pace::new(limits.drain_rate),
            told: Mutex::default(),
            over: self.over.clone(),
            named: self.named.clone(),
            agent,
        });
        of.shares.insert(cgroup.to_owned(), Arc::downgrade(&share));
        share
    }

    /// Agents that were over a share in the last ten minutes: which, of what, and how often.
    pub(crate) fn over_share(&self) -> Vec<(String, Shared, u64)> {
        let mut named = self.named.lock();
        named.retain(|_, (last, _)| last.elapsed() < NAMED_FOR);
        named.iter().map(|((agent, what), (_, times))| (agent.clone(), *what, *times)).collect()
    }

    /// Memory in use, in bytes.
    pub(crate) fn memory_used(&self) -> usize {
        self.memory.used()
    }
}

impl Quota {
    /// One connection; to the metadata services' stand-in, or to anywhere else.
    pub(crate) fn connect(&self, metadata: bool) -> Result<Place, QuotaExceeded> {
        let take = |of: &Arc<Semaphore>| of.clone().try_acquire_owned().ok();
        if metadata {
            let place = take(&self.metadata).map(|own| Place([Some(own), None, None]));
            return place.ok_or_else(|| {
                self.exceeded(Shared::Connections, Whose::Session, "connections to the metadata services", "64 at once")
            });
        }
        let what = "connections";
        let Some(own) = take(&self.connections) else {
            return Err(self.exceeded(Shared::Connections, Whose::Session, what, "limits.session_connections"));
        };
        let Some(agents) = take(&self.agent.connections) else {
            return Err(self.exceeded(Shared::Connections, Whose::Agent, what, "limits.agent_connections"));
        };
        let Some(all) = take(&self.all_connections) else {
            return Err(self.exceeded(Shared::Connections, Whose::All, what, "limits.connections"));
        };
        Ok(Place([Some(own), Some(agents), Some(all)]))
    }

    /// One name that is resolved, once it may be: to be kept until the resolver is done, not only as long as somebody waits.
    pub(crate) async fn resolve(&self) -> [OwnedSemaphorePermit; 3] {
        let [own, agents, all] = self.resolving.clone();
        let closed = "BUG: nobody closes them";
        let own = own.acquire_owned().await.expect(closed);
        let agents = agents.acquire_owned().await.expect(closed);
        [own, agents, all.acquire_owned().await.expect(closed)]
    }

    /// One TLS handshake, once it may be.
    pub(crate) async fn handshake(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.handshakes.acquire().await.expect("BUG: nobody closes it")
    }

    /// Where its tasks wait for their turns.
    pub(crate) fn lane(&self) -> &Lane {
        &self.lane
    }

    /// Something that takes a processor for long, once it may be.
    pub(crate) async fn work(&self) -> [tokio::sync::SemaphorePermit<'_>; 2] {
        let [own, all] = &self.working;
        let own = own.acquire().await.expect("BUG: nobody closes it");
        [own, all.acquire().await.expect("BUG: nobody closes it")]
    }

    /// No memory yet; what is held grows as bytes arrive.
    pub(crate) fn memory(self: &Arc<Self>) -> Memory {
        Memory { held: Held::new(self.memory.clone()), share: self.clone() }
    }

    /// So many bytes, now or not at all.
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> Result<Memory, QuotaExceeded> {
        let mut memory = self.memory();
        memory.grow(bytes)?;
        Ok(memory)
    }

    /// What a request's head takes, in all the forms that it is kept in, and so much beside it. A request that there is no
    /// memory for carries that to whoever answers it.
    pub(crate) fn hold_for<B>(self: &Arc<Self>, request: &mut Request<B>, beside: usize) -> Option<Memory> {
        match self.hold(head_cost(request).saturating_add(beside)) {
            Ok(memory) => Some(memory),
            Err(exceeded) => {
                request.extensions_mut().insert(exceeded);
                None
            }
        }
    }

    fn no_memory(&self, level: usize) -> QuotaExceeded {
        let (whose, setting) = [
            (Whose::Session, "limits.session_percent of limits.spool_total_bytes"),
            (Whose::Agent, "limits.agent_percent of limits.spool_total_bytes"),
            (Whose::All, "limits.spool_total_bytes"),
        ][level.min(2)];
        self.exceeded(Shared::Memory, whose, "memory for requests", setting)
    }

    /// A request that is refused and recorded.
    pub(crate) fn refuse(&self) -> Result<(), QuotaExceeded> {
        let (what, setting) = ("refused requests, each of which is recorded", "limits.refusals_per_second");
        if !self.refusals.take() {
            return Err(self.exceeded(Shared::Refusals, Whose::Session, what, setting));
        }
        if !self.agent.refusals.take() {
            return Err(self.exceeded(Shared::Refusals, Whose::Agent, what, setting));
        }
        Ok(())
    }

    /// Waits until so many bytes more of bodies that go nowhere may be read. They cost what others' calls need: decryption,
    /// digests, the threads that everybody's connections are served by.
    pub(crate) async fn read_unwanted(&self, bytes: usize) {
        let wait = self.unwanted.take(bytes, Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    fn exceeded(&self, shared: Shared, whose: Whose, what: &'static str, setting: &'static str) -> QuotaExceeded {
        self.over.count(shared);
        {
            let mut named = self.named.lock();
            let key = (self.agent.name.clone(), shared);
            if named.len() < MAX_NAMED || named.contains_key(&key) {
                let (last, times) = named.entry(key).or_insert((Instant::now(), 0));
                *last = Instant::now();
                *times += 1;
            }
        }
        let mut told = self.told.lock();
        let told = told.entry(shared).or_default();
        told.refused += 1;
        let due = told.last.is_none_or(|last| last.elapsed() >= TELL_EVERY);
        let told = due.then(|| {
            told.last = Some(Instant::now());
            std::mem::take(&mut told.refused)
        });
        QuotaExceeded { what, whose, setting, told }
    }
}

/// What a head takes in all the forms that it is kept in while its request is answered, in bytes: hyper's, what is decoded,
/// and what is recorded.
fn head_cost<B>(request: &Request<B>) -> usize {
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 64);
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    3 * (fields.sum::<usize>() + target)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn quotas(limits: &Limits) -> Quotas {
        Quotas::new(limits, Arc::default())
    }

    fn two() -> Quotas {
        quotas(&Limits { session_connections: 2, agent_connections: 3, ..Limits::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn one_agents_connections_leave_room_for_anothers() {
        let shares = two();
        let one = shares.of("/1", "a");
        let held = [one.connect(false).unwrap(), shares.of("/1", "a").connect(false).unwrap()];
        assert_eq!(one.connect(false).unwrap_err().told, Some(1));
        assert!(shares.of("/2", "b").connect(false).is_ok());
        // Told at a limited rate, and nothing is lost of it.
        assert_eq!(one.connect(false).unwrap_err().told, None);
        assert_eq!(one.connect(false).unwrap_err().told, None);
        tokio::time::advance(TELL_EVERY).await;
        assert_eq!(one.connect(false).unwrap_err().told, Some(3));
        assert_eq!(shares.over_share(), [("a".to_owned(), Shared::Connections, 4)]);
        drop(held);
        assert!(one.connect(false).is_ok());
        tokio::time::advance(NAMED_FOR).await;
        assert_eq!(shares.over_share(), []);
    }

    #[tokio::test]
    async fn many_sessions_of_one_agent_have_its_share_together() {
        let shares = two();
        let (one, other) = (shares.of("/1", "a"), shares.of("/2", "a"));
        let held = [one.connect(false).unwrap(), one.connect(false).unwrap(), other.connect(false).unwrap()];
        assert_eq!(other.connect(false).unwrap_err().whose, Whose::Agent);
        assert!(shares.of("/3", "b").connect(false).is_ok());
        drop(held);
        assert!(other.connect(false).is_ok());
    }

    #[tokio::test]
    async fn credentials_are_there_for_whoever_has_no_connection_left() {
        let shares = two();
        let one = shares.of("/1", "a");
        let _held = [one.connect(false).unwrap(), one.connect(false).unwrap()];
        let metadata: Vec<_> = std::iter::from_fn(|| one.connect(true).ok()).collect();
        assert_eq!(metadata.len(), SESSION_METADATA);
        let all = quotas(&Limits { connections: 1, ..Limits::default() });
        let (one, other) = (all.of("/1", "a"), all.of("/2", "b"));
        let _held = one.connect(false).unwrap();
        assert_eq!(other.connect(false).unwrap_err().whose, Whose::All);
        assert!(other.connect(true).is_ok());
    }

    #[test]
    fn bodies_that_go_nowhere_come_at_a_pace() {
        let (pace, began) = (Pace::new(1_000), Instant::now());
        let after = |seconds: f64| began + Duration::from_secs_f64(seconds);
        assert_eq!(pace.take(1_000, began), Duration::ZERO, "a second's worth at once");
        let waits: Vec<f64> = (0..3).map(|_| pace.take(500, began).as_secs_f64()).collect();
        for (wait, expected) in waits.iter().zip([0.5, 1.0, 1.5]) {
            assert!((wait - expected).abs() < 0.01, "each waits for all before it: {waits:?}");
        }
        assert!(pace.take(500, after(2.0)).is_zero(), "what has come may be taken");
        assert!(pace.take(1_000, after(60.0)).is_zero());
        assert!(!pace.take(500, after(60.0)).is_zero(), "and nothing is saved up");
    }

    #[test]
    fn one_agents_names_leave_room_for_anothers() {
        let shares = two();
        let (one, other) = (shares.of("/1", "a"), shares.of("/2", "b"));
        let held: Vec<_> = std::iter::from_fn(|| one.resolve().now_or_never()).collect();
        assert_eq!(held.len(), SESSION_RESOLVING);
        assert!(other.resolve().now_or_never().is_some());
        drop(held);
        let of_agent: Vec<_> = (0..RESOLVING).map(|number| shares.of(&format!("/a{number}"), "a")).collect();
        let held: Vec<_> = of_agent.iter().filter_map(|share| share.resolve().now_or_never()).collect();
        assert_eq!(held.len(), AGENT_RESOLVING);
        assert!(other.resolve().now_or_never().is_some());
    }

    #[test]
    fn memory_that_one_holds_leaves_room_for_others_and_for_small_requests() {
        let shares = quotas(&Limits::default());
        let (one, other) = (shares.of("/1", "a"), shares.of("/2", "b"));
        let largest = Limits::default().spool_bytes;
        let mut held = Vec::new();
        let refused = loop {
            match one.hold(1 << 20) {
                Ok(it) => held.push(it),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused.whose, Whose::Session);
        assert!(held.len() << 20 >= largest, "one of the largest fits: {}", held.len());
        let small = one.hold(32 << 10).expect("small requests don't wait behind large ones");
        assert!(other.hold(largest).is_ok());
        let before = shares.memory_used();
        drop(small);
        assert_eq!(shares.memory_used(), before - (32 << 10));
        drop(held);
        assert_eq!(shares.memory_used(), 0);
        assert!(one.hold(largest).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_come_at_a_rate() {
        let shares = quotas(&Limits { refusals_per_second: 2, ..Limits::default() });
        let (one, other) = (shares.of("/1", "a"), shares.of("/2", "b"));
        let let_through = std::iter::from_fn(|| one.refuse().ok()).count();
        assert_eq!(let_through, 20);
        assert!(other.refuse().is_ok());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(std::iter::from_fn(|| one.refuse().ok()).count(), 2);
        let many: Vec<_> = (0..10).map(|number| shares.of(&format!("/c{number}"), "c")).collect();
        let all = many.iter().map(|share| std::iter::from_fn(|| share.refuse().ok()).count()).sum::<usize>();
        assert_eq!(all, 40, "an agent's sessions together have twice one's");
    }

    #[test]
    fn shares_that_nobody_uses_are_forgotten() {
        let shares = two();
        let kept = shares.of("/0", "a");
        for number in 1..10_000 {
            shares.of(&format!("/{number}"), &format!("{number}"));
        }
        let of = shares.of.lock();
        assert!(of.shares.len() + of.agents.len() < 400);
        drop(of);
        assert!(Arc::ptr_eq(&kept, &shares.of("/0", "a")));
    }
}
