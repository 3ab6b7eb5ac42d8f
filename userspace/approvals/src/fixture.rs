//! What the tests of this crate share: a daemon without calls, whose questions are the real state machine's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::Arc,
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chaperone_model::{ApprovalId, Approver, CallId, Event, SessionId};
use chaperone_policy::approvals::{
    Answer, Approvals, Asked, Asking, Fingerprint, People, Requirement, Standing, Terms,
};
use parking_lot::Mutex;
use serde_json::json;
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::{Backend, BoxFuture, Person, Refused};

pub(crate) struct Desk {
    state: Mutex<Approvals>,
    /// Members of approvers' groups.
    pub(crate) groups: Mutex<BTreeMap<String, Vec<String>>>,
    people: Mutex<BTreeMap<String, Person>>,
    changes: watch::Sender<u64>,
    pub(crate) events: Mutex<Vec<Event>>,
    pub(crate) answers: Mutex<Vec<Approver>>,
}

impl People for Desk {
    fn groups(&self, approver: &str) -> Vec<String> {
        let people = self.people.lock();
        let claimed = people.get(approver).map(|person| person.groups.clone()).unwrap_or_default();
        let groups = self.groups.lock();
        let is_in = |members: &[String]| {
            members.iter().any(|one| {
                one == approver || one.strip_prefix("group:").is_some_and(|it| claimed.contains(&it.to_owned()))
            })
        };
        groups.iter().filter(|(_, members)| is_in(members)).map(|(name, _)| name.clone()).collect()
    }

    fn is_sponsor(&self, approver: &str, sponsor: &str) -> bool {
        approver == sponsor || self.people.lock().get(approver).is_some_and(|it| it.also.contains(&sponsor.to_owned()))
    }
}

fn now() -> u64 {
    crate::messages::millis(OffsetDateTime::now_utc())
}

impl Desk {
    pub(crate) fn new(groups: &[(&str, &[&str])]) -> Arc<Self> {
        let of = |(name, members): &(&str, &[&str])| {
            ((*name).to_owned(), members.iter().map(|&member| member.to_owned()).collect())
        };
        Arc::new(Self {
            state: Mutex::new(Approvals::new(Terms::default())),
            groups: Mutex::new(groups.iter().map(of).collect()),
            people: Mutex::default(),
            changes: watch::Sender::new(0),
            events: Mutex::default(),
            answers: Mutex::default(),
        })
    }

    /// A question to that group, numbered so that it isn't another.
    pub(crate) fn ask(&self, group: &str, number: u8, sponsor: Option<&str>) -> ApprovalId {
        let requirement =
            Requirement { policy: "ask".into(), groups: vec![group.into()], needed: 1, sponsor_may: false };
        let asked = Asked {
            fingerprint: Fingerprint([number; 32]),
            call: CallId::new(),
            session: SessionId::new(),
            agent: "coder".into(),
            sponsor: sponsor.map(str::to_owned),
            needs: BTreeSet::from([("s3:DeleteBucket".to_owned(), "arn:aws:s3:::doomed".to_owned())]),
            requirements: vec![requirement],
            about: json!({ "command": ["aws", "s3api", "delete-bucket"], "directory": "/usr", "service": "s3" }).into(),
        };
        let standing = self.state.lock().ask(now(), ApprovalId::new(), asked, self);
        self.changed();
        match standing.unwrap() {
            Standing::Wait { id, .. } => id,
            other => panic!("{other:?}"),
        }
    }

    /// The call comes for its approval.
    pub(crate) fn resume(&self, id: ApprovalId) {
        let _ = self.state.lock().resume(now(), id, CallId::new(), self);
        self.changed();
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

impl Backend for Desk {
    fn know<'a>(&'a self, person: &'a Person) -> BoxFuture<'a, Result<String, String>> {
        let name = format!("{}:{}", person.provider, person.subject);
        self.people.lock().insert(name.clone(), person.clone());
        Box::pin(async { Ok(name) })
    }

    fn groups(&self, name: &str) -> Vec<String> {
        People::groups(self, name)
    }

    fn questions(&self) -> Vec<Asking> {
        self.state.lock().questions().cloned().collect()
    }

    fn answer(&self, id: ApprovalId, answer: Answer, approver: Approver) -> BoxFuture<'_, Result<Asking, Refused>> {
        let answered = self.state.lock().answer(now(), id, &answer, self).cloned();
        self.answers.lock().push(approver);
        self.changed();
        Box::pin(async move { Ok(answered?) })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn record(&self, event: &Event) {
        self.events.lock().push(event.clone());
    }
}

/// A provider whose keys are in a file.
pub(crate) struct Provider {
    key: EcdsaKeyPair,
    _folder: tempfile::TempDir,
    pub(crate) jwks: std::path::PathBuf,
}

impl Provider {
    pub(crate) fn new() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = key.public_key().as_ref();
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let jwk = json!({ "kty": "EC", "crv": "P-256", "kid": "1", "alg": "ES256", "use": "sig",
            "x": b64(&point[1..33]), "y": b64(&point[33..]) });
        let folder = tempfile::tempdir().unwrap();
        let jwks = folder.path().join("jwks.json");
        fs::write(&jwks, json!({ "keys": [jwk] }).to_string()).unwrap();
        Self { key, _folder: folder, jwks }
    }

    pub(crate) fn token(&self, subject: &str, groups: &[&str], audience: &str) -> String {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let claims = json!({ "iss": "https://login.example.com", "aud": audience, "sub": subject, "iat": now,
            "exp": now + 600, "groups": groups, "email": format!("{subject}@example.com") });
        let header = json!({ "alg": "ES256", "kid": "1", "typ": "JWT" });
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = format!("{header}.{claims}");
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
