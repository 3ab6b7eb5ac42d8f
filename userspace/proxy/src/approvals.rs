//! Questions to people about calls: kept over a restart, recorded, and waited for.
//!
//! What becomes of a question is decided by the pure state machine in `policy`. Here is its lock, its clock, its files and
//! its record. A change is on disk before anybody is told of it, so that an approval which was used stays used.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use chaperone_journal::Journal;
use chaperone_model::{
    ApprovalAnswered, ApprovalAsked, ApprovalEnded, ApprovalId, ApprovalRequirement, Approver, CallId, Event, SessionId,
};
use chaperone_policy::approvals::{
    Answer, AnswerError, Approvals, AskError, Asked, Asking, Grant, Millis, People, Standing, State, Terms,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::watch;

/// Ended questions are listed for so long.
const KEPT: Millis = 24 * 3_600_000;

/// How calls are held, and by whom they are approved.
#[derive(Clone, Debug)]
pub struct ApprovalSettings {
    /// How long a call is held before its client is told to try again.
    pub hold: Duration,
    /// Between two interim answers to a client that waits. Go before 1.23 bears no more than five of them.
    pub interim: Duration,
    /// How long questions stay open, and how many.
    pub terms: Terms,
    /// Bodies that nothing in the head binds are read whole to be approved, up to this many bytes.
    pub body_bytes: usize,
    /// Approvers by group: users of the host, `PROVIDER:SUBJECT` for people whom a provider vouches for, and
    /// `group:PROVIDER:GROUP` for all in a group of a provider's.
    pub groups: BTreeMap<String, Vec<String>>,
    /// Users of the host by what providers call them: `PROVIDER:SUBJECT`.
    pub people: BTreeMap<String, String>,
    /// Numbers of the host's users who are named in these settings, by each of their names.
    pub uids: BTreeMap<String, u32>,
}

impl ApprovalSettings {
    /// One name for a user of this host, who may be named `alice` here and `uid:1001` there.
    fn user(&self, name: &str) -> String {
        self.uids.get(name).map_or_else(|| name.to_owned(), |uid| format!("uid:{uid}"))
    }

    /// Where an approver has a name, and which: `""` is this host.
    fn known_as(&self, approver: &str) -> Vec<(String, String)> {
        let approver = self.people.get(approver).map_or(approver, String::as_str);
        if let Some((provider, subject)) = of_provider(approver) {
            return vec![(provider.to_owned(), subject.to_owned())];
        }
        let user = self.user(approver);
        let own = self.people.iter().filter(|(_, name)| self.user(name) == user);
        let mut places: BTreeMap<String, String> = own
            .filter_map(|(name, _)| of_provider(name))
            .map(|(provider, subject)| (provider.to_owned(), subject.to_owned()))
            .collect();
        places.insert(String::new(), user);
        places.into_iter().collect()
    }

    /// Whether a user of this host has the name that this mail address begins with. Who the sponsor is on this host may be
    /// said nowhere; then whoever has the same name may well be the sponsor.
    fn has_name_of(&self, approver: &str, sponsor: &str) -> bool {
        let Some((mailbox, _)) = sponsor.split_once('@').filter(|_| of_provider(approver).is_none()) else {
            return false;
        };
        let user = self.user(approver);
        let is_named = |name: &str| name.eq_ignore_ascii_case(mailbox) && self.user(name) == user;
        is_named(approver) || self.uids.keys().any(|name| is_named(name))
    }
}

/// `PROVIDER:SUBJECT`, which `uid:1001` isn't.
fn of_provider(name: &str) -> Option<(&str, &str)> {
    name.split_once(':').filter(|(provider, _)| *provider != "uid")
}

impl Default for ApprovalSettings {
    fn default() -> Self {
        Self {
            hold: Duration::from_secs(50),
            interim: Duration::from_secs(10),
            terms: Terms::default(),
            body_bytes: 1 << 20,
            groups: BTreeMap::new(),
            people: BTreeMap::new(),
            uids: BTreeMap::new(),
        }
    }
}

/// Why a call can't be held.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// Too many are.
    #[error(transparent)]
    Full(#[from] AskError),
    /// The question, or that its approval is used, can't be written down.
    #[error("keeping a question in {path}: {source}")]
    Keep {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What a provider said of an approver, lately.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownPerson {
    /// The groups that the provider says they are in, as `PROVIDER:GROUP`.
    pub groups: Vec<String>,
    /// Other names of theirs, by which an agent's sponsor may be known.
    pub also: Vec<String>,
    /// When it was said.
    pub at: Millis,
}

/// For so long it is believed what groups a provider said that somebody is in: an approval that reaches beyond its call
/// ends with that.
const BELIEVED: Millis = 24 * 3_600_000;

/// How many people of providers are known at once; those seen longest ago are forgotten.
const MOST_PEOPLE: usize = 10_000;

/// All questions of this host.
pub struct ApprovalDesk {
    state: Mutex<Approvals>,
    people: Mutex<BTreeMap<String, KnownPerson>>,
    folder: PathBuf,
    settings: ArcSwap<ApprovalSettings>,
    journal: Journal,
    /// One at a time writes changes down, so that what is on disk is what came last.
    keeping: tokio::sync::Mutex<()>,
    /// Counts changes, for those who wait for one.
    changes: watch::Sender<u64>,
}

impl std::fmt::Debug for ApprovalDesk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApprovalDesk").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// What is kept of everything beside the questions themselves.
const GRANTS: &str = "grants.json";
/// What providers said of approvers.
const PEOPLE: &str = "people.json";

impl ApprovalDesk {
    /// With the questions that an earlier daemon left in that folder.
    pub fn open(folder: &Path, settings: ApprovalSettings, journal: Journal) -> Result<Arc<Self>, HoldError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| HoldError::Keep { path, source }
        };
        fs::create_dir_all(folder).map_err(failed(folder))?;
        fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o700)).map_err(failed(folder))?;
        let (mut questions, mut grants, mut people): (Vec<Asking>, Vec<Grant>, _) = Default::default();
        for entry in fs::read_dir(folder).map_err(failed(folder))? {
            let path = entry.map_err(failed(folder))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                // Half-written.
                let _ = fs::remove_file(&path);
                continue;
            }
            let text = fs::read(&path).map_err(failed(&path))?;
            let invalid = |error: serde_json::Error| failed(&path)(io::Error::other(error));
            match path.file_name().and_then(|name| name.to_str()) {
                Some(GRANTS) => grants = serde_json::from_slice(&text).map_err(invalid)?,
                Some(PEOPLE) => people = serde_json::from_slice(&text).map_err(invalid)?,
                _ => questions.push(serde_json::from_slice(&text).map_err(invalid)?),
            }
        }
        let state = Mutex::new(Approvals::restore(settings.terms, questions, grants, now()));
        let (changes, folder) = (watch::Sender::new(0), folder.to_owned());
        Ok(Arc::new(Self {
            state,
            people: Mutex::new(people),
            folder,
            settings: ArcSwap::from_pointee(settings),
            journal,
            keeping: tokio::sync::Mutex::default(),
            changes,
        }))
    }

    /// What is in force.
    pub fn settings(&self) -> Arc<ApprovalSettings> {
        self.settings.load_full()
    }

    /// Puts other groups and times in force. Open questions keep their ends.
    pub fn replace_settings(&self, settings: ApprovalSettings) {
        self.state.lock().set_terms(settings.terms);
        self.settings.store(Arc::new(settings));
    }

    /// The groups that somebody is in, by the configuration that is in force, and by what their provider said last.
    pub fn groups_of(&self, name: &str) -> Vec<String> {
        let settings = self.settings.load();
        let of_provider = match self.people.lock().get(name) {
            Some(person) if now().saturating_sub(person.at) < BELIEVED => person.groups.clone(),
            _ => Vec::new(),
        };
        let names = |member: &String| {
            member == name
                || member.strip_prefix("group:").is_some_and(|group| of_provider.iter().any(|one| one == group))
        };
        let is_in = |(group, members): (&String, &Vec<String>)| members.iter().any(names).then(|| group.clone());
        settings.groups.iter().filter_map(is_in).collect()
    }

    /// A provider says this of an approver, now. It is on disk before they can answer: approvals outlive the daemon.
    pub async fn know(&self, name: &str, groups: Vec<String>, also: Vec<String>) -> Result<(), HoldError> {
        let _alone = self.keeping.lock().await;
        let person = KnownPerson { groups, also, at: now() };
        let json = {
            let mut people = self.people.lock();
            let before = people.insert(name.to_owned(), person.clone());
            while people.len() > MOST_PEOPLE {
                let oldest = people.iter().min_by_key(|(_, person)| person.at).map(|(name, _)| name.clone());
                oldest.and_then(|name| people.remove(&name));
            }
            // Somebody who looks at questions all day isn't written down each time.
            let is_news = |before: KnownPerson| {
                (&before.groups, &before.also) != (&person.groups, &person.also)
                    || person.at.saturating_sub(before.at) > BELIEVED / 24
            };
            if !before.is_none_or(is_news) {
                return Ok(());
            }
            serde_json::to_vec(&*people)
        };
        let path = self.folder.join(PEOPLE);
        let write = move || {
            json.map_err(io::Error::other).and_then(|json| {
                durable(&path, &json)
                    .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
            })
        };
        let written = tokio::task::spawn_blocking(write).await.expect("BUG: writing down approvers panicked");
        written.map_err(|source| HoldError::Keep { path: self.folder.join(PEOPLE), source })
    }

    /// A call comes that needs approval. What it waits for it gets by [`Waiting`].
    pub(crate) async fn ask(self: &Arc<Self>, asked: Asked) -> Result<(Standing, Option<Waiting>), HoldError> {
        let call = asked.call;
        let standing = { self.state.lock().ask(now(), ApprovalId::new(), asked, &**self) };
        let waiting = match &standing {
            Ok(Standing::Wait { id, .. }) => {
                Some(Waiting { desk: self.clone(), id: *id, call, changes: self.changes.subscribe() })
            }
            _ => None,
        };
        self.keep().await?;
        Ok((standing?, waiting))
    }

    /// A person answers, wherever they do. Whether they may is decided now: by the groups that they are in at this moment.
    pub async fn answer(&self, id: ApprovalId, answer: Answer, approver: Approver) -> Result<Asking, AnswerFailed> {
        let asking = { self.state.lock().answer(now(), id, &answer, self).cloned()? };
        self.keep().await?;
        let until = (answer.allow && answer.until != 0).then(|| at(answer.until));
        let scope = serde_json::to_value(answer.scope).ok().and_then(|scope| scope.as_str().map(str::to_owned));
        self.record(&Event::ApprovalAnswered(Box::new(ApprovalAnswered {
            id,
            session: asking.asked.session,
            at: OffsetDateTime::now_utc(),
            by: answer.by,
            allow: answer.allow,
            reason: answer.reason,
            scope: scope.unwrap_or_default(),
            until,
            state: asking.state.as_str().to_owned(),
            approver: Some(approver),
        })));
        Ok(asking)
    }

    /// All questions, the oldest first.
    pub fn questions(&self) -> Vec<Asking> {
        let mut state = self.state.lock();
        state.tick(now());
        state.questions().cloned().collect()
    }

    /// A session is over.
    pub(crate) fn end_session(&self, session: SessionId) {
        self.state.lock().end_session(session);
    }

    /// Now and then: what time alone changes.
    pub async fn tick(&self) {
        let old = {
            let mut state = self.state.lock();
            state.tick(now());
            state.forget(now().saturating_sub(KEPT))
        };
        for id in old {
            let _ = fs::remove_file(self.file(id));
        }
        if let Err(error) = self.keep().await {
            tracing::error!(%error, "the end of a question could not be kept");
        }
    }

    /// Told of each change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Writes down what has changed, records it, and then tells those who wait.
    async fn keep(&self) -> Result<(), HoldError> {
        let _alone = self.keeping.lock().await;
        let (changed, grants) = {
            let mut state = self.state.lock();
            (state.take_changed(), state.grants().to_vec())
        };
        if changed.is_empty() {
            return Ok(());
        }
        let files: Vec<_> = changed
            .iter()
            .map(|asking| (self.file(asking.id), serde_json::to_vec(asking)))
            .chain([(self.folder.join(GRANTS), serde_json::to_vec(&grants))])
            .collect();
        let written = tokio::task::spawn_blocking(move || {
            for (path, json) in files {
                let write = || durable(&path, &json.map_err(io::Error::other)?);
                write().map_err(|source| HoldError::Keep { path: path.clone(), source })?;
            }
            Ok(())
        });
        if let Err(error) = written.await.expect("BUG: writing a question panicked") {
            self.state.lock().put_back(changed.iter().map(|asking| asking.id));
            return Err(error);
        }
        for asking in &changed {
            self.record_change(asking);
        }
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    fn record_change(&self, asking: &Asking) {
        let (id, session) = (asking.id, asking.asked.session);
        match &asking.state {
            State::Pending if asking.votes.is_empty() => {
                let requirements = asking.asked.requirements.iter().map(|one| ApprovalRequirement {
                    policy: one.policy.clone(),
                    groups: one.groups.clone(),
                    needed: one.needed,
                });
                self.record(&Event::ApprovalAsked(Box::new(ApprovalAsked {
                    id,
                    session,
                    agent: asking.asked.agent.clone(),
                    at: at(asking.at),
                    expires: at(asking.expires),
                    call: asking.asked.call,
                    fingerprint: hex::encode(asking.asked.fingerprint.0),
                    needs: asking.asked.needs.iter().cloned().collect(),
                    requirements: requirements.collect(),
                })));
            }
            State::Pending | State::Approved => {}
            state => {
                let call = if let State::Used { call } = state { Some(*call) } else { None };
                let (state, at) = (state.as_str().to_owned(), OffsetDateTime::now_utc());
                self.record(&Event::ApprovalEnded(ApprovalEnded { id, session, at, state, call }));
            }
        }
    }

    /// Records something about a question.
    pub fn record(&self, event: &Event) {
        if let Err(error) = self.journal.append_now(event) {
            tracing::error!(%error, event = event.name(), "what became of a question could not be recorded");
        }
    }

    fn file(&self, id: ApprovalId) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }
}

impl People for ApprovalDesk {
    fn groups(&self, approver: &str) -> Vec<String> {
        self.groups_of(approver)
    }

    fn is_sponsor(&self, approver: &str, sponsor: &str) -> bool {
        let is_also = |person: &KnownPerson| person.also.iter().any(|name| name == sponsor);
        let settings = self.settings.load();
        settings.user(approver) == settings.user(sponsor)
            || settings.has_name_of(approver, sponsor)
            || self.people.lock().get(approver).is_some_and(is_also)
    }

    fn known_as(&self, approver: &str) -> Vec<(String, String)> {
        self.settings.load().known_as(approver)
    }
}

/// Why an answer has no effect.
#[derive(Debug, thiserror::Error)]
pub enum AnswerFailed {
    /// It isn't one that counts.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// It can't be written down.
    #[error(transparent)]
    Keep(#[from] HoldError),
}

/// A call that waits for its question. Dropped, it waits no more.
pub(crate) struct Waiting {
    desk: Arc<ApprovalDesk>,
    id: ApprovalId,
    call: CallId,
    changes: watch::Receiver<u64>,
}

impl Waiting {
    /// The question.
    pub(crate) const fn id(&self) -> ApprovalId {
        self.id
    }

    /// What became of it, which uses the approval.
    pub(crate) async fn decided(&mut self) -> Result<Standing, HoldError> {
        loop {
            self.changes.mark_unchanged();
            let standing = { self.desk.state.lock().resume(now(), self.id, self.call, &*self.desk) };
            if let Some(standing) = standing {
                self.desk.keep().await?;
                return Ok(standing);
            }
            // The desk outlives whoever waits at it.
            let _ = self.changes.changed().await;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.desk.state.lock().leave(now(), self.id);
    }
}

/// Written whole, and on disk, before it has its name.
pub(crate) fn durable(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let new = path.with_extension(format!("{}.new", uuid::Uuid::now_v7().simple()));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    fs::File::open(path.parent().unwrap_or(path))?.sync_all()
}

pub(crate) fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}

pub(crate) fn millis(at: OffsetDateTime) -> Millis {
    Millis::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
}

fn at(millis: Millis) -> OffsetDateTime {
    let nanoseconds = i128::from(millis) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> ApprovalSettings {
        ApprovalSettings {
            people: BTreeMap::from([("corp:00u1".into(), "alice".into()), ("corp:00u9".into(), "alice".into())]),
            uids: BTreeMap::from([("alice".into(), 1001), ("uid:1001".into(), 1001)]),
            ..ApprovalSettings::default()
        }
    }

    #[test]
    fn one_person_has_one_name_in_each_place() {
        let settings = settings();
        let of = |name: &str| settings.known_as(name);
        let at = |place: &str, name: &str| (place.to_owned(), name.to_owned());
        for name in ["alice", "uid:1001", "corp:00u1", "corp:00u9"] {
            assert_eq!(of(name), [at("", "uid:1001"), at("corp", "00u9")], "{name}");
        }
        assert_eq!(of("corp:other"), [at("corp", "other")]);
        assert_eq!(of("bob"), [at("", "bob")]);
    }

    #[test]
    fn whoever_has_the_sponsors_name_may_be_the_sponsor() {
        let settings = settings();
        for (approver, sponsor, is) in [
            ("alice", "alice@example.com", true),
            ("uid:1001", "Alice@example.com", true),
            ("bob", "bob@example.com", true),
            ("bob", "alice@example.com", false),
            // Whom a provider vouches for has more names than that, which are held against the sponsor's.
            ("corp:bob", "bob@example.com", false),
        ] {
            assert_eq!(settings.has_name_of(approver, sponsor), is, "{approver} {sponsor}");
        }
    }
}
