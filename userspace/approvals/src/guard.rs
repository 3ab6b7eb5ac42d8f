//! What every request must pass, and what every answer carries; and who a request is from.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use chaperone_model::Approver;
use tokio::time::timeout;

use crate::{
    Person,
    api::busy,
    limits::network,
    server::App,
    sessions::{Session, same},
    sign_in::{self, cookie},
    types::Problem,
};

/// For one request, its body and the provider's answers included.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a page of ours may do: nothing from elsewhere, no inline script, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, HeaderValue); 10] = [
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ),
    (header::VARY, HeaderValue::from_static("cookie, authorization")),
];

/// Bounds and headers around everything.
pub(crate) async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let mut response = match admit(&app, &mut request) {
        Err(problem) => problem.into_response(),
        Ok(()) => timeout(PATIENCE, next.run(request)).await.unwrap_or_else(|_| {
            let why = format!("this took longer than {} seconds", PATIENCE.as_secs());
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", why).into_response()
        }),
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, value);
    }
    response
}

/// The other end of a request's connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The address that a request comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address(pub(crate) IpAddr);

fn admit(app: &App, request: &mut Request) -> Result<(), Problem> {
    let peer = request.extensions().get::<Peer>().map_or(IpAddr::from([0; 4]), |it| it.0.ip());
    let forwarded = || {
        let last = request.headers().get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
        last.rsplit(',').next()?.trim().parse().ok()
    };
    // Whoever is behind the proxy could say what they like before what the proxy adds.
    let address = if app.behind_proxy { forwarded().unwrap_or(peer) } else { peer };
    request.extensions_mut().insert(Address(address));
    app.requests.take(&network(address)).map_err(busy)?;
    // A name that somebody else points here (DNS rebinding) is none of ours.
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    let own = app.origin.strip_prefix("https://").unwrap_or_default();
    if hosts.next().is_some() || host.strip_suffix(":443").unwrap_or(&host) != own {
        let why = format!("this is {}, and nothing else is here", app.origin);
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", why));
    }
    // Other sites' pages may lead here by a link, and may do nothing else.
    let said = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let is_link = request.method() == Method::GET && said("sec-fetch-mode") == Some("navigate");
    match said("sec-fetch-site") {
        Some("same-origin" | "none") | None => Ok(()),
        Some(_) if is_link => Ok(()),
        Some(site) => {
            let why = format!("another site's page asks for this (sec-fetch-site: {site})");
            Err(Problem::new(StatusCode::FORBIDDEN, "cross-site", why))
        }
    }
}

/// How somebody is known.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// By a token of an issuer's.
    Bearer,
    /// By a cookie.
    Session { id: String, session: Box<Session> },
}

/// Who a request is from.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// By what name they approve.
    pub(crate) name: String,
    pub(crate) person: Person,
    pub(crate) way: Way,
    pub(crate) address: IpAddr,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let address = parts.extensions.get::<Address>().map_or(IpAddr::from([0; 4]), |it| it.0);
        let caller = if parts.headers.contains_key(header::AUTHORIZATION) {
            Self::of_bearer(app, &parts.headers, address).await?
        } else {
            let caller = Self::of_session(app, &parts.headers, address)?;
            if !matches!(parts.method, Method::GET | Method::HEAD) {
                caller.meant(app, &parts.headers)?;
            }
            caller
        };
        app.people.take(&caller.name).map_err(busy)?;
        Ok(caller)
    }
}

impl Caller {
    fn of_session(app: &App, headers: &HeaderMap, address: IpAddr) -> Result<Self, Problem> {
        let id = cookie(headers, sign_in::SESSION);
        let session = id.and_then(|id| app.sessions.of(id).map(|session| (id.to_owned(), session)));
        let Some((id, session)) = session else {
            return Err(Problem::new(StatusCode::UNAUTHORIZED, "sign-in", "sign in first, at /sign-in"));
        };
        let (name, person) = (session.name.clone(), session.person.clone());
        Ok(Self { name, person, way: Way::Session { id, session: Box::new(session) }, address })
    }

    async fn of_bearer(app: &App, headers: &HeaderMap, address: IpAddr) -> Result<Self, Problem> {
        let refused = |why: &dyn std::fmt::Display| Problem::new(StatusCode::UNAUTHORIZED, "token", why);
        let mut all = headers.get_all(header::AUTHORIZATION).iter();
        let token = all.next().and_then(|value| value.to_str().ok()).and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        let (Some(token), None) = (token, all.next()) else {
            return Err(refused(&"authorization: one `Bearer` with a token is taken here"));
        };
        // Those who try are slowed down before a signature is verified for them.
        app.attempts.look(&network(address)).map_err(busy)?;
        let (verified, claims) = match app.bearers.verify_bearer(token).await {
            Ok(known) => known,
            Err(error) => {
                let _ = app.attempts.take(&network(address));
                tracing::info!(%address, %error, "a token was refused by the approvals' API");
                return Err(refused(&error));
            }
        };
        let person = sign_in::person(&verified.identity, chaperone_oidc::names(&claims));
        let name = app.backend.know(&person).await;
        let name = name.map_err(|why| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", why))?;
        Ok(Self { name, person, way: Way::Bearer, address })
    }

    /// A browser must have been told to do this by our own page.
    fn meant(&self, app: &App, headers: &HeaderMap) -> Result<(), Problem> {
        let refused = |why: &str| Problem::new(StatusCode::FORBIDDEN, "csrf", why);
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if text("origin") != Some(&app.origin) {
            return Err(refused("a request that changes something must say that it comes from our own page (origin)"));
        }
        let Way::Session { session, .. } = &self.way else { return Ok(()) };
        if !text("x-csrf-token").is_some_and(|token| same(token, &session.token)) {
            return Err(refused("x-csrf-token is not the one that /api/v1/me gives"));
        }
        Ok(())
    }

    /// Asks the provider what groups the caller is in now, where it can be asked.
    pub(crate) async fn ask_provider(&mut self, app: &App) -> Result<(), Problem> {
        let (Way::Session { session, .. }, Some(provider)) = (&self.way, &app.provider) else { return Ok(()) };
        if provider.about().groups_from != chaperone_oidc::GroupsFrom::Userinfo {
            return Ok(());
        }
        let unavailable = |why: &dyn std::fmt::Display| {
            let why =
                format!("your groups can't be had from the provider now, so that your answer doesn't count: {why}");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "provider", why)
        };
        self.person.groups = provider.groups_now(&session.signed_in).await.map_err(|error| unavailable(&error))?;
        self.name = app.backend.know(&self.person).await.map_err(|error| unavailable(&error))?;
        Ok(())
    }

    /// For the record.
    pub(crate) fn approver(&self, groups: Vec<String>) -> Approver {
        Approver {
            by: match self.way {
                Way::Bearer => "bearer",
                Way::Session { .. } => "https",
            }
            .into(),
            uid: None,
            pid: None,
            issuer: Some(self.person.issuer.clone()),
            subject: Some(self.person.subject.clone()),
            address: Some(self.address.to_string()),
            groups,
        }
    }
}
