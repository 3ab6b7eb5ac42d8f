use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use chaperone_model::Event;
use chaperone_policy::approvals::{Answer, Scope};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::*;
use crate::fixture::Desk;

/// Takes what it is sent, unless it is told to hang or to refuse.
struct Taker {
    name: &'static str,
    taken: mpsc::UnboundedSender<(String, String)>,
    refuses: Arc<AtomicU32>,
    hangs: Arc<AtomicBool>,
}

impl Receiver for Taker {
    fn name(&self) -> &str {
        self.name
    }

    fn wants(&self, kind: &str) -> bool {
        kind != "withdrawn"
    }

    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<String, Failure>> {
        Box::pin(async {
            if self.hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            let left = self.refuses.load(Ordering::SeqCst);
            if left > 0 {
                self.refuses.store(left - 1, Ordering::SeqCst);
                return Err(Failure { why: "500".into(), is_final: false, retry_after: None });
            }
            let _ = self.taken.send((message.heading.id.clone(), message.heading.kind.clone()));
            Ok("204".into())
        })
    }
}

struct Lane {
    taken: mpsc::UnboundedReceiver<(String, String)>,
    refuses: Arc<AtomicU32>,
    hangs: Arc<AtomicBool>,
}

fn lane(name: &'static str) -> (Box<dyn Receiver>, Lane) {
    let (sender, taken) = mpsc::unbounded_channel();
    let (refuses, hangs) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let taker = Taker { name, taken: sender, refuses: refuses.clone(), hangs: hangs.clone() };
    (Box::new(taker), Lane { taken, refuses, hangs })
}

/// As the test's own clock goes.
fn open(folder: &Path, receivers: Vec<Box<dyn Receiver>>, desk: &Arc<Desk>) -> Arc<Messages> {
    let began = tokio::time::Instant::now();
    let now = move || u64::try_from(began.elapsed().as_millis()).unwrap();
    Messages::open_at(folder, receivers, desk.clone(), Arc::new(now)).unwrap()
}

async fn answer(desk: &Desk, id: ApprovalId, allow: bool) {
    let answer = Answer { by: "alice".into(), allow, reason: String::new(), scope: Scope::Once, until: 0 };
    let approver = chaperone_model::Approver {
        by: "https".into(),
        uid: None,
        pid: None,
        issuer: None,
        subject: None,
        address: None,
        groups: vec![],
    };
    desk.answer(id, answer, approver).await.unwrap();
}

async fn kinds_of(lane: &mut Lane, count: usize) -> Vec<String> {
    let mut kinds = Vec::new();
    for _ in 0..count {
        kinds.push(lane.taken.recv().await.unwrap().1);
    }
    kinds
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_a_question_is_told_once_and_in_order() {
    let (desk, folder) = (Desk::new(&[("sre", &["alice"])]), tempfile::tempdir().unwrap());
    let before = desk.ask("sre", 9, None);
    answer(&desk, before, false).await;
    let (taker, mut lane) = lane("a");
    let messages = open(folder.path(), vec![taker], &desk);
    let running = tokio::spawn(messages.clone().run());
    let one = desk.ask("sre", 1, None);
    assert_eq!(kinds_of(&mut lane, 1).await, ["asked"]);
    answer(&desk, one, true).await;
    desk.resume(one);
    assert_eq!(kinds_of(&mut lane, 2).await, ["approved", "used"]);
    let two = desk.ask("sre", 2, None);
    assert_eq!(kinds_of(&mut lane, 1).await, ["asked"]);
    // Before it is noted that a message was made and delivered, it would come twice.
    let is_told = || fs::read_to_string(folder.path().join(TOLD)).is_ok_and(|text| text.contains(&two.to_string()));
    while !messages.list().is_empty() || !is_told() {
        tokio::task::yield_now().await;
    }
    running.abort();
    let _ = running.await;
    // While nobody tells, something happens. What was told isn't told again.
    answer(&desk, two, false).await;
    let (taker, mut lane) = self::lane("a");
    let running = tokio::spawn(open(folder.path(), vec![taker], &desk).run());
    assert_eq!(kinds_of(&mut lane, 1).await, ["denied"]);
    running.abort();
    let outcomes: Vec<_> = desk
        .events
        .lock()
        .iter()
        .map(|event| match event {
            Event::ApprovalDelivered(it) => (it.kind.clone(), it.outcome.clone()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(outcomes.len(), 5, "{outcomes:?}");
    assert!(outcomes.iter().all(|(_, outcome)| outcome == "delivered"), "{outcomes:?}");
}

#[tokio::test(start_paused = true)]
async fn who_hangs_or_refuses_delays_nobody_and_is_asked_again() {
    let (desk, folder) = (Desk::new(&[("sre", &["alice"])]), tempfile::tempdir().unwrap());
    let ((hung, hung_lane), (refusing, mut refused), (good, mut taken)) =
        (lane("hung"), lane("refusing"), lane("good"));
    hung_lane.hangs.store(true, Ordering::SeqCst);
    refused.refuses.store(3, Ordering::SeqCst);
    let messages = open(folder.path(), vec![hung, refusing, good], &desk);
    let running = tokio::spawn(messages.clone().run());
    for number in 1..=5 {
        desk.ask("sre", number, None);
    }
    assert_eq!(kinds_of(&mut taken, 5).await.len(), 5);
    assert_eq!(kinds_of(&mut refused, 5).await.len(), 5);
    // What was taken is removed a moment later.
    while messages.status()[1..].iter().any(|lane| lane.waiting > 0) {
        tokio::task::yield_now().await;
    }
    let status = messages.status();
    assert_eq!((status[0].waiting, status[0].delivered), (5, 0));
    assert_eq!((status[1].waiting, status[1].failed, status[2].failed), (0, 3, 0));
    running.abort();
    let _ = running.await;
    // What hung is there after a restart.
    let (taker, mut lane) = lane("hung");
    let running = tokio::spawn(open(folder.path(), vec![taker], &desk).run());
    assert_eq!(kinds_of(&mut lane, 5).await.len(), 5);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_is_listed_and_can_be_sent_again() {
    let (desk, folder) = (Desk::new(&[("sre", &["alice"])]), tempfile::tempdir().unwrap());
    let (taker, mut lane) = lane("a");
    lane.refuses.store(10, Ordering::SeqCst);
    let messages = open(folder.path(), vec![taker], &desk);
    tokio::spawn(messages.clone().run());
    desk.ask("sre", 1, None);
    while messages.list().first().is_none_or(|(_, heading)| !heading.dead) {
        tokio::time::sleep(Duration::from_mins(1)).await;
    }
    let (name, heading) = messages.list().remove(0);
    assert!(name == "a" && heading.dead && heading.last == "500", "{heading:?}");
    assert_eq!(messages.resend("msg_0_asked").unwrap(), 0);
    assert_eq!(messages.resend("all").unwrap(), 1);
    assert_eq!(kinds_of(&mut lane, 1).await, ["asked"]);
    let events = desk.events.lock().clone();
    let dead = |event: &&Event| matches!(event, Event::ApprovalDelivered(it) if it.outcome == "dead");
    assert_eq!(events.iter().filter(dead).count(), 1);
}

#[test]
fn the_queue_is_bounded() {
    let (desk, folder) = (Desk::new(&[("sre", &["alice"])]), tempfile::tempdir().unwrap());
    desk.ask("sre", 1, None);
    let all = desk.questions();
    let mut outbox = Outbox::open(folder.path()).unwrap();
    outbox.most_waiting = 20;
    let mut message = message("asked", &all[0], &all, 0);
    for number in 0..30 {
        message.heading.id = format!("msg_{number}_asked");
        assert_eq!(outbox.put(&message).unwrap(), number < 20);
    }
    assert_eq!(outbox.counts(), (20, 10));
    assert_eq!(Outbox::open(folder.path()).unwrap().counts(), (20, 10));
}
