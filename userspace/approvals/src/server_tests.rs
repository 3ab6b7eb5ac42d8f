use axum::{
    body::Body,
    http::{HeaderMap, Request, StatusCode},
};
use chaperone_oidc::SignedIn;
use serde_json::{Value, json};

use super::*;
use crate::{
    Person,
    fixture::{Desk, Provider},
    sign_in,
};

struct Site {
    app: Arc<App>,
    desk: Arc<Desk>,
    provider: Provider,
}

const OWN: &str = "https://approvals.example.com";

fn site() -> Site {
    let desk = Desk::new(&[("sre", &["group:corp:ops", "corp:zoe"]), ("security", &["group:corp:sec"])]);
    let provider = Provider::new();
    let text = format!(
        "listen = \"127.0.0.1:0\"\nurl = \"{OWN}\"\ninsecure_loopback = true\n[[issuers]]\nname = \"corp\"\n\
         issuer = \"https://login.example.com\"\naudiences = [\"approvals\"]\nalgorithms = [\"ES256\"]\n\
         groups = \"groups\"\njwks_file = \"{}\"\n",
        provider.jwks.display()
    );
    let section: ApiSection = toml::from_str(&text).unwrap();
    section.check().unwrap();
    let (app, _) = Api::new(&section).unwrap().app(desk.clone(), None);
    Site { app, desk, provider }
}

impl Site {
    /// Somebody in these groups of the provider's signs in: the session's cookie and token.
    async fn sign_in(&self, who: &str, groups: &[&str]) -> (String, String) {
        let token = self.provider.token(who, groups, "approvals");
        let (verified, claims) = self.app.bearers.verify_bearer(&token).await.unwrap();
        let also = chaperone_oidc::names(&claims);
        let person: Person = sign_in::person(&verified.identity, also.clone());
        let name = self.desk.know(&person).await.unwrap();
        let id = self.app.sessions.begin(name, person, SignedIn { verified, also, access: None });
        let token = self.app.sessions.of(&id).unwrap().token;
        (id, token)
    }

    async fn ask(&self, request: Request<Body>) -> (StatusCode, HeaderMap, Value) {
        let response = router(self.app.clone()).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        (parts.status, parts.headers, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }
}

fn get(path: &str, fields: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::get(path).header("host", "approvals.example.com");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

fn post(path: &str, fields: &[(&str, &str)], body: &Value) -> Request<Body> {
    let mut request = Request::post(path).header("host", "approvals.example.com");
    if fields.iter().all(|(name, _)| *name != "content-type") {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body.to_string())).unwrap()
}

fn cookie(id: &str) -> String {
    format!("theme=dark; {}={id}", sign_in::SESSION)
}

#[tokio::test]
async fn approvers_see_and_answer_the_questions_of_their_groups() {
    let site = site();
    let (own, other) = (site.desk.ask("sre", 1, None), site.desk.ask("security", 2, None));
    let (id, token) = site.sign_in("alice", &["ops"]).await;
    let cookie = cookie(&id);
    let (status, _, all) = site.ask(get("/api/v1/questions", &[("cookie", &cookie)])).await;
    assert_eq!((status, all["questions"].as_array().unwrap().len()), (StatusCode::OK, 1), "{all}");
    assert_eq!(all["questions"][0]["id"], own.to_string());
    assert_eq!(all["questions"][0]["about"]["directory"], "/usr");
    // Others' are as good as none, whatever is done to them.
    let fields = [("cookie", &*cookie), ("origin", OWN), ("x-csrf-token", &token)];
    for request in [
        get(&format!("/api/v1/questions/{other}"), &fields),
        post(&format!("/api/v1/questions/{other}/approve"), &fields, &json!({})),
        post(&format!("/api/v1/questions/{other}/deny"), &fields, &json!({})),
        post("/api/v1/questions/../approve", &fields, &json!({})),
    ] {
        assert_eq!(site.ask(request).await.0, StatusCode::NOT_FOUND);
    }
    let deny = post(&format!("/api/v1/questions/{own}/deny"), &fields, &json!({ "reason": "in use" }));
    let (status, _, denied) = site.ask(deny).await;
    assert_eq!((status, &denied["denied"]), (StatusCode::OK, &json!({ "by": "corp:alice", "reason": "in use" })));
    let again = post(&format!("/api/v1/questions/{own}/approve"), &fields, &json!({}));
    let (status, _, problem) = site.ask(again).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("not-pending")));
    let approver = site.desk.answers.lock()[0].clone();
    assert_eq!(
        (&*approver.by, approver.subject.as_deref(), &*approver.groups),
        ("https", Some("alice"), &["sre".to_owned()][..])
    );
}

/// The group is looked at when the answer is given, not when they signed in.
#[tokio::test]
async fn who_is_taken_out_of_a_group_answers_no_more() {
    let site = site();
    let own = site.desk.ask("sre", 1, None);
    let (id, token) = site.sign_in("zoe", &[]).await;
    let cookie = cookie(&id);
    let fields = [("cookie", &*cookie), ("origin", OWN), ("x-csrf-token", &token)];
    assert_eq!(site.ask(get(&format!("/api/v1/questions/{own}"), &fields)).await.0, StatusCode::OK);
    site.desk.groups.lock().insert("sre".into(), vec!["corp:alice".into()]);
    let approve = post(&format!("/api/v1/questions/{own}/approve"), &fields, &json!({}));
    assert_eq!(site.ask(approve).await.0, StatusCode::NOT_FOUND);
}

/// By whatever name the token has for them.
#[tokio::test]
async fn the_sponsor_approves_nothing_for_their_own_agent() {
    let site = site();
    let (id, token) = site.sign_in("alice", &["ops"]).await;
    let cookie = cookie(&id);
    let fields = [("cookie", &*cookie), ("origin", OWN), ("x-csrf-token", &token)];
    for (number, sponsor) in [(1, "alice"), (2, "corp:alice"), (3, "alice@example.com")] {
        let own = site.desk.ask("sre", number, Some(sponsor));
        let approve = post(&format!("/api/v1/questions/{own}/approve"), &fields, &json!({}));
        let (status, _, problem) = site.ask(approve).await;
        assert_eq!((status, &problem["code"]), (StatusCode::FORBIDDEN, &json!("sponsor")), "{sponsor}");
        let deny = post(&format!("/api/v1/questions/{own}/deny"), &fields, &json!({}));
        assert_eq!(site.ask(deny).await.0, StatusCode::OK);
    }
}

#[tokio::test]
async fn another_sites_page_changes_nothing() {
    let site = site();
    let own = site.desk.ask("sre", 1, None);
    let path = format!("/api/v1/questions/{own}/approve");
    let (id, token) = site.sign_in("alice", &["ops"]).await;
    let (_, others) = site.sign_in("bob", &["ops"]).await;
    let cookie = cookie(&id);
    let with = |more: &[(&'static str, &str)]| {
        let mut fields = vec![("cookie", &*cookie)];
        fields.extend_from_slice(more);
        post(&path, &fields, &json!({}))
    };
    for request in [
        with(&[]),
        with(&[("origin", OWN)]),
        with(&[("x-csrf-token", &token)]),
        with(&[("x-csrf-token", &others), ("origin", OWN)]),
        with(&[("x-csrf-token", ""), ("origin", OWN)]),
        with(&[("x-csrf-token", &token), ("origin", "null")]),
        with(&[("x-csrf-token", &token), ("origin", "https://evil.example")]),
        with(&[("x-csrf-token", &token), ("origin", "https://approvals.example.com.evil.example")]),
        with(&[("x-csrf-token", &token), ("origin", OWN), ("sec-fetch-site", "cross-site")]),
        with(&[("x-csrf-token", &token), ("origin", OWN), ("sec-fetch-site", "same-site")]),
        with(&[
            ("x-csrf-token", &token),
            ("origin", OWN),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
        ]),
    ] {
        let shown = format!("{:?}", request.headers());
        assert_eq!(site.ask(request).await.0, StatusCode::FORBIDDEN, "{shown}");
    }
    // What a form of another site can send isn't read.
    let form = [("cookie", &*cookie), ("origin", OWN), ("x-csrf-token", &token), ("content-type", "text/plain")];
    assert_eq!(site.ask(post(&path, &form, &json!({}))).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(site.desk.questions()[0].state.as_str(), "pending");
    // By no other way than POST either, and by no other name.
    assert_eq!(site.ask(get(&path, &[("cookie", &cookie)])).await.0, StatusCode::METHOD_NOT_ALLOWED);
    for host in ["evil.example", "127.0.0.1:8443", "approvals.example.com:8443", ""] {
        let mut rebound = get("/api/v1/questions", &[("cookie", &cookie)]);
        rebound.headers_mut().insert("host", host.parse().unwrap());
        assert_eq!(site.ask(rebound).await.0, StatusCode::MISDIRECTED_REQUEST, "{host}");
    }
    let right = with(&[("x-csrf-token", &token), ("origin", OWN), ("sec-fetch-site", "same-origin")]);
    assert_eq!(site.ask(right).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_session_is_whose_id_was_made_at_their_sign_in() {
    let site = site();
    let (first, _) = site.sign_in("alice", &["ops"]).await;
    let (second, token) = site.sign_in("alice", &["ops"]).await;
    assert_ne!(first, second);
    let me = |id: &str| get("/api/v1/me", &[("cookie", &cookie(id))]);
    for wrong in ["", "x", &first[1..], &format!("{first}A")] {
        assert_eq!(site.ask(me(wrong)).await.0, StatusCode::UNAUTHORIZED, "{wrong}");
    }
    // Two cookies of one name: one of them is somebody else's.
    let both = format!("{0}={first}; {0}={second}", sign_in::SESSION);
    assert_eq!(site.ask(get("/api/v1/me", &[("cookie", &both)])).await.0, StatusCode::UNAUTHORIZED);
    let (status, _, who) = site.ask(me(&second)).await;
    assert_eq!((status, &who["name"], &who["groups"]), (StatusCode::OK, &json!("corp:alice"), &json!(["sre"])));
    let second_cookie = cookie(&second);
    let out =
        post("/api/v1/sign-out", &[("cookie", &*second_cookie), ("origin", OWN), ("x-csrf-token", &token)], &json!({}));
    let (status, headers, _) = site.ask(out).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert!(headers["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(site.ask(me(&second)).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(site.ask(me(&first)).await.0, StatusCode::OK);
}

#[tokio::test]
async fn programs_bring_a_token_of_a_configured_issuer() {
    let site = site();
    let own = site.desk.ask("sre", 1, None);
    let bearer = |token: &str| format!("Bearer {token}");
    let good = bearer(&site.provider.token("robot", &["ops"], "approvals"));
    for wrong in [
        bearer(&site.provider.token("robot", &["ops"], "somebody-else")),
        bearer(&Provider::new().token("robot", &["ops"], "approvals")),
        "Basic cm9ib3Q6eA==".to_owned(),
        "Bearer".to_owned(),
        "Bearer a.b.c".to_owned(),
    ] {
        let (status, _, problem) = site.ask(get("/api/v1/questions", &[("authorization", &wrong)])).await;
        assert_eq!((status, &problem["code"]), (StatusCode::UNAUTHORIZED, &json!("token")), "{wrong}");
    }
    let approve = post(
        &format!("/api/v1/questions/{own}/approve"),
        &[("authorization", &good)],
        &json!({ "for": "session", "minutes": 5, "reason": "planned" }),
    );
    let (status, _, approved) = site.ask(approve).await;
    assert_eq!(
        (status, &approved["state"], &approved["votes"][0]["for"]),
        (StatusCode::OK, &json!("approved"), &json!("session"))
    );
    assert!(approved["votes"][0]["until"].as_str().unwrap().ends_with('Z'), "{approved}");
    // A token that is refused isn't helped by a cookie.
    let (id, _) = site.sign_in("alice", &["ops"]).await;
    let both = get("/api/v1/me", &[("authorization", "Bearer x"), ("cookie", &cookie(&id))]);
    assert_eq!(site.ask(both).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn answers_are_read_whole_or_not_at_all() {
    let site = site();
    let own = site.desk.ask("sre", 1, None);
    let good = format!("Bearer {}", site.provider.token("robot", &["ops"], "approvals"));
    let path = format!("/api/v1/questions/{own}/approve");
    for (wrong, status) in [
        (json!({ "for": "ever" }), StatusCode::UNPROCESSABLE_ENTITY),
        (json!({ "for": "once", "minutes": 5 }), StatusCode::BAD_REQUEST),
        (json!({ "for": "agent", "minutes": 0 }), StatusCode::BAD_REQUEST),
        (json!({ "for": "agent", "minutes": 99_999 }), StatusCode::BAD_REQUEST),
        (json!({ "reason": "x".repeat(2001) }), StatusCode::BAD_REQUEST),
        (json!({ "reason": "a\nb" }), StatusCode::BAD_REQUEST),
        (json!({ "reasn": "x" }), StatusCode::UNPROCESSABLE_ENTITY),
        (json!({ "reason": "x".repeat(70_000) }), StatusCode::PAYLOAD_TOO_LARGE),
        (json!(["x"]), StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let (found, headers, problem) = site.ask(post(&path, &[("authorization", &good)], &wrong)).await;
        assert_eq!(found, status, "{problem}");
        assert_eq!(headers["content-type"], "application/problem+json");
    }
    let (status, ..) = site.ask(get("/api/v1/questions?endd=true", &[("authorization", &good)])).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(site.desk.questions()[0].state.as_str(), "pending");
}

#[tokio::test]
async fn nothing_frames_the_page_or_runs_script_in_it() {
    let site = site();
    for path in ["/", "/app.js", "/openapi.json", "/api/v1/me", "/nowhere", "/sign-in"] {
        let (_, headers, _) = site.ask(get(path, &[])).await;
        let text = |name: &str| headers[name].to_str().unwrap().to_owned();
        let policy = text("content-security-policy");
        assert!(policy.contains("frame-ancestors 'none'") && policy.contains("default-src 'none'"), "{path}: {policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!((&*text("x-frame-options"), &*text("x-content-type-options")), ("DENY", "nosniff"));
        assert_eq!((&*text("referrer-policy"), &*text("cache-control")), ("no-referrer", "no-store"));
        assert!(!headers.contains_key("access-control-allow-origin"));
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_too_often_waits() {
    let site = site();
    let from = |address: &str| get("/", &[("x-forwarded-for", address)]);
    let mut refused = None;
    for count in 0..1000 {
        let (status, headers, _) = site.ask(from("1.1.1.1, 192.0.2.1")).await;
        if status == StatusCode::TOO_MANY_REQUESTS {
            assert!(headers.contains_key("retry-after"));
            refused = Some(count);
            break;
        }
    }
    assert_eq!(refused, Some(600));
    // What a client says itself of where it comes from helps it nothing, and others are served.
    assert_eq!(site.ask(from("2.2.2.2, 192.0.2.1")).await.0, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(site.ask(from("192.0.2.2")).await.0, StatusCode::OK);
    // A person has so many answers in a minute, from wherever.
    let own = site.desk.ask("sre", 1, None);
    let good = format!("Bearer {}", site.provider.token("robot", &["ops"], "approvals"));
    let path = format!("/api/v1/questions/{own}/approve");
    let mut statuses = Vec::new();
    for count in 0..31 {
        let address = format!("198.51.100.{count}");
        let fields = [("authorization", &*good), ("x-forwarded-for", &*address)];
        statuses.push(site.ask(post(&path, &fields, &json!({}))).await.0);
    }
    assert_eq!((statuses[0], statuses[30]), (StatusCode::OK, StatusCode::TOO_MANY_REQUESTS), "{statuses:?}");
    // Tokens that are refused are counted by address.
    let mut statuses = Vec::new();
    for _ in 0..21 {
        let fields = [("authorization", "Bearer a.b.c"), ("x-forwarded-for", "203.0.113.1")];
        statuses.push(site.ask(get("/api/v1/me", &fields)).await.0);
    }
    assert_eq!((statuses[19], statuses[20]), (StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS), "{statuses:?}");
}
