//! What becomes of a call that is over a budget.

use chaperone_model::{Event, OperatorActed, Reason};
use chaperone_policy::budgets::{Over, OverBudget, Per};
use time::OffsetDateTime;

use crate::{
    budgets::Tally,
    call::{
        error::{Kind, Refusal},
        exchange::Exchange,
    },
    stops::{Stop, Stopped},
};

/// Why a call that is over budgets isn't made. It may stop whose call it is.
pub(super) fn refusal(exchange: &Exchange, tally: &Tally) -> Option<Refusal> {
    let over: Vec<_> = tally.budgets().iter().filter(|one| one.budget.over != OverBudget::Policy).collect();
    let first = over.first()?;
    let message = format!(
        "not permitted: the budget `{}` of `{}` is used up ({}); trying again doesn't help before its time is over",
        first.budget.name,
        first.of,
        first.budget.terms(),
    );
    if let Some(one) = over.iter().find(|one| one.budget.over == OverBudget::Stop) {
        stop(exchange, one);
    }
    Some(Refusal::denied(Kind::AccessDenied, Reason::OverBudget, message))
}

fn stop(exchange: &Exchange, over: &Over) {
    let plane = &exchange.connection.plane;
    let session = &exchange.connection.session.session;
    if plane.stops.of(session).is_some() {
        return;
    }
    let of = match over.budget.per {
        Per::Agent => Stopped::Agent(session.agent.clone()),
        Per::Session => Stopped::session(session, plane.stops.boot()),
    };
    let at = OffsetDateTime::now_utc();
    let reason = format!("the budget `{}` is used up: {}", over.budget.name, over.budget.terms());
    tracing::warn!(of = %of, reason, "stopped");
    let actor = chaperone_model::Actor { by: "budget".into(), uid: None, pid: None, login_uid: None, name: None };
    let acted = OperatorActed { at, actor, act: "stop".into(), on: Some(of.name()) };
    if let Err(error) = plane.journal.append_now(&Event::OperatorActed(Box::new(acted))) {
        tracing::error!(%error, "it could not be recorded that a budget stopped an agent");
    }
    let by = format!("budget {}", over.budget.name);
    plane.stops.stop(Stop { of, at, by, reason });
    let stops = plane.stops.clone();
    tokio::task::spawn_blocking(move || {
        if let Err(error) = stops.keep() {
            tracing::error!(%error, "stopped, but only until the daemon is started again");
        }
    });
}
