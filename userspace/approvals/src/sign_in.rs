//! Signing in: to the provider and back.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{AppendHeaders, Html, IntoResponse, Redirect, Response},
};
use chaperone_model::Identity;
use chaperone_oidc::Begun;
use serde::Deserialize;

use crate::{Person, api::busy, guard::Address, limits::network, page, server::App, sessions::same, types::Problem};

/// The session's cookie. It goes with requests of our own pages alone.
pub(crate) const SESSION: &str = "__Host-chaperone-session";
/// The cookie of a sign-in under way, which must come along when the provider's page leads back here.
const UNDER_WAY: &str = "__Host-chaperone-sign-in";
/// How long a sign-in may take.
const LIFE: Duration = Duration::from_mins(10);
/// The longest code and state of a provider.
const MOST: usize = 4096;

/// Leads to the provider.
pub(crate) async fn begin(
    State(app): State<Arc<App>>,
    Extension(Address(address)): Extension<Address>,
) -> Result<Response, Problem> {
    let provider = provider(&app)?;
    app.attempts.take(&network(address)).map_err(busy)?;
    let (url, begun) = provider.begin().await.map_err(|error| {
        tracing::error!(%error, "approvers can't sign in");
        Problem::new(StatusCode::BAD_GATEWAY, "provider", error)
    })?;
    let sealed = app
        .seal
        .seal(&begun, LIFE)
        .ok_or_else(|| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "BUG: a sign-in can't be sealed"))?;
    let cookie = set(UNDER_WAY, &sealed, "Lax", LIFE);
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(&url)).into_response())
}

/// What the provider says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Back {
    code: Option<String>,
    state: Option<String>,
    iss: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// Comes back from the provider.
pub(crate) async fn back(
    State(app): State<Arc<App>>,
    Extension(Address(address)): Extension<Address>,
    headers: HeaderMap,
    Query(back): Query<Back>,
) -> Response {
    match finish(&app, address, &headers, back).await {
        // Not a redirection: this navigation began at the provider's page, and the cookie goes with our own alone.
        Ok(session) => {
            let cookies = [
                (header::SET_COOKIE, set(SESSION, &session, "Strict", app.session)),
                (header::SET_COOKIE, forget(UNDER_WAY)),
            ];
            (AppendHeaders(cookies), Html(page::SIGNED_IN)).into_response()
        }
        Err(problem) => {
            tracing::info!(%address, why = problem.detail, "somebody could not sign in as an approver");
            let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST);
            (status, [(header::SET_COOKIE, forget(UNDER_WAY))], Html(page::failed(&problem.detail))).into_response()
        }
    }
}

async fn finish(app: &App, address: std::net::IpAddr, headers: &HeaderMap, back: Back) -> Result<String, Problem> {
    let provider = provider(app)?;
    let refused = |why: String| Problem::new(StatusCode::BAD_REQUEST, "sign-in", why);
    app.attempts.take(&network(address)).map_err(busy)?;
    let begun = cookie(headers, UNDER_WAY).and_then(|sealed| app.seal.open::<Begun>(sealed));
    let begun = begun.ok_or_else(|| {
        refused("this browser hasn't begun to sign in here, or did so more than ten minutes ago; begin anew".into())
    })?;
    if !back.state.as_deref().is_some_and(|state| state.len() <= MOST && same(state, &begun.state)) {
        return Err(refused("this is not the sign-in that this browser began; begin anew".into()));
    }
    // RFC 9207: an answer of another provider, which the browser was led to in between.
    if back.iss.is_some_and(|issuer| issuer != provider.about().issuer) {
        return Err(refused("another provider answers than was asked".into()));
    }
    if let Some(error) = back.error {
        let said: String = back.error_description.unwrap_or(error).chars().take(300).collect();
        return Err(refused(format!("the provider refuses: {said}")));
    }
    let code = back.code.filter(|code| code.len() <= MOST).ok_or_else(|| refused("there is no code".into()))?;
    let signed_in = provider.finish(begun, code).await.map_err(|error| {
        let status = match error {
            chaperone_oidc::SignInError::Provider(_) => StatusCode::BAD_GATEWAY,
            _ => StatusCode::FORBIDDEN,
        };
        Problem::new(status, "sign-in", error)
    })?;
    let person = person(&signed_in.verified.identity, signed_in.also.clone());
    let name = app.backend.know(&person).await;
    let name = name.map_err(|why| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", why))?;
    let groups = app.backend.groups(&name);
    if groups.is_empty() {
        let why = format!("you are {name}, and in none of the approvers' groups of this host");
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", why));
    }
    // Who was signed in here before isn't any more.
    if let Some(before) = cookie(headers, SESSION) {
        app.sessions.end(before);
    }
    tracing::info!(approver = name, %address, groups = groups.join(" "), "an approver signed in");
    Ok(app.sessions.begin(name, person, signed_in))
}

fn provider(app: &App) -> Result<&chaperone_oidc::RelyingParty, Problem> {
    app.provider.as_ref().ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "not-found",
            "nobody signs in here: [approvals.api.sign_in] isn't configured",
        )
    })
}

/// Somebody, as their token says.
pub(crate) fn person(identity: &Identity, also: Vec<String>) -> Person {
    Person {
        provider: identity.provider.clone(),
        issuer: identity.issuer.clone(),
        subject: identity.subject.clone(),
        groups: identity.groups.clone(),
        also,
        display_name: identity.display_name.clone(),
    }
}

/// The cookie of that name; none, if there are several.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut found = all
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value);
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

fn set(name: &str, value: &str, same_site: &str, life: Duration) -> String {
    format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite={same_site}; Max-Age={}", life.as_secs())
}

/// Takes a cookie away.
pub(crate) fn forget(name: &str) -> String {
    set(name, "", "Strict", Duration::ZERO)
}
