//! Recorded calls for tests.

use std::{path::PathBuf, sync::Arc};

use chaperone_model::{
    Action, Call, CallId, CallIntent, CgroupId, ConnectionId, Decision, Event, Head, Payload, ProcessFacts, Protocol,
    Reason, References, Session, SessionId, SessionStarted, Verdict,
};
use chaperone_policy::{PolicyVersion, known_level};
use time::OffsetDateTime;

use super::recorded::{Judge, Sessions};
use crate::daemon::KnownActions;

/// A session and its calls.
pub struct Recorded {
    pub session: SessionId,
    sessions: Sessions,
}

pub fn session() -> Session {
    Session {
        id: SessionId::new(),
        agent: "coder".into(),
        groups: vec!["developers".into()],
        cgroup: CgroupId(1),
        cgroup_path: "/agents/coder".into(),
        container: None,
        parent: None,
        started: OffsetDateTime::now_utc(),
    }
}

impl Default for Recorded {
    fn default() -> Self {
        let session = session();
        let (id, mut sessions) = (session.id, Sessions::default());
        sessions.take(Event::SessionStarted(SessionStarted { session, host: "host".into() }));
        Self { session: id, sessions }
    }
}

impl Recorded {
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// A call that was permitted.
    pub fn call(&self, action: &str, resource: &str) -> CallIntent {
        let (prefix, name) = action.split_once(':').unwrap();
        let level = known_level(action, &KnownActions).unwrap();
        CallIntent {
            id: CallId::new(),
            session: self.session,
            agent: "coder".into(),
            connection: ConnectionId::new(),
            at: OffsetDateTime::now_utc(),
            process: Arc::new(ProcessFacts { exe: "/usr/bin/aws".into(), ..ProcessFacts::default() }),
            method: "GET".into(),
            host: format!("{prefix}.eu-west-1.amazonaws.com"),
            target: "/?x=y".into(),
            head: Head { version: "HTTP/1.1".into(), headers: vec![("content-length".into(), "5".into())] },
            call: Some(Call {
                partition: "aws".into(),
                region: Some("eu-west-1".into()),
                account: Some("123456789012".into()),
                service: prefix.to_owned().into(),
                signing_name: prefix.to_owned().into(),
                operation: name.to_owned().into(),
                candidates: vec![],
                protocol: Protocol::Json,
                actions: vec![Action { name: action.to_owned().into(), level }],
                resources: vec![resource.to_owned()],
                pairs: vec![],
                unknown: vec![],
                unread: vec![],
                references: References::default(),
                parameters: serde_json::Value::Null,
                looked_up: None,
                payload: Payload::None,
            }),
            decision: Decision {
                verdict: Verdict::Allow,
                reason: Reason::Permitted,
                policies: vec!["old".into()],
                policy_version: String::new(),
                message: String::new(),
            },
        }
    }
}

/// Decides by these policies.
pub fn judge(text: &str) -> Judge {
    let files = [(PathBuf::from("new.cedar"), text.to_owned())];
    Judge::new(PolicyVersion::parse(&files, &KnownActions).unwrap())
}
