//! One receiver's lane: its messages, one after another, each until it is delivered or given up.

use std::{io, sync::Arc, time::Duration};

use chaperone_model::{ApprovalDelivered, Event};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::{sync::Notify, time::sleep};

use super::{
    Clock, Message,
    outbox::{Heading, Outbox},
};
use crate::Backend;

/// Seconds between attempts. After the last one a message is given up: that is after about a day.
const PAUSES: [u64; 9] = [5, 30, 120, 600, 1_800, 7_200, 18_000, 28_800, 28_800];
/// The longest that a receiver may have us wait.
const MOST_PAUSE: u64 = 28_800;
/// How much of an answer is kept.
const MOST_ANSWER: usize = 300;

/// Why a message isn't delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What happened.
    pub why: String,
    /// Trying again is no use.
    pub is_final: bool,
    /// The receiver wants to be asked again after so many seconds.
    pub retry_after: Option<u64>,
}

/// Who gets messages.
pub trait Receiver: Send + Sync + 'static {
    /// What it is called in the configuration.
    fn name(&self) -> &str;

    /// Whether it is told of this kind.
    fn wants(&self, kind: &str) -> bool;

    /// Delivers a message, within a minute; gives what was answered.
    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<String, Failure>>;

    /// What is wrong with it beside messages that failed.
    fn trouble(&self) -> Option<String> {
        None
    }
}

/// How a receiver is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LaneStatus {
    /// Which.
    pub name: String,
    /// Messages that wait.
    pub waiting: usize,
    /// Messages that were given up.
    pub dead: usize,
    /// How many were delivered since the daemon's start.
    pub delivered: u64,
    /// How many attempts failed since the daemon's start.
    pub failed: u64,
    /// Why the last attempt failed; nothing, if it didn't.
    pub trouble: Option<String>,
}

pub(super) struct Lane {
    receiver: Box<dyn Receiver>,
    backend: Arc<dyn Backend>,
    outbox: Mutex<Outbox>,
    status: Mutex<LaneStatus>,
    news: Notify,
    now: Clock,
}

impl Lane {
    pub(super) fn new(receiver: Box<dyn Receiver>, outbox: Outbox, backend: Arc<dyn Backend>, now: Clock) -> Self {
        let status = LaneStatus { name: receiver.name().to_owned(), ..LaneStatus::default() };
        Self { receiver, backend, outbox: Mutex::new(outbox), status: Mutex::new(status), news: Notify::new(), now }
    }

    pub(super) fn receiver(&self) -> &dyn Receiver {
        &*self.receiver
    }

    /// Keeps a message, if the receiver wants it.
    pub(super) fn put(&self, message: &Message) -> io::Result<()> {
        if !self.receiver.wants(&message.heading.kind) {
            return Ok(());
        }
        if !self.outbox.lock().put(message)? {
            let full = "too many messages wait";
            tracing::error!(receiver = self.receiver.name(), id = message.heading.id, full, "a message was given up");
            self.record(&message.heading, "dead", full);
        }
        self.news.notify_one();
        Ok(())
    }

    pub(super) fn status(&self) -> LaneStatus {
        let (waiting, dead) = self.outbox.lock().counts();
        let status = self.status.lock().clone();
        LaneStatus { waiting, dead, trouble: status.trouble.clone().or_else(|| self.receiver.trouble()), ..status }
    }

    pub(super) fn headings(&self) -> Vec<Heading> {
        self.outbox.lock().headings()
    }

    pub(super) fn resend(&self, id: &str) -> io::Result<usize> {
        let revived = self.outbox.lock().revive(id, (self.now)())?;
        self.news.notify_one();
        Ok(revived)
    }

    pub(super) async fn run(self: Arc<Self>) {
        loop {
            let now = (self.now)();
            let next = self.outbox.lock().next().map(|heading| (heading.id.clone(), heading.next));
            match next {
                Some((id, next)) if next <= now => self.deliver(&id).await,
                Some((_, next)) => {
                    // However far off it seems, as the clock may be set.
                    let pause = Duration::from_millis((next - now).min(60_000));
                    tokio::select! { () = sleep(pause) => {} () = self.news.notified() => {} }
                }
                None => self.news.notified().await,
            }
        }
    }

    async fn deliver(self: &Arc<Self>, id: &str) {
        let own = self.clone();
        let id = id.to_owned();
        let read = tokio::task::spawn_blocking(move || own.outbox.lock().read(&id));
        let mut message = match read.await.expect("BUG: reading a message panicked") {
            Ok(message) => message,
            Err(error) => return self.disk(&error).await,
        };
        message.heading.attempts += 1;
        let sent = self.receiver.send(&message).await;
        let heading = message.heading.clone();
        let outcome = match &sent {
            Ok(_) => "delivered",
            Err(failure) => {
                let pause = usize::try_from(heading.attempts - 1).ok().and_then(|at| PAUSES.get(at));
                message.heading.dead = failure.is_final || pause.is_none();
                message.heading.last = cut(&failure.why);
                let pause = failure.retry_after.map_or(0, |it| it.min(MOST_PAUSE)).max(jittered(pause.copied()));
                message.heading.next = (self.now)() + pause * 1000;
                if message.heading.dead { "dead" } else { "failed" }
            }
        };
        let answer = match &sent {
            Ok(answer) => cut(answer),
            Err(failure) => cut(&failure.why),
        };
        self.record(&heading, outcome, &answer);
        {
            let mut status = self.status.lock();
            if sent.is_ok() {
                status.delivered += 1;
                status.trouble = None;
            } else {
                status.failed += 1;
                status.trouble = Some(answer.clone());
                let (receiver, attempt) = (self.receiver.name(), heading.attempts);
                tracing::warn!(
                    receiver,
                    id = heading.id,
                    attempt,
                    outcome,
                    why = answer,
                    "a message was not delivered"
                );
            }
        }
        let own = self.clone();
        let kept = tokio::task::spawn_blocking(move || {
            let mut outbox = own.outbox.lock();
            if sent.is_ok() { outbox.remove(&heading.id) } else { outbox.write(message) }
        });
        if let Err(error) = kept.await.expect("BUG: keeping a message panicked") {
            self.disk(&error).await;
        }
    }

    /// The disk doesn't do: the lane waits, rather than sending the same again and again.
    async fn disk(&self, error: &io::Error) {
        tracing::error!(%error, receiver = self.receiver.name(), "messages about questions can't be kept");
        self.status.lock().trouble = Some(error.to_string());
        sleep(Duration::from_secs(10)).await;
    }

    fn record(&self, heading: &Heading, outcome: &str, answer: &str) {
        self.backend.record(&Event::ApprovalDelivered(Box::new(ApprovalDelivered {
            id: heading.approval,
            session: heading.session,
            at: OffsetDateTime::now_utc(),
            delivery: heading.id.clone(),
            to: self.receiver.name().to_owned(),
            kind: heading.kind.clone(),
            attempt: heading.attempts,
            outcome: outcome.to_owned(),
            answer: answer.to_owned(),
        })));
    }
}

/// So many seconds, and up to a quarter more, so that those who failed together don't come back together.
fn jittered(seconds: Option<u64>) -> u64 {
    let seconds = seconds.unwrap_or(MOST_PAUSE);
    let [random, ..] = crate::sessions::random();
    seconds + seconds * u64::from(random) / 1024
}

fn cut(text: &str) -> String {
    text.chars().filter(|it| !it.is_control()).take(MOST_ANSWER).collect()
}
