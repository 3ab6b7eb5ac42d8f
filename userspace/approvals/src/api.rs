//! What approvers can ask for.

#![allow(unused_qualifications)] // in what `utoipa::path` makes of a parameter's type

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, Query, State, rejection::JsonRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chaperone_model::ApprovalId;
use chaperone_policy::approvals::{Answer, AnswerError, Asking, Scope};
use serde::Deserialize;
use time::OffsetDateTime;
use utoipa::IntoParams;

use crate::{
    Refused,
    guard::{Caller, Way},
    server::App,
    sign_in,
    types::{Approve, Deny, MOST_MINUTES, MOST_REASON, Me, Object, Problem, Question, Questions},
};

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &str, detail: impl std::fmt::Display) -> Self {
        Self { status: status.as_u16(), code: code.to_owned(), detail: detail.to_string(), more: BTreeMap::new() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = HeaderValue::from_static("application/problem+json");
        let after = self.more.get("retry_after").and_then(serde_json::Value::as_u64);
        let mut response = (status, Json(self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if let Some(seconds) = after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// Which questions.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Which {
    /// Those of the last day that are over, too.
    ended: bool,
}

/// The questions that the approver may answer, which are those of their groups.
#[utoipa::path(
    get, path = "/api/v1/questions", tag = "questions", operation_id = "listQuestions", params(Which),
    security(("session" = []), ("bearer" = [])),
    responses((status = 200, description = "Questions, the oldest first", body = Questions), (status = "4XX", description = "Why not", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    which: Result<Query<Which>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Questions>, Problem> {
    let Query(Which { ended }) = which.map_err(|error| Problem::new(error.status(), "bad-request", error))?;
    let (all, groups) = (app.backend.questions(), app.backend.groups(&caller.name));
    let wanted = all.iter().filter(|asking| (ended || asking.state.is_open()) && is_theirs(asking, &groups));
    Ok(Json(Questions { questions: wanted.map(|asking| Question::of(asking, &all)).collect() }))
}

/// One of them.
#[utoipa::path(
    get, path = "/api/v1/questions/{id}", tag = "questions", operation_id = "showQuestion",
    params(("id" = String, Path, description = "The question, a UUID", format = Uuid)),
    security(("session" = []), ("bearer" = [])),
    responses((status = 200, description = "The question, as it is now", body = Question), (status = "4XX", description = "Why not", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Question>, Problem> {
    let id = theirs(&app, &caller, &id)?;
    shown(&app, id)
}

/// Allow the call. Others may have to, too: then the question stays pending.
#[utoipa::path(
    post, path = "/api/v1/questions/{id}/approve", tag = "questions", operation_id = "approveQuestion",
    params(("id" = String, Path, description = "The question, a UUID", format = Uuid)), request_body = Approve,
    security(("session" = [], "csrf" = []), ("bearer" = [])),
    responses(
        (status = 200, description = "The question, as it is now", body = Question),
        (status = "4XX", description = "Why not", body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "The answer doesn't count"),
    )
)]
pub(crate) async fn approve(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    body: Result<Json<Object<Approve>>, JsonRejection>,
) -> Result<Json<Question>, Problem> {
    let Json(Object(Approve { reason, reach, minutes })) = body.map_err(unreadable)?;
    let scope = Scope::from(reach);
    let until = match (scope, minutes) {
        (Scope::Once, None) => 0,
        (Scope::Once, Some(_)) => {
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "bad-request",
                "minutes: an approval for once has no end of its own; leave it out, or say for what else it is",
            ));
        }
        (_, minutes) => {
            let minutes = minutes.unwrap_or(60);
            if !(1..=MOST_MINUTES).contains(&minutes) {
                let why = format!("minutes = {minutes}: from 1 to {MOST_MINUTES}");
                return Err(Problem::new(StatusCode::BAD_REQUEST, "bad-request", why));
            }
            let until = OffsetDateTime::now_utc() + Duration::from_secs(minutes * 60);
            u64::try_from(until.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
        }
    };
    let answer = Answer { by: caller.name.clone(), allow: true, reason, scope, until };
    give(&app, caller, &id, answer).await
}

/// Refuse the call. Its client is told why.
#[utoipa::path(
    post, path = "/api/v1/questions/{id}/deny", tag = "questions", operation_id = "denyQuestion",
    params(("id" = String, Path, description = "The question, a UUID", format = Uuid)), request_body = Deny,
    security(("session" = [], "csrf" = []), ("bearer" = [])),
    responses(
        (status = 200, description = "The question, as it is now", body = Question),
        (status = "4XX", description = "Why not", body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "The answer doesn't count"),
    )
)]
pub(crate) async fn deny(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    body: Result<Json<Object<Deny>>, JsonRejection>,
) -> Result<Json<Question>, Problem> {
    let Json(Object(Deny { reason })) = body.map_err(unreadable)?;
    let answer = Answer { by: caller.name.clone(), allow: false, reason, scope: Scope::Once, until: 0 };
    give(&app, caller, &id, answer).await
}

/// Who asks, and what a browser must send to change something.
#[utoipa::path(
    get, path = "/api/v1/me", tag = "me", operation_id = "me", security(("session" = []), ("bearer" = [])),
    responses((status = 200, description = "Who asks", body = Me), (status = "4XX", description = "Why not", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn me(State(app): State<Arc<App>>, caller: Caller) -> Json<Me> {
    let (csrf_token, session_ends) = match &caller.way {
        Way::Bearer => (None, None),
        Way::Session { session, .. } => (Some(session.token.clone()), Some(session.ends)),
    };
    Json(Me {
        groups: app.backend.groups(&caller.name),
        name: caller.name,
        display_name: caller.person.display_name,
        issuer: caller.person.issuer,
        subject: caller.person.subject,
        csrf_token,
        session_ends,
    })
}

/// Ends the session.
#[utoipa::path(
    post, path = "/api/v1/sign-out", tag = "me", operation_id = "signOut", security(("session" = [], "csrf" = [])),
    responses((status = 204, description = "The session is over"), (status = "4XX", description = "Why not", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn sign_out(State(app): State<Arc<App>>, caller: Caller) -> Response {
    if let Way::Session { id, .. } = &caller.way {
        app.sessions.end(id);
    }
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, sign_in::forget(sign_in::SESSION))]).into_response()
}

/// Whether somebody in these groups may see it: they may if they may answer it.
fn is_theirs(asking: &Asking, groups: &[String]) -> bool {
    asking.asked.requirements.iter().flat_map(|one| &one.groups).any(|group| groups.contains(group))
}

/// The question's id, if it is one of the caller's. Others' are as good as none.
fn theirs(app: &App, caller: &Caller, id: &str) -> Result<ApprovalId, Problem> {
    let groups = app.backend.groups(&caller.name);
    let all = app.backend.questions();
    let found = all.iter().find(|asking| asking.id.to_string() == id && is_theirs(asking, &groups));
    found.map(|asking| asking.id).ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "not-found", "there is no such question that you may answer")
    })
}

fn shown(app: &App, id: ApprovalId) -> Result<Json<Question>, Problem> {
    let all = app.backend.questions();
    let asking = all.iter().find(|asking| asking.id == id);
    let asking = asking.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "not-found", "the question is forgotten"))?;
    Ok(Json(Question::of(asking, &all)))
}

/// Gives an answer, by the groups that the caller is in now.
async fn give(app: &App, mut caller: Caller, id: &str, answer: Answer) -> Result<Json<Question>, Problem> {
    app.answers.take(&caller.name).map_err(busy)?;
    if answer.reason.len() > MOST_REASON {
        let why = format!("the reason has {} bytes: at most {MOST_REASON} are taken", answer.reason.len());
        return Err(Problem::new(StatusCode::BAD_REQUEST, "bad-request", why));
    }
    if answer.reason.chars().any(char::is_control) {
        let why = "the reason must be one line, without control characters";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "bad-request", why));
    }
    caller.ask_provider(app).await?;
    let id = theirs(app, &caller, id)?;
    let allow = answer.allow;
    let approver = caller.approver(app.backend.groups(&caller.name));
    match app.backend.answer(id, answer, approver).await {
        Ok(asking) => {
            tracing::info!(
                approval = %id, by = caller.name, address = %caller.address, allow, state = asking.state.as_str(),
                "a question was answered over HTTPS"
            );
            shown(app, id)
        }
        Err(Refused::Answer(error)) => {
            let (status, code) = match error {
                AnswerError::Unknown(_) => (StatusCode::NOT_FOUND, "not-found"),
                AnswerError::Over(_) => (StatusCode::CONFLICT, "not-pending"),
                AnswerError::NotYours { .. } => (StatusCode::FORBIDDEN, "forbidden"),
                AnswerError::Sponsor(_) => (StatusCode::FORBIDDEN, "sponsor"),
                AnswerError::Twice(_) => (StatusCode::CONFLICT, "twice"),
            };
            Err(Problem::new(status, code, error))
        }
        Err(error @ Refused::Unavailable(_)) => {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error))
        }
    }
}

pub(crate) fn busy(seconds: u64) -> Problem {
    let why = format!("too many requests; come again in {seconds} seconds");
    let mut problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "busy", why);
    problem.more.insert("retry_after".into(), seconds.into());
    problem
}

#[allow(clippy::needless_pass_by_value)] // as `map_err` has it
fn unreadable(error: JsonRejection) -> Problem {
    Problem::new(error.status(), "bad-request", error.body_text())
}
