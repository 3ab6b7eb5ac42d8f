//! Events for this crate's tests.

use std::sync::Arc;

use chaperone_model::{
    AccessLevel, Action, BodyDigest, Call, CallId, CallIntent, CallOutcome, CgroupId, CommandId, CommandStarted,
    ConnectionId, Container, Decision, Event, Head, OutcomeStatus, Payload, ProcessFacts, Protocol, Reason, Session,
    SessionId, SessionStarted, Verdict,
};
use time::OffsetDateTime;

pub(crate) fn session() -> Session {
    Session {
        id: SessionId::new(),
        agent: "coder".into(),
        groups: vec!["agents".into()],
        cgroup: CgroupId(42),
        cgroup_path: "/agents/coder".into(),
        container: Some(Container {
            id: "6a".repeat(32),
            name: "named".into(),
            image: "example.com/agents/coder:1".into(),
            image_id: "18".repeat(32),
            labels: [("team".into(), "red".into()), ("purpose".into(), "it's \"x\"".into())].into(),
        }),
        parent: Some(SessionId::new()),
        started: OffsetDateTime::now_utc(),
    }
}

pub(crate) fn session_started(session: &Session) -> Event {
    Event::SessionStarted(SessionStarted { session: session.clone(), host: "host".into() })
}

pub(crate) fn command(session: Option<SessionId>, argv: &[&str]) -> CommandStarted {
    CommandStarted {
        id: CommandId::new(),
        session,
        parent: Some(CommandId::new()),
        at: OffsetDateTime::now_utc(),
        pid: 7,
        parent_pid: 6,
        uid: 1000,
        cgroup: CgroupId(42),
        exe: "/usr/bin/aws".into(),
        exe_sha256: Some("ab".repeat(32)),
        argv: argv.iter().map(|&argument| argument.into()).collect(),
        argv_cut: false,
        directory: "/home/coder".into(),
        found: false,
    }
}

pub(crate) fn intent(id: CallId, session: SessionId) -> Event {
    Event::CallIntent(Box::new(CallIntent {
        id,
        session,
        agent: "coder".into(),
        connection: ConnectionId::new(),
        at: OffsetDateTime::now_utc(),
        process: Arc::new(ProcessFacts {
            pid: 7,
            uid: 1000,
            exe: "/usr/bin/aws".into(),
            argv: vec!["aws".into()],
            command: None,
        }),
        method: "PUT".into(),
        host: "bucket.s3.eu-west-1.amazonaws.com".into(),
        target: "/key".into(),
        head: Head { version: "HTTP/1.1".into(), headers: vec![("content-length".into(), "5".into())] },
        call: Some(Call {
            partition: "aws".into(),
            region: Some("eu-west-1".into()),
            account: Some("123456789012".into()),
            service: "s3".into(),
            signing_name: "s3".into(),
            operation: "PutObject".into(),
            candidates: Vec::new(),
            protocol: Protocol::RestXml,
            actions: vec![Action { name: "s3:PutObject".into(), level: AccessLevel::Write }],
            resources: vec!["arn:aws:s3:::bucket/key".into()],
            pairs: Vec::new(),
            unknown: Vec::new(),
            unread: Vec::new(),
            references: chaperone_model::References::default(),
            parameters: serde_json::Value::Null,
            looked_up: None,
            payload: Payload::DeclaredHash,
        }),
        decision: Decision {
            verdict: Verdict::Allow,
            reason: Reason::Permitted,
            policies: vec!["permit-all".into()],
            policy_version: "00".into(),
            message: "permitted".into(),
        },
    }))
}

pub(crate) fn outcome(
    id: CallId,
    session: SessionId,
    request: Option<BodyDigest>,
    response: Option<BodyDigest>,
) -> Event {
    Event::CallOutcome(Box::new(CallOutcome {
        id,
        session,
        at: OffsetDateTime::now_utc(),
        outcome: OutcomeStatus::Completed,
        status: Some(200),
        aws_request_id: Some("R".into()),
        error_code: None,
        error: None,
        head: Some(Head::default()),
        request,
        request_payload: None,
        response,
        duration_us: 1234,
        ttfb_us: Some(1000),
        masked: Vec::new(),
        unmasked: Vec::new(),
    }))
}
