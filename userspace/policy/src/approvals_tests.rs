//! The questions' life, over all orders of what can happen to them.

use proptest::prelude::*;

use super::*;

const TERMS: Terms = Terms { expires: 1000, returns: 300, open: 4, open_per_session: 3 };

fn groups(name: &str) -> Vec<String> {
    let of = match name {
        "alice" | "bob" => &["sre"][..],
        "carol" => &["sre", "security"],
        "dave" => &["security"],
        _ => &[],
    };
    of.iter().map(|group| (*group).to_owned()).collect()
}

fn call_id() -> CallId {
    CallId::from_bytes([7; 16])
}

fn requirement(policy: &str, group: &str, needed: u32) -> Requirement {
    Requirement { policy: policy.into(), groups: vec![group.into()], needed, sponsor_may: false }
}

fn asked(call: u8, session: SessionId) -> Asked {
    Asked {
        fingerprint: Fingerprint([call; 32]),
        call: call_id(),
        session,
        agent: "coder".into(),
        sponsor: Some("bob".into()),
        needs: BTreeSet::from([("s3:DeleteBucket".into(), format!("arn:aws:s3:::b{call}"))]),
        requirements: vec![requirement("ask", "sre", 1)],
        about: Arc::new(serde_json::Value::Null),
    }
}

fn yes(by: &str) -> Answer {
    Answer { by: by.into(), allow: true, reason: String::new(), scope: Scope::Once, until: 0 }
}

fn no(by: &str) -> Answer {
    Answer { allow: false, reason: "not today".into(), ..yes(by) }
}

/// A question of that call, pending, and its id.
fn pending(approvals: &mut Approvals, asked: Asked) -> ApprovalId {
    let id = ApprovalId::new();
    assert_eq!(approvals.ask(0, id, asked, &groups), Ok(Standing::Wait { id, new: true }));
    id
}

#[test]
fn what_is_approved_goes_out_once() {
    let (mut all, session) = (Approvals::new(TERMS), SessionId::new());
    let id = pending(&mut all, asked(1, session));
    assert_eq!(all.resume(1, id, call_id(), &groups), None);
    assert_eq!(all.answer(2, id, &yes("alice"), &groups).unwrap().state, State::Approved);
    let go = Standing::Go { id, by: vec!["alice".into()] };
    assert_eq!(all.resume(3, id, call_id(), &groups), Some(go));
    assert_eq!(
        all.resume(3, id, call_id(), &groups),
        Some(Standing::Refused { id, state: State::Used { call: call_id() } })
    );
    assert_eq!(all.answer(4, id, &yes("carol"), &groups), Err(AnswerError::Over("used")));
    // The same call once more is another question.
    assert!(matches!(all.ask(5, ApprovalId::new(), asked(1, session), &groups), Ok(Standing::Wait { new: true, .. })));
}

#[test]
fn a_retry_joins_its_question_and_uses_its_approval() {
    let (mut all, session) = (Approvals::new(TERMS), SessionId::new());
    let id = pending(&mut all, asked(1, session));
    all.leave(10, id);
    let retry = |all: &mut Approvals, now| all.ask(now, ApprovalId::new(), asked(1, session), &groups).unwrap();
    assert_eq!(retry(&mut all, 20), Standing::Wait { id, new: false });
    all.leave(30, id);
    all.answer(40, id, &yes("alice"), &groups).unwrap();
    assert!(matches!(retry(&mut all, 50), Standing::Go { id: used, .. } if used == id));
    // Another call, or another session's, isn't it.
    assert!(matches!(all.ask(50, ApprovalId::new(), asked(2, session), &groups), Ok(Standing::Wait { new: true, .. })));
}

#[test]
fn a_no_is_final_for_retries_and_a_new_question_afterwards() {
    let (mut all, session) = (Approvals::new(TERMS), SessionId::new());
    let id = pending(&mut all, asked(1, session));
    // One who may not answer can't say no either.
    assert!(matches!(all.answer(1, id, &no("dave"), &groups), Err(AnswerError::NotYours { .. })));
    // The sponsor may: it is their own agent that is stopped.
    all.answer(1, id, &no("bob"), &groups).unwrap();
    let denied = State::Denied { by: "bob".into(), reason: "not today".into() };
    assert_eq!(all.resume(2, id, call_id(), &groups), Some(Standing::Refused { id, state: denied.clone() }));
    let again = all.ask(3, ApprovalId::new(), asked(1, session), &groups).unwrap();
    assert_eq!(again, Standing::Refused { id, state: denied });
    assert!(matches!(
        all.ask(1000, ApprovalId::new(), asked(1, session), &groups),
        Ok(Standing::Wait { new: true, .. })
    ));
}

/// Carol is known to be one person on the host and at a provider; who `corp:x` is on the host nobody knows.
struct Two;

impl People for Two {
    fn groups(&self, _: &str) -> Vec<String> {
        vec!["sre".into()]
    }

    fn known_as(&self, approver: &str) -> Vec<(String, String)> {
        let at = |place: &str, name: &str| (place.to_owned(), name.to_owned());
        match approver.split_once(':') {
            Some((provider, subject)) => vec![at(provider, subject)],
            None if approver == "carol" => vec![at("", approver), at("corp", "c")],
            None => vec![at("", approver)],
        }
    }
}

#[test]
fn who_cannot_be_told_apart_is_one_person() {
    for (votes, enough) in [
        (&["alice", "dave"][..], true),
        (&["corp:x", "corp:y"], true),
        (&["carol", "corp:x"], true),
        (&["alice", "corp:x"], false),
        (&["corp:x", "other:x"], false),
        (&["carol", "other:x"], false),
        // A yes that doesn't count beside another's keeps nobody's from counting.
        (&["corp:x", "alice", "dave"], true),
    ] {
        let (mut all, id) = (Approvals::new(TERMS), ApprovalId::new());
        let two = Asked { requirements: vec![requirement("ask", "sre", 2)], ..asked(1, SessionId::new()) };
        all.ask(0, id, two, &Two).unwrap();
        let state = votes.iter().map(|by| all.answer(1, id, &yes(by), &Two).unwrap().state.clone()).last();
        assert_eq!(state == Some(State::Approved), enough, "{votes:?}");
    }
}

#[test]
fn what_agents_ask_about_has_bounds() {
    let (terms, session) = (Terms { open: 1000, open_per_session: 1000, ..TERMS }, SessionId::new());
    let mut all = Approvals::new(terms);
    let large = |call: u8, session| {
        let needs = (0..1000).map(|at| ("s3:DeleteObject".into(), format!("arn:aws:s3:::b/{at}{}", "x".repeat(1000))));
        Asked { needs: needs.collect(), ..asked(call, session) }
    };
    let mut ask = |call, session| all.ask(0, ApprovalId::new(), large(call, session), &groups);
    let refused = (0..10).find_map(|call| ask(call, session).err()).unwrap();
    assert_eq!(refused, AskError::Large(4));
    assert!(ask(20, SessionId::new()).is_ok(), "another session has its own share");
    assert_eq!((21..100).find_map(|call| ask(call, SessionId::new()).err()), Some(AskError::Large(32)));
}

#[test]
fn no_more_than_some_that_are_over_are_remembered() {
    let (mut all, session) = (Approvals::new(TERMS), SessionId::new());
    let mut last = None;
    for call in 0..2_010_u32 {
        let mut one = asked(0, session);
        one.fingerprint.0[..4].copy_from_slice(&call.to_be_bytes());
        let id = ApprovalId::new();
        all.ask(0, id, one, &groups).unwrap();
        all.answer(0, id, &no("alice"), &groups).unwrap();
        all.leave(0, id);
        last = Some(id);
    }
    assert!(all.forget(0).is_empty(), "what isn't written down yet is kept");
    all.take_changed();
    assert_eq!(all.forget(0).len(), 10);
    assert!(last.is_some_and(|id| all.question(id).is_some()));
}

#[test]
fn everyone_who_must_says_yes_and_nobody_twice_and_not_the_sponsor() {
    let (mut all, session) = (Approvals::new(TERMS), SessionId::new());
    let mut both = asked(1, session);
    both.requirements = vec![requirement("ask", "sre", 2), requirement("secure", "security", 1)];
    let id = pending(&mut all, both);
    assert_eq!(all.answer(1, id, &yes("bob"), &groups), Err(AnswerError::Sponsor("bob".into())));
    assert_eq!(all.answer(1, id, &yes("alice"), &groups).unwrap().state, State::Pending);
    assert_eq!(all.answer(1, id, &yes("alice"), &groups), Err(AnswerError::Twice("alice".into())));
    assert!(matches!(all.answer(1, id, &yes("mallory"), &groups), Err(AnswerError::NotYours { .. })));
    // Carol is in both groups, and counts in each.
    assert_eq!(all.answer(1, id, &yes("carol"), &groups).unwrap().state, State::Approved);
}

#[test]
fn an_approver_who_is_no_longer_one_has_not_approved() {
    let (mut all, session) = (Approvals::new(TERMS), SessionId::new());
    let id = pending(&mut all, asked(1, session));
    all.answer(1, id, &yes("alice"), &groups).unwrap();
    let nobody = |_: &str| Vec::new();
    assert_eq!(all.resume(2, id, call_id(), &nobody), Some(Standing::Refused { id, state: State::Superseded }));
    // Also where a retry comes for it, and where the policies changed.
    let id = pending(&mut all, asked(2, session));
    all.answer(1, id, &yes("alice"), &groups).unwrap();
    assert!(matches!(all.ask(2, ApprovalId::new(), asked(2, session), &nobody), Ok(Standing::Wait { new: true, .. })));
    let id = pending(&mut all, asked(3, session));
    all.answer(1, id, &yes("alice"), &groups).unwrap();
    let mut stricter = asked(3, session);
    stricter.requirements[0].needed = 2;
    assert!(matches!(all.ask(2, ApprovalId::new(), stricter, &groups), Ok(Standing::Wait { new: true, .. })));
    assert_eq!(all.question(id).unwrap().state, State::Superseded);
}

#[test]
fn an_approval_can_reach_further_and_ends() {
    let (mut all, session) = (Approvals::new(TERMS), SessionId::new());
    let id = pending(&mut all, asked(1, session));
    all.answer(1, id, &Answer { scope: Scope::Session, until: 500, ..yes("alice") }, &groups).unwrap();
    let ask = |all: &mut Approvals, now, call, session| all.ask(now, ApprovalId::new(), asked(call, session), &groups);
    for now in [2, 3] {
        assert!(matches!(ask(&mut all, now, 1, session), Ok(Standing::Go { .. })), "{now}");
    }
    // Neither another resource nor another session.
    assert!(matches!(ask(&mut all, 4, 2, session), Ok(Standing::Wait { .. })));
    assert!(all.granted(&asked(1, SessionId::new()), &groups).is_none());
    assert!(all.granted(&asked(1, session), &groups).is_some());
    assert!(all.granted(&asked(1, session), &|_: &str| Vec::new()).is_none());
    all.tick(500);
    assert!(all.grants().is_empty());
}

#[test]
fn questions_are_bounded_and_forgotten() {
    let (mut all, session) = (Approvals::new(TERMS), SessionId::new());
    for call in 0..3 {
        pending(&mut all, asked(call, session));
    }
    assert_eq!(all.ask(0, ApprovalId::new(), asked(9, session), &groups), Err(AskError::Full(3)));
    pending(&mut all, asked(3, SessionId::new()));
    assert_eq!(all.ask(0, ApprovalId::new(), asked(9, SessionId::new()), &groups), Err(AskError::Full(4)));
    let ids: Vec<_> = all.questions().map(|asking| asking.id).collect();
    for id in ids {
        all.leave(10, id);
    }
    all.tick(309);
    assert!(all.questions().all(|asking| asking.state == State::Pending));
    all.tick(310);
    assert!(all.questions().all(|asking| asking.state == State::Withdrawn));
    assert_eq!(all.forget(1001).len(), 4);
    assert_eq!(all.questions().count(), 0);
}

#[test]
fn a_restart_keeps_what_is_pending_and_what_is_approved() {
    let (mut all, session) = (Approvals::new(TERMS), SessionId::new());
    let (one, other) = (pending(&mut all, asked(1, session)), pending(&mut all, asked(2, session)));
    all.answer(1, one, &yes("alice"), &groups).unwrap();
    let json = serde_json::to_string(&all.questions().collect::<Vec<_>>()).unwrap();
    let mut next = Approvals::restore(TERMS, serde_json::from_str(&json).unwrap(), Vec::new(), 100);
    assert!(
        matches!(next.ask(101, ApprovalId::new(), asked(1, session), &groups), Ok(Standing::Go { id, .. }) if id == one)
    );
    assert_eq!(
        next.ask(101, ApprovalId::new(), asked(2, session), &groups),
        Ok(Standing::Wait { id: other, new: false })
    );
}

/// What can happen.
#[derive(Clone, Debug)]
enum Step {
    Ask(u8),
    Resume(usize),
    Leave(usize),
    Answer(usize, &'static str, bool),
    Pass(u16),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_u8).prop_map(Step::Ask),
        (0..6_usize).prop_map(Step::Resume),
        (0..6_usize).prop_map(Step::Leave),
        (
            0..6_usize,
            prop_oneof!["alice", "bob", "carol", "mallory"].prop_map(|name| match name.as_str() {
                "alice" => "alice",
                "bob" => "bob",
                "carol" => "carol",
                _ => "mallory",
            }),
            any::<bool>()
        )
            .prop_map(|(at, who, allow)| Step::Answer(at, who, allow)),
        (1..400_u16).prop_map(Step::Pass),
        Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Over all orders: what goes out was approved by one who may, is not over, was not denied, and goes out once.
    #[test]
    fn nothing_goes_out_unapproved_or_twice(steps in prop::collection::vec(step(), 0..40)) {
        let (mut all, session) = (Approvals::new(TERMS), SessionId::new());
        let mut now = 0;
        let mut ids: Vec<ApprovalId> = Vec::new();
        // By question: when it was asked, who said a yes that counts, whether anybody said no, how often it went out.
        let mut told: HashMap<ApprovalId, (Millis, bool, bool, u32)> = HashMap::new();
        for step in steps {
            let outcome = match step {
                Step::Ask(call) => match all.ask(now, ApprovalId::new(), asked(call, session), &groups) {
                    Ok(Standing::Wait { id, new }) => {
                        prop_assert_eq!(new, !told.contains_key(&id));
                        if new {
                            ids.push(id);
                            told.insert(id, (now, false, false, 0));
                        }
                        None
                    }
                    Ok(other) => Some(other),
                    Err(AskError::Full(_) | AskError::Large(_)) => None,
                },
                Step::Resume(at) => ids.get(at).and_then(|id| all.resume(now, *id, call_id(), &groups)),
                Step::Leave(at) => {
                    if let Some(id) = ids.get(at) {
                        all.leave(now, *id);
                    }
                    None
                }
                Step::Answer(at, who, allow) => {
                    if let Some(id) = ids.get(at) {
                        let answer = if allow { yes(who) } else { no(who) };
                        if all.answer(now, *id, &answer, &groups).is_ok() {
                            let entry = told.get_mut(id).unwrap();
                            prop_assert!(who != "mallory" && !(allow && who == "bob"));
                            if allow { entry.1 = true } else { entry.2 = true }
                        }
                    }
                    None
                }
                Step::Pass(millis) => {
                    now += Millis::from(millis);
                    None
                }
                Step::Restart => {
                    // As they are kept.
                    let kept: Vec<String> =
                        all.questions().map(|asking| serde_json::to_string(asking).unwrap()).collect();
                    let kept = kept.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
                    all = Approvals::restore(TERMS, kept, all.grants().to_vec(), now);
                    None
                }
            };
            if let Some(Standing::Go { id, by }) = outcome {
                let (at, approved, denied, sent) = told.get_mut(&id).unwrap();
                prop_assert!(*approved && !*denied && now < *at + TERMS.expires && !by.is_empty());
                *sent += 1;
                prop_assert_eq!(*sent, 1);
            }
        }
    }
}
