//! Tests of what is counted.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn budget(count: Count, limit: u64) -> Budget {
    Budget {
        name: "b".into(),
        agents: Vec::new(),
        per: Per::Agent,
        count,
        actions: Vec::new(),
        limit,
        window: 60_000,
        over: OverBudget::Deny,
    }
}

fn of(rules: Vec<Budget>) -> Budgets<u64> {
    Budgets::restore(rules, None, 0)
}

fn coder() -> Who<'static> {
    Who { agent: "coder", session: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap() }
}

fn call(budgets: &mut Budgets<u64>, now: Millis, actions: &[&str], resources: &[&str]) -> bool {
    let id = CallId::new();
    let resources: Vec<_> = resources.iter().map(|&one| one.to_owned()).collect();
    let (_, over) = budgets.charge(now, coder(), id, actions, &resources);
    if over.is_empty() {
        budgets.commit(id);
    } else {
        budgets.release(id);
    }
    over.is_empty()
}

#[test]
fn a_window_moves_and_never_forgets_early() {
    let mut budgets = of(vec![budget(Count::Calls, 2)]);
    assert!(call(&mut budgets, 500, &["s3:GetObject"], &[]));
    assert!(call(&mut budgets, 30_000, &["s3:GetObject"], &[]));
    for now in [30_001, 59_999, 60_000, 60_499] {
        assert!(!call(&mut budgets, now, &["s3:GetObject"], &[]), "{now}");
    }
    assert!(call(&mut budgets, 62_000, &["s3:GetObject"], &[]));
    assert!(!call(&mut budgets, 62_000, &["s3:GetObject"], &[]));
    // A clock that is set back brings nothing.
    assert!(!call(&mut budgets, 1_000, &["s3:GetObject"], &[]));
}

#[test]
fn it_counts_what_it_is_about() {
    let runs = Budget { actions: vec!["ec2:Run*".into()], ..budget(Count::Calls, 1) };
    let mut budgets = of(vec![runs]);
    assert!(call(&mut budgets, 0, &["EC2:RunInstances", "iam:PassRole"], &[]));
    assert!(!call(&mut budgets, 0, &["iam:PassRole", "ec2:RunInstances"], &[]));
    assert!(call(&mut budgets, 0, &["ec2:DescribeInstances"], &[]));

    let mut budgets = of(vec![budget(Count::Resources, 2)]);
    assert!(call(&mut budgets, 0, &[], &["a", "b", "a"]));
    assert!(call(&mut budgets, 0, &[], &["b"]) && !call(&mut budgets, 0, &[], &["b", "c"]));
    assert!(call(&mut budgets, 0, &[], &["a"]));

    let mut budgets = of(vec![budget(Count::Denied, 2)]);
    for reason in [Reason::Waiting, Reason::OverBudget, Reason::Stopped, Reason::Forbidden] {
        budgets.denied(0, coder(), CallId::new(), &[], reason);
    }
    assert!(call(&mut budgets, 0, &[], &[]));
    budgets.denied(0, coder(), CallId::new(), &[], Reason::NotPermitted);
    assert!(!call(&mut budgets, 0, &[], &[]));

    let mut budgets = of(vec![budget(Count::BytesOut, 10)]);
    budgets.sent(0, coder(), CallId::new(), 9);
    assert!(call(&mut budgets, 0, &[], &[]));
    budgets.sent(0, coder(), CallId::new(), 2);
    assert!(!call(&mut budgets, 0, &[], &[]));
}

#[test]
fn a_record_that_grows_without_counting_is_not_read_again_for_ever() {
    let mut budgets = of(vec![budget(Count::Calls, 2)]);
    assert!(budgets.keep(5).is_some() && budgets.keep(5).is_none());
    assert_eq!(budgets.keep(9).map(|kept| kept.recorded), Some(5));
    assert_eq!(budgets.keep(12).map(|kept| kept.recorded), Some(9));
}

#[test]
fn what_was_counted_by_another_budget_of_the_name_is_not_taken_over() {
    let mut budgets = of(vec![budget(Count::Calls, 1)]);
    assert!(call(&mut budgets, 90_000_000, &[], &[]));
    let kept = serde_json::to_string(&budgets.keep(0)).unwrap();
    let again = |rule: Budget| {
        let mut budgets: Budgets<u64> = Budgets::restore(vec![rule], serde_json::from_str(&kept).unwrap(), 0);
        budgets.replayed();
        call(&mut budgets, 90_000_000, &[], &[])
    };
    assert!(!again(budget(Count::Calls, 1)) && again(budget(Count::Calls, 2)));
    // Its steps are of another length.
    assert!(again(Budget { window: 86_400_000, ..budget(Count::Calls, 1) }));
    assert!(again(Budget { per: Per::Session, ..budget(Count::Calls, 1) }));
}

#[test]
fn sessions_have_their_own_and_end() {
    let mut budgets = of(vec![Budget { per: Per::Session, window: 0, ..budget(Count::Calls, 1) }]);
    let other = Who { session: SessionId::new(), ..coder() };
    assert!(budgets.charge(0, coder(), CallId::new(), &[], &[]).1.is_empty());
    assert!(budgets.charge(0, other, CallId::new(), &[], &[]).1.is_empty());
    assert_eq!(budgets.charge(u64::MAX, other, CallId::new(), &[], &[]).1[0].of, other.session.to_string());
    assert_eq!(budgets.used(0).len(), 2);
    budgets.end_session(other.session);
    assert_eq!(budgets.used(0).len(), 1);
}

/// An intent as the record has it.
fn intent(id: CallId) -> CallIntent {
    let text = serde_json::json!({
        "id": id, "session": coder().session, "agent": "coder",
        "connection": "01890a5d-ac96-774b-bcce-b302099a8057", "at": "1970-01-01T00:00:00Z",
        "process": chaperone_model::ProcessFacts::default(), "method": "GET", "host": "h", "target": "/",
        "head": { "version": "HTTP/1.1", "headers": [] }, "call": null,
        "decision": { "verdict": "allow", "reason": "permitted", "policies": [], "policy_version": "", "message": "" },
    });
    serde_json::from_value(text).unwrap()
}

/// Calls that were under way when their counts were kept, and never came on record, had all places.
#[test]
fn a_recorded_call_counts_beside_those_that_were_lost() {
    let rules = vec![Budget { window: 0, ..budget(Count::Calls, 2) }];
    let mut budgets = of(rules.clone());
    for _ in 0..2 {
        assert!(budgets.charge(0, coder(), CallId::new(), &[], &[]).1.is_empty());
    }
    let kept = serde_json::to_string(&budgets.keep(0)).unwrap();
    let mut again: Budgets<u64> = Budgets::restore(rules, serde_json::from_str(&kept).unwrap(), 0);
    again.replay_intent(0, &intent(CallId::new()));
    again.replayed();
    assert_eq!(again.used(0)[0].used, 1);
}

proptest! {
    /// Whenever the daemon is killed, what it kept and the record give back exactly the calls that are on record.
    #[test]
    fn a_crash_loses_and_adds_nothing(steps in prop::collection::vec(0_u8..5, 0..60)) {
        let rules = vec![Budget { window: 0, ..budget(Count::Calls, 8) }];
        let (mut budgets, mut kept) = (of(rules.clone()), None);
        let mut record: Vec<CallId> = Vec::new();
        let mut under_way: VecDeque<(CallId, bool)> = VecDeque::new();
        for step in steps {
            match step {
                // A call comes, gets its record, learns of it, or is given up.
                0 => {
                    let id = CallId::new();
                    if budgets.charge(0, coder(), id, &[], &[]).1.is_empty() {
                        under_way.push_back((id, false));
                    } else {
                        budgets.release(id);
                    }
                }
                1 => if let Some(one) = under_way.iter_mut().find(|(_, recorded)| !recorded) {
                    budgets.recording(one.0);
                    one.1 = true;
                    record.push(one.0);
                },
                2 => if let Some((id, recorded)) = under_way.pop_front() {
                    if recorded { budgets.commit(id) } else { budgets.release(id) }
                },
                3 => {
                    // Only what has been committed for long is behind the place that is kept.
                    let end = record.len() as u64;
                    kept = budgets.keep(end).map(|kept| serde_json::to_string(&kept).unwrap()).or(kept);
                }
                _ => {
                    let read = kept.as_ref().map(|kept| serde_json::from_str(kept).unwrap());
                    budgets = Budgets::restore(rules.clone(), read, 0);
                    let from = usize::try_from(*budgets.recorded()).unwrap();
                    for id in &record[from..] {
                        budgets.replay_intent(0, &intent(*id));
                    }
                    budgets.replayed();
                    under_way.clear();
                    let used = budgets.used(0).first().map_or(0, |used| used.used);
                    prop_assert_eq!(used, record.len() as u64);
                }
            }
            prop_assert!(record.len() <= 8);
        }
    }
}
