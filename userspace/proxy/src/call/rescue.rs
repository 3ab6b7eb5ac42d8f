//! The one place where a call that isn't made becomes an answer in AWS's shape, and an outcome in the record.

use bytes::Bytes;
use chaperone_aws::{AwsError, error_response};
use chaperone_journal::JournalError;
use chaperone_model::{Decision, Direction, OutcomeStatus};
use http::Response;

use crate::{
    body::answer::AnswerBody,
    call::{
        error::{CallError, Kind},
        exchange::{AnswerFacts, Ending, Exchange},
        redact,
    },
    connection::quota::QuotaExceeded,
};

/// All that an agent is told of a call that didn't get to AWS. The record says why.
const UNREACHABLE: &str =
    "AWS could not be reached for this call; whoever runs Chaperone finds the reason in its record.";

/// Records why a request goes no further, with what it carried, and answers it.
pub(crate) async fn rescue(mut exchange: Exchange, error: CallError) -> Response<AnswerBody> {
    tracing::debug!(call = %exchange.id, blame = ?error.blame(), "a call isn't made");
    // The protocol as it was decoded, before the record takes the call.
    let call = exchange.call.as_ref();
    exchange.protocol = call.map_or(exchange.protocol, |call| call.protocol);
    let plane = exchange.connection.plane.clone();
    let (kind, message, outcome) = match error {
        // Of a call that was under way it isn't known whether AWS has it.
        CallError::Stopped(refusal) if exchange.has_intent() => (refusal.kind, refusal.message, OutcomeStatus::Aborted),
        CallError::Throttled(exceeded) => return throttled(exchange, &exceeded),
        CallError::Unrecorded(error) => return unrecorded(exchange, &error),
        CallError::Failed(failure) => {
            let (kind, outcome) = failure.kind();
            let message = failure.to_string();
            tracing::warn!(call = %exchange.id, host = exchange.host, error = message, "a call could not be carried out");
            (kind, message, outcome)
        }
        CallError::Denied(_) | CallError::Held(_) | CallError::Refused(_) | CallError::Stopped(_) => {
            plane.metrics.denied.inc();
            if let Err(exceeded) = exchange.connection.share.refuse() {
                return throttled(exchange, &exceeded);
            }
            let (kind, decision, outcome) = match error {
                CallError::Denied(decision) => (Kind::AccessDenied, *decision, OutcomeStatus::Denied),
                CallError::Held(decision) => (Kind::Unavailable, *decision, OutcomeStatus::Denied),
                CallError::Refused(refusal) | CallError::Stopped(refusal) => {
                    (refusal.kind, Decision::refused(refusal.reason, refusal.message), refusal.outcome)
                }
                CallError::Failed(_) | CallError::Throttled(_) | CallError::Unrecorded(_) => {
                    unreachable!("BUG: matched above")
                }
            };
            let message = decision.message.clone();
            let (reason, actions) = (decision.reason, counted_actions(&exchange));
            // A refusal changes nothing at AWS, so that it needn't be on disk before the agent knows.
            if let Err(error) = exchange.record_intent(decision, plane.journal.must_wait(false)).await {
                return unrecorded(exchange, &error);
            }
            plane.budgets.denied(exchange.who(), exchange.id, &actions, reason);
            (kind, message, outcome)
        }
    };
    exchange.record_unsent().await;
    let response = error_answer(&exchange, kind, &message);
    let mut recorder = plane.journal.body(exchange.id, Direction::Response);
    let _ = recorder.push(response.body().clone());
    let answer = Some(AnswerFacts {
        status: response.status().as_u16(),
        head: Some(redact::head(response.version(), response.headers())),
        aws_request_id: None,
        error_code: None,
        ttfb_us: None,
    });
    exchange.end(Ending { outcome, answer, response: Some(recorder.finish()), error: Some(message) });
    response.map(|bytes| AnswerBody::Whole(Some(bytes)))
}

/// The actions of a refused call, if there are budgets that count by them.
fn counted_actions(exchange: &Exchange) -> Vec<String> {
    match &exchange.call {
        Some(call) if !exchange.connection.plane.budgets.is_empty() => {
            call.actions.iter().map(|action| action.name.to_string()).collect()
        }
        _ => Vec::new(),
    }
}

/// There is no share left for it. How many there were is logged every ten seconds, and counted.
fn throttled(mut exchange: Exchange, exceeded: &QuotaExceeded) -> Response<AnswerBody> {
    if let Some(refused) = exceeded.told {
        let session = &exchange.connection.session.session;
        tracing::warn!(
            session = %session.id,
            agent = session.agent,
            refused,
            why = %exceeded,
            "requests were refused, and are not recorded one by one"
        );
    }
    exchange.forget();
    error_answer(&exchange, Kind::Throttled, &exceeded.to_string()).map(|bytes| AnswerBody::Whole(Some(bytes)))
}

/// The journal can't take it, so it doesn't happen.
fn unrecorded(exchange: Exchange, error: &JournalError) -> Response<AnswerBody> {
    exchange.connection.plane.metrics.unrecorded.inc();
    tracing::error!(call = %exchange.id, %error, "a call was refused because it can't be recorded");
    let message = "Chaperone can't record this call now, so it was not made. Please try again.";
    let kind = if matches!(error, JournalError::Share { .. }) { Kind::Throttled } else { Kind::Unavailable };
    let response = error_answer(&exchange, kind, message);
    // An intent that failed may be on disk nevertheless; its outcome then says that nothing was sent.
    let answer = Some(AnswerFacts {
        status: response.status().as_u16(),
        head: None,
        aws_request_id: None,
        error_code: None,
        ttfb_us: None,
    });
    exchange.end(Ending { outcome: OutcomeStatus::Failed, answer, response: None, error: Some(error.to_string()) });
    response.map(|bytes| AnswerBody::Whole(Some(bytes)))
}

fn error_answer(exchange: &Exchange, kind: Kind, message: &str) -> Response<Bytes> {
    let request_id = exchange.id.to_string();
    let message = if kind == Kind::Unreachable { UNREACHABLE } else { message };
    let (kind, status) = kind.spoken();
    let error =
        AwsError { protocol: exchange.protocol, service: exchange.service, kind, message, request_id: &request_id };
    let mut response = error_response(&error, &exchange.method);
    if let Some(status) = status {
        *response.status_mut() = status;
    }
    response
}
