//! The processors, shared by agents and sessions.
//!
//! tokio polls tasks in the order in which they were woken, so that a session with a hundred busy connections would get a
//! hundred turns for each of its neighbour's. Here an agent whose tasks have used [`ROUND`] waits until everybody else
//! who was woken has had a turn; then its sessions get theirs one after the other, and a session's tasks one after the
//! other. No turn reads or writes more than [`TURN_BYTES`] of an agent's stream.
//!
//! Whoever is alone hardly waits: the round is over as soon as no other task is woken.

use std::{
    cell::Cell,
    collections::{HashMap, VecDeque},
    future::Future,
    hash::Hash,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use pin_project_lite::pin_project;
use slab::Slab;

/// How long an agent's tasks may take of the processors while others wait. A call of somebody else's waits for about so
/// long each time that it is woken, and is woken some five times.
const ROUND: Duration = Duration::from_micros(300);
/// How much of an agent's stream is read and written in one turn, in bytes, so that it takes tenths of a millisecond: what
/// is read is decrypted, looked at, hashed and recorded.
pub(crate) const TURN_BYTES: usize = 64 << 10;
/// Turns of one agent that are given in a round, at most.
const MOST_TURNS: usize = 64;

thread_local! {
    /// What is left of this thread's turn, in bytes. What has no turn isn't counted.
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Gives turns to those that wait.
#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    /// Goes up when everybody else has had a turn.
    round: AtomicU64,
    waiting: Mutex<Waiting>,
    /// Of the last agent or session that was made.
    last: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Tasks that wait for a turn, and those that have been given one.
    tickets: Slab<Ticket>,
    /// The agents of which a task waits, the next one first.
    agents: Ring<u64, OfAgent>,
    /// Whether somebody is giving turns.
    is_served: bool,
}

#[derive(Debug, Default)]
struct OfAgent {
    agent: Arc<AgentTurns>,
    sessions: Ring<u64, VecDeque<usize>>,
}

#[derive(Debug)]
enum Ticket {
    Waiting(Waker),
    /// It was dropped while it waited.
    Gone,
    Given,
}

/// Queues by whose they are, that are served one after the other. None is empty.
#[derive(Debug)]
struct Ring<K, Q> {
    order: VecDeque<K>,
    queues: HashMap<K, Q>,
}

impl<K, Q> Default for Ring<K, Q> {
    fn default() -> Self {
        Self { order: VecDeque::new(), queues: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash, Q: Default> Ring<K, Q> {
    fn queue(&mut self, of: K) -> &mut Q {
        self.queues.entry(of).or_insert_with(|| {
            self.order.push_back(of);
            Q::default()
        })
    }

    /// Takes something from the queue whose turn it is, and says whether there is more in it.
    fn next<T>(&mut self, take: impl FnOnce(&mut Q) -> (T, bool)) -> Option<T> {
        let of = self.order.pop_front()?;
        let (taken, more) = take(self.queues.get_mut(&of).expect("BUG: what is in the order has a queue"));
        if more {
            self.order.push_back(of);
        } else {
            self.queues.remove(&of);
        }
        Some(taken)
    }
}

impl Waiting {
    /// The next task of an agent's, its sessions one after the other.
    fn next(queue: &mut OfAgent) -> Option<usize> {
        queue.sessions.next(|tasks| (tasks.pop_front(), !tasks.is_empty())).flatten()
    }

    /// Gives each agent its turns of a round.
    fn round(&mut self) -> Vec<Waker> {
        let agents = self.agents.order.len();
        let mut woken = Vec::new();
        for _ in 0..agents {
            let tickets = &mut self.tickets;
            self.agents.next(|queue| {
                let mut left = queue.agent.turns(agents);
                while left > 0
                    && let Some(ticket) = Self::next(queue)
                {
                    queue.agent.waiting.fetch_sub(1, Relaxed);
                    if let Ticket::Waiting(waker) = std::mem::replace(&mut tickets[ticket], Ticket::Given) {
                        woken.push(waker);
                        left -= 1;
                    } else {
                        tickets.remove(ticket);
                    }
                }
                ((), !queue.sessions.order.is_empty())
            });
        }
        woken
    }
}

impl Scheduler {
    fn id(&self) -> u64 {
        self.last.fetch_add(1, Relaxed)
    }

    /// Gives turns until nobody waits any more.
    async fn serve(self: Arc<Self>) {
        loop {
            // Behind everything that is woken, and behind what sockets have to tell.
            tokio::task::yield_now().await;
            let woken = {
                let mut waiting = self.waiting.lock();
                self.round.fetch_add(1, Relaxed);
                let woken = waiting.round();
                waiting.is_served = !woken.is_empty();
                woken
            };
            if woken.is_empty() {
                return;
            }
            woken.into_iter().for_each(Waker::wake);
        }
    }
}

/// What an agent uses of the processors.
#[derive(Debug, Default)]
pub(crate) struct AgentTurns {
    id: u64,
    /// The round that `spent` is of.
    round: AtomicU64,
    /// What its turns have taken in it, in nanoseconds.
    spent: AtomicU64,
    /// What one of them takes, in nanoseconds.
    usual: AtomicU64,
    /// Tasks that wait.
    waiting: AtomicUsize,
}

impl AgentTurns {
    pub(crate) fn new(scheduler: &Scheduler) -> Self {
        Self { id: scheduler.id(), ..Self::default() }
    }

    /// Whether a task that is polled has a turn at once.
    fn may_go(&self, round: u64) -> bool {
        if self.round.swap(round, Relaxed) != round {
            self.spent.store(0, Relaxed);
        }
        self.waiting.load(Relaxed) == 0 && u128::from(self.spent.load(Relaxed)) < ROUND.as_nanos()
    }

    fn spend(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 8);
        self.spent.fetch_add(nanos, Relaxed);
        // Two at once may overlook one another: it is an estimate.
        let usual = self.usual.load(Relaxed);
        self.usual.store(usual - usual / 8 + nanos / 8, Relaxed);
    }

    /// How many turns are about its part of a round.
    fn turns(&self, agents: usize) -> usize {
        let usual = u128::from(self.usual.load(Relaxed)).max(1);
        let turns = ROUND.as_nanos() / usual / agents.max(1) as u128;
        usize::try_from(turns).unwrap_or(MOST_TURNS).clamp(1, MOST_TURNS)
    }
}

/// Whose turns are counted together: a session's, among its agent's.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    scheduler: Arc<Scheduler>,
    agent: Arc<AgentTurns>,
    session: u64,
}

impl Lane {
    pub(crate) fn new(scheduler: Arc<Scheduler>, agent: Arc<AgentTurns>) -> Self {
        let session = scheduler.id();
        Self { scheduler, agent, session }
    }

    /// What takes turns like this one's.
    pub(crate) fn run<F: Future>(&self, inner: F) -> Fair<F> {
        Fair { inner, place: Place { lane: self.clone(), ticket: None } }
    }
}

pin_project! {
    /// A future that is polled when it is its session's turn.
    #[derive(Debug)]
    pub(crate) struct Fair<F> {
        #[pin]
        inner: F,
        place: Place,
    }
}

#[derive(Debug)]
struct Place {
    lane: Lane,
    ticket: Option<usize>,
}

/// A turn that is taken.
struct Turn<'a> {
    of: &'a AgentTurns,
    since: Instant,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        LEFT.set(None);
        self.of.spend(self.since.elapsed());
    }
}

impl Place {
    fn take(&mut self, cx: &Context<'_>) -> Option<Turn<'_>> {
        let Lane { scheduler, agent, session } = &self.lane;
        if self.ticket.is_some() || !agent.may_go(scheduler.round.load(Relaxed)) {
            let mut waiting = scheduler.waiting.lock();
            let Some(ticket) = self.ticket else {
                let ticket = waiting.tickets.insert(Ticket::Waiting(cx.waker().clone()));
                let queue = waiting.agents.queue(agent.id);
                queue.agent = agent.clone();
                queue.sessions.queue(*session).push_back(ticket);
                agent.waiting.fetch_add(1, Relaxed);
                self.ticket = Some(ticket);
                if !std::mem::replace(&mut waiting.is_served, true) {
                    tokio::spawn(scheduler.clone().serve());
                }
                return None;
            };
            if let Ticket::Waiting(waker) = &mut waiting.tickets[ticket] {
                waker.clone_from(cx.waker());
                return None;
            }
            waiting.tickets.remove(ticket);
            self.ticket = None;
        }
        LEFT.set(Some(TURN_BYTES));
        Some(Turn { of: agent, since: Instant::now() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut waiting = self.lane.scheduler.waiting.lock();
        match &mut waiting.tickets[ticket] {
            // It is in a queue, and is taken out there.
            ticket @ Ticket::Waiting(_) => *ticket = Ticket::Gone,
            Ticket::Given | Ticket::Gone => _ = waiting.tickets.remove(ticket),
        }
    }
}

impl<F: Future> Future for Fair<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        match this.place.take(cx) {
            Some(_turn) => this.inner.poll(cx),
            None => Poll::Pending,
        }
    }
}

/// Runs what belongs to a session as tasks of their own, in its turns.
#[derive(Clone, Debug)]
pub(crate) struct FairExecutor(pub(crate) Lane);

impl<F> hyper::rt::Executor<F> for FairExecutor
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, future: F) {
        tokio::spawn(self.0.run(future));
    }
}

/// Whether there is anything left of the turn to read or write by; if not, the task is woken for its next one.
pub(crate) fn poll_bytes(cx: &Context<'_>) -> Poll<()> {
    if LEFT.get() == Some(0) {
        cx.waker().wake_by_ref();
        return Poll::Pending;
    }
    Poll::Ready(())
}

/// So many bytes of the turn were used.
pub(crate) fn use_bytes(bytes: usize) {
    LEFT.set(LEFT.get().map(|left| left.saturating_sub(bytes)));
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt as _;
    use tokio::task::JoinSet;

    use super::*;

    const TIMES: usize = 20;

    /// Takes turns that are a third of a round; each is written down.
    async fn busy(name: &'static str, log: Arc<Mutex<Vec<&'static str>>>) {
        for _ in 0..TIMES {
            log.lock().push(name);
            let began = Instant::now();
            while began.elapsed() < ROUND / 3 {}
            let mut once = false;
            poll_fn(|cx| {
                cx.waker().wake_by_ref();
                if std::mem::replace(&mut once, true) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
    }

    /// Who had its turn when: so many tasks of each lane.
    async fn turns(of: Vec<(&'static str, &Lane, usize)>) -> Vec<&'static str> {
        let (log, mut tasks) = (Arc::default(), JoinSet::new());
        for (name, lane, count) in of {
            for _ in 0..count {
                tasks.spawn(lane.run(busy(name, Arc::clone(&log))));
            }
        }
        tasks.join_all().await;
        Arc::into_inner(log).unwrap().into_inner()
    }

    fn lane(scheduler: &Arc<Scheduler>) -> Lane {
        Lane::new(scheduler.clone(), Arc::new(AgentTurns::new(scheduler)))
    }

    /// The most turns of others' between two of this one's.
    fn longest_wait(turns: &[&str], name: &str) -> usize {
        let at: Vec<_> = turns.iter().enumerate().filter(|(_, turn)| **turn == name).map(|(at, _)| at).collect();
        at.windows(2).map(|pair| pair[1] - pair[0] - 1).max().unwrap()
    }

    #[tokio::test]
    async fn a_hundred_busy_connections_are_little_more_than_one() {
        let scheduler = Arc::default();
        let (flood, victim) = (lane(&scheduler), lane(&scheduler));
        let turns = turns(vec![("flood", &flood, 100), ("victim", &victim, 1)]).await;
        assert_eq!(turns.len(), 101 * TIMES, "everybody gets all of its turns");
        assert!(longest_wait(&turns, "victim") <= 4, "{}", longest_wait(&turns, "victim"));
    }

    #[tokio::test]
    async fn agents_share_before_their_sessions_do() {
        let scheduler = Arc::default();
        let (own, other) = (lane(&scheduler), lane(&scheduler));
        let sessions: Vec<_> = (0..50).map(|_| Lane::new(scheduler.clone(), own.agent.clone())).collect();
        let mut of: Vec<_> = sessions.iter().map(|lane| ("many", lane, 10)).collect();
        of.extend([("own", &own, 1), ("other", &other, 1)]);
        let turns = turns(of).await;
        assert!(longest_wait(&turns, "other") <= 4, "{}", longest_wait(&turns, "other"));
        assert!(longest_wait(&turns, "own") <= 2 * 51, "{}", longest_wait(&turns, "own"));
    }

    #[tokio::test]
    async fn who_goes_while_it_waits_leaves_nothing_behind() {
        let scheduler = Arc::default();
        let lane = lane(&scheduler);
        lane.agent.spend(ROUND);
        let mut waiting: Vec<_> = (0..5).map(|number| Box::pin(lane.run(async move { number }))).collect();
        for task in &mut waiting {
            assert_eq!(task.as_mut().now_or_never(), None, "it has used its part of the round");
        }
        assert_eq!(lane.agent.waiting.load(Relaxed), 5);
        waiting.remove(2);
        let last = waiting.pop().unwrap();
        assert_eq!(last.await, 4);
        // These have been given a turn, and one goes without having taken it.
        waiting.pop();
        for (task, number) in waiting.into_iter().zip(0..) {
            assert_eq!(task.await, number);
        }
        let left = scheduler.waiting.lock();
        assert!(left.tickets.is_empty() && left.agents.queues.is_empty());
        assert_eq!(lane.agent.waiting.load(Relaxed), 0);
    }

    #[test]
    fn a_turn_is_so_many_bytes_long() {
        let lane = lane(&Arc::default());
        let mut used = 0;
        let mut reading = Box::pin(lane.run(poll_fn(|cx| {
            while poll_bytes(cx).is_ready() {
                if used == 3 * TURN_BYTES {
                    return Poll::Ready(());
                }
                use_bytes(1024);
                used += 1024;
            }
            Poll::Pending
        })));
        for _ in 0..3 {
            assert!(reading.as_mut().now_or_never().is_none());
        }
        assert!(reading.now_or_never().is_some());
        // Without a turn, nothing is counted.
        use_bytes(1 << 30);
        assert!(poll_bytes(&Context::from_waker(Waker::noop())).is_ready());
    }
}
