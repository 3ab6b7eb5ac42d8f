//! What becomes of a call that waits for a person: questions, answers, and the one time that an approval is used.
//!
//! Nothing here does I/O or reads a clock: every function takes the time, and says what changed. Whatever isn't pending
//! any more never goes out, whoever answers it and when, and what was approved goes out once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use chaperone_model::{ApprovalId, CallId, SessionId};
use serde::{Deserialize, Serialize};

use crate::ruling::Question;

/// SHA-256 over what makes a call the same call when it is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 32]);

/// Milliseconds since 1970.
pub type Millis = u64;

/// What open questions may take in memory, and in an answer that lists them; and those of one session.
const MOST_BYTES: (usize, usize) = (32 << 20, 4 << 20);
/// Questions that are over and still listed.
const MOST_ENDED: usize = 2_000;

/// How long what lasts, and how much there may be.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// From the question to its end, answered or not, in milliseconds.
    pub expires: Millis,
    /// For a call that nobody waits for any more to come back, in milliseconds: then its question is withdrawn.
    pub returns: Millis,
    /// Questions that may be open at once.
    pub open: usize,
    /// Of one session.
    pub open_per_session: usize,
}

impl Default for Terms {
    fn default() -> Self {
        Self { expires: 3_600_000, returns: 900_000, open: 1000, open_per_session: 100 }
    }
}

/// One policy's question: who may answer it, and how many must.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// The policy.
    pub policy: String,
    /// Whoever is in one of them may answer.
    pub groups: Vec<String>,
    /// So many different people must say yes. Who can't be told apart is one.
    pub needed: u32,
    /// The person that the agent works for may be one of them.
    pub sponsor_may: bool,
}

impl Requirement {
    /// What a question's policies ask for.
    pub fn of(question: &Question) -> Vec<Self> {
        let annotation = |policy: &crate::Determining, name: &str| policy.annotations.get(name).cloned();
        let of = |(policy, groups): &(crate::Determining, String)| Self {
            policy: policy.id.clone(),
            groups: groups_of(groups).map(str::to_owned).collect(),
            // Loading has checked it.
            needed: annotation(policy, "approvals_needed").and_then(|text| text.parse().ok()).unwrap_or(1).max(1),
            sponsor_may: annotation(policy, "sponsor_may_approve").as_deref() == Some("true"),
        };
        question.approvers.iter().map(of).collect()
    }

    fn takes(&self, approver: &str, people: &dyn People, sponsor: Option<&str>) -> bool {
        let is_sponsor = sponsor.is_some_and(|sponsor| people.is_sponsor(approver, sponsor));
        let own = people.groups(approver);
        (self.sponsor_may || !is_sponsor) && self.groups.iter().any(|group| own.contains(group))
    }
}

/// What is known of approvers at the time of asking.
pub trait People {
    /// The groups that this approver is in.
    fn groups(&self, approver: &str) -> Vec<String>;

    /// Whether this approver is the person of that name: people have other names at a provider than on a host.
    fn is_sponsor(&self, approver: &str, sponsor: &str) -> bool {
        approver == sponsor
    }

    /// Where this approver has a name, and which: on the host, or at a provider. Never nothing. Whoever has different names
    /// in one such place are different people; of others that isn't known.
    fn known_as(&self, approver: &str) -> Vec<(String, String)> {
        vec![(String::new(), approver.to_owned())]
    }
}

/// How many different people these are, as far as that is known: somebody who answers on the host and at a provider is one,
/// and is told from others in one of these places.
fn different<'a>(approvers: impl Iterator<Item = &'a str>, people: &dyn People) -> usize {
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (place, name) in approvers.flat_map(|approver| people.known_as(approver)) {
        places.entry(place).or_default().insert(name);
    }
    places.values().map(BTreeSet::len).max().unwrap_or(0)
}

impl<F: Fn(&str) -> Vec<String>> People for F {
    fn groups(&self, approver: &str) -> Vec<String> {
        self(approver)
    }
}

/// The groups of an `@approvers("sre, security")`.
pub fn groups_of(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|group| !group.is_empty())
}

/// What an approval is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// This call.
    #[default]
    Once,
    /// The same actions on the same resources, by this session.
    Session,
    /// The same actions on the same resources, by this agent.
    Agent,
}

/// A person's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whose, by the name that the groups are asked for.
    pub by: String,
    /// Yes or no.
    pub allow: bool,
    /// Why, for the agent and the record.
    pub reason: String,
    /// How far a yes reaches. What all who say yes agree on counts: the narrowest.
    pub scope: Scope,
    /// Until when it reaches beyond this call.
    pub until: Millis,
}

/// What is asked for a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// What makes the call this one.
    pub fingerprint: Fingerprint,
    /// The call that asks. Its retries have ids of their own.
    pub call: CallId,
    /// Who asks.
    pub session: SessionId,
    /// The session's agent.
    pub agent: String,
    /// The person that the agent works for.
    #[serde(default)]
    pub sponsor: Option<String>,
    /// Actions and resources that need approval.
    pub needs: BTreeSet<(String, String)>,
    /// Who must say yes. Never empty.
    pub requirements: Vec<Requirement>,
    /// For people: the command, the call and its parameters. Shared, as it is large and looked at often.
    pub about: Arc<serde_json::Value>,
}

impl Asked {
    /// About how much it takes, which the agent chooses.
    fn size(&self) -> usize {
        let needs: usize = self.needs.iter().map(|(action, resource)| action.len() + resource.len()).sum();
        let mut counting = Counting(needs);
        serde_json::to_writer(&mut counting, &self.about).map_or(usize::MAX, |()| counting.0)
    }
}

/// Counts what is written, and drops it.
struct Counting(usize);

impl std::io::Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Where a question stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// Nobody has decided it.
    Pending,
    /// Everyone who had to has said yes, and the call hasn't come for it yet.
    Approved,
    /// Somebody has said no.
    Denied {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// The time was over before the call went out.
    Expired,
    /// The client is gone and hasn't come back.
    Withdrawn,
    /// The call went out.
    Used {
        /// Which it was: the first one, or a retry.
        #[serde(rename = "used_by")]
        call: CallId,
    },
    /// Policies or approvers' groups changed meanwhile, and it was asked anew.
    Superseded,
}

impl State {
    /// Whether it can still lead to the call.
    pub const fn is_open(&self) -> bool {
        matches!(self, Self::Pending | Self::Approved)
    }

    /// Its name.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied { .. } => "denied",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
            Self::Used { .. } => "used",
            Self::Superseded => "superseded",
        }
    }
}

/// A yes that was said, by policy and person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// Who said it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// How far it reaches.
    pub scope: Scope,
    /// Until when it reaches beyond this call.
    pub until: Millis,
}

/// A question and what has become of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asking {
    /// Its id.
    pub id: ApprovalId,
    /// What is asked.
    #[serde(flatten)]
    pub asked: Asked,
    /// When.
    pub at: Millis,
    /// Its end.
    pub expires: Millis,
    /// Where it stands.
    #[serde(flatten)]
    pub state: State,
    /// Those who have said yes.
    pub votes: Vec<Vote>,
    /// Calls that are held for it now. Not kept: they end with the daemon.
    #[serde(skip)]
    pub waiting: usize,
    /// Since when nobody waits for it.
    pub alone_since: Millis,
    /// About what it takes in memory.
    #[serde(skip)]
    bytes: usize,
}

impl Asking {
    /// What time alone changes.
    fn pass(&mut self, now: Millis, returns: Millis, changed: &mut BTreeSet<ApprovalId>) {
        if !self.state.is_open() {
            return;
        }
        let is_alone = self.waiting == 0 && now.saturating_sub(self.alone_since) >= returns;
        if now >= self.expires {
            self.turn(State::Expired, changed);
        } else if self.state == State::Pending && is_alone {
            self.turn(State::Withdrawn, changed);
        }
    }

    fn turn(&mut self, state: State, changed: &mut BTreeSet<ApprovalId>) {
        self.state = state;
        changed.insert(self.id);
    }

    /// Whether everyone who had to has said yes, as far as they are still in their groups.
    fn is_approved(&self, people: &dyn People) -> bool {
        self.asked.requirements.iter().all(|requirement| {
            let sponsor = self.asked.sponsor.as_deref();
            let counts = |vote: &&Vote| requirement.takes(&vote.by, people, sponsor);
            let yes = self.votes.iter().filter(counts).map(|vote| vote.by.as_str());
            different(yes, people) >= requirement.needed as usize
        })
    }
}

/// An approval that reaches beyond one call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    /// The question that it came of.
    pub id: ApprovalId,
    /// Of this session, or of the agent.
    pub session: Option<SessionId>,
    /// Whose calls it is for.
    pub agent: String,
    /// What it is for.
    pub needs: BTreeSet<(String, String)>,
    /// What was asked for.
    pub requirements: Vec<Requirement>,
    /// Who said yes.
    pub by: Vec<String>,
    /// Its end.
    pub until: Millis,
}

/// What a call that needs approval may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Go out, now: the approval is used by this.
    Go {
        /// The question.
        id: ApprovalId,
        /// Who said yes.
        by: Vec<String>,
    },
    /// Wait; [`Approvals::leave`] must be called when it doesn't any more.
    Wait {
        /// The question.
        id: ApprovalId,
        /// It was asked by this.
        new: bool,
    },
    /// Not go out.
    Refused {
        /// The question.
        id: ApprovalId,
        /// What became of it.
        state: State,
    },
}

/// Why nothing can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// There are too many questions.
    #[error("{0} questions are open, and no more may be: somebody has to answer them first")]
    Full(usize),
    /// They are too large.
    #[error(
        "{0} questions are open, and with what they are about there is no room for this one: somebody has to answer them \
         first, or the call has to name fewer resources"
    )]
    Large(usize),
}

/// Why an answer doesn't count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// There is no such question.
    #[error("there is no question {0}")]
    Unknown(ApprovalId),
    /// It is decided, or over.
    #[error("the question is not pending: it is {0}")]
    Over(&'static str),
    /// The approver isn't in any of its groups.
    #[error("{who} may not answer it: it is for {groups}")]
    NotYours {
        /// The approver.
        who: String,
        /// Who may.
        groups: String,
    },
    /// The agent works for the approver.
    #[error("{0} may not approve it: the agent works for them")]
    Sponsor(String),
    /// They have said yes before.
    #[error("{0} has approved it already")]
    Twice(String),
}

/// All questions, and the approvals that reach beyond one call.
#[derive(Debug)]
pub struct Approvals {
    terms: Terms,
    questions: BTreeMap<ApprovalId, Asking>,
    /// The last question for each call.
    latest: HashMap<Fingerprint, ApprovalId>,
    grants: Vec<Grant>,
    /// Questions whose state or votes changed and that nobody has been told of.
    changed: BTreeSet<ApprovalId>,
}

impl Approvals {
    /// None yet.
    pub fn new(terms: Terms) -> Self {
        let (questions, latest, grants, changed) = Default::default();
        Self { terms, questions, latest, grants, changed }
    }

    /// With those of a daemon before this one. Nobody waits for them yet.
    pub fn restore(terms: Terms, questions: Vec<Asking>, grants: Vec<Grant>, now: Millis) -> Self {
        let mut all = Self { grants, ..Self::new(terms) };
        for mut asking in questions {
            asking.waiting = 0;
            asking.alone_since = now;
            asking.bytes = asking.asked.size();
            all.latest.insert(asking.asked.fingerprint, asking.id);
            all.questions.insert(asking.id, asking);
        }
        all
    }

    /// Other terms, for questions that are asked from now on.
    pub fn set_terms(&mut self, terms: Terms) {
        self.terms = terms;
    }

    /// A call comes that needs approval. `id` is for its question, if it is a new one; `people` says what an approver is
    /// in now.
    pub fn ask(
        &mut self,
        now: Millis,
        id: ApprovalId,
        asked: Asked,
        people: &dyn People,
    ) -> Result<Standing, AskError> {
        self.tick(now);
        if let Some(grant) = self.granted(&asked, people) {
            return Ok(Standing::Go { id: grant.id, by: grant.by.clone() });
        }
        let latest = self.latest.get(&asked.fingerprint).and_then(|id| self.questions.get_mut(id));
        if let Some(asking) = latest {
            let same = asking.asked.requirements == asked.requirements && asking.asked.needs == asked.needs;
            match &asking.state {
                // Decided by other policies than there are now, or by people who may no more.
                State::Pending | State::Approved if !same => asking.turn(State::Superseded, &mut self.changed),
                State::Approved if !asking.is_approved(people) => asking.turn(State::Superseded, &mut self.changed),
                State::Approved => {
                    asking.turn(State::Used { call: asked.call }, &mut self.changed);
                    let by = asking.votes.iter().map(|vote| vote.by.clone()).collect();
                    return Ok(Standing::Go { id: asking.id, by });
                }
                State::Pending => {
                    asking.waiting += 1;
                    return Ok(Standing::Wait { id: asking.id, new: false });
                }
                // The client's own retries meet the answer; asked again after its time, it is a new question.
                State::Denied { .. } if now < asking.expires && same => {
                    return Ok(Standing::Refused { id: asking.id, state: asking.state.clone() });
                }
                State::Denied { .. } | State::Expired | State::Withdrawn | State::Used { .. } | State::Superseded => {}
            }
        }
        let bytes = asked.size();
        self.room(&asked, bytes)?;
        self.latest.insert(asked.fingerprint, id);
        self.changed.insert(id);
        let expires = now + self.terms.expires;
        let (state, votes) = (State::Pending, Vec::new());
        self.questions
            .insert(id, Asking { id, asked, at: now, expires, state, votes, waiting: 1, alone_since: now, bytes });
        Ok(Standing::Wait { id, new: true })
    }

    /// Whether one more may be open.
    fn room(&self, asked: &Asked, bytes: usize) -> Result<(), AskError> {
        let (mut all, mut own) = ((0, bytes), (0, bytes));
        for asking in self.questions.values().filter(|asking| asking.state.is_open()) {
            all = (all.0 + 1, all.1.saturating_add(asking.bytes));
            if asking.asked.session == asked.session {
                own = (own.0 + 1, own.1.saturating_add(asking.bytes));
            }
        }
        if own.0 >= self.terms.open_per_session {
            Err(AskError::Full(own.0))
        } else if all.0 >= self.terms.open {
            Err(AskError::Full(all.0))
        } else if own.1 > MOST_BYTES.1 {
            Err(AskError::Large(own.0))
        } else if all.1 > MOST_BYTES.0 {
            Err(AskError::Large(all.0))
        } else {
            Ok(())
        }
    }

    /// A call that waits is decided? Uses the approval. `None`: it is still pending.
    pub fn resume(&mut self, now: Millis, id: ApprovalId, call: CallId, people: &dyn People) -> Option<Standing> {
        // Not the time of all others: with each change, each that waits looks.
        if let Some(asking) = self.questions.get_mut(&id) {
            asking.pass(now, self.terms.returns, &mut self.changed);
        }
        let Some(asking) = self.questions.get_mut(&id) else {
            return Some(Standing::Refused { id, state: State::Withdrawn });
        };
        match &asking.state {
            State::Pending => None,
            State::Approved if asking.is_approved(people) => {
                asking.turn(State::Used { call }, &mut self.changed);
                Some(Standing::Go { id, by: asking.votes.iter().map(|vote| vote.by.clone()).collect() })
            }
            State::Approved => {
                asking.turn(State::Superseded, &mut self.changed);
                Some(Standing::Refused { id, state: State::Superseded })
            }
            state => Some(Standing::Refused { id, state: state.clone() }),
        }
    }

    /// A call waits no more, answered or not.
    pub fn leave(&mut self, now: Millis, id: ApprovalId) {
        if let Some(asking) = self.questions.get_mut(&id) {
            asking.waiting = asking.waiting.saturating_sub(1);
            if asking.waiting == 0 {
                asking.alone_since = now;
            }
        }
    }

    /// A person answers. A no decides at once; a yes when everyone who had to has said it.
    pub fn answer(
        &mut self,
        now: Millis,
        id: ApprovalId,
        answer: &Answer,
        people: &dyn People,
    ) -> Result<&Asking, AnswerError> {
        self.tick(now);
        let asking = self.questions.get_mut(&id).ok_or(AnswerError::Unknown(id))?;
        if asking.state != State::Pending {
            return Err(AnswerError::Over(asking.state.as_str()));
        }
        let by = &answer.by;
        let requirements = &asking.asked.requirements;
        if !requirements.iter().any(|requirement| requirement.takes(by, people, None)) {
            let wanted: BTreeSet<&str> =
                requirements.iter().flat_map(|one| one.groups.iter().map(String::as_str)).collect();
            let wanted: Vec<&str> = wanted.into_iter().collect();
            return Err(AnswerError::NotYours { who: by.clone(), groups: wanted.join(", ") });
        }
        if !answer.allow {
            let state = State::Denied { by: by.clone(), reason: answer.reason.clone() };
            asking.turn(state, &mut self.changed);
            return Ok(asking);
        }
        let sponsor = asking.asked.sponsor.as_deref();
        if !requirements.iter().any(|requirement| requirement.takes(by, people, sponsor)) {
            return Err(AnswerError::Sponsor(by.clone()));
        }
        if asking.votes.iter().any(|vote| vote.by == *by) {
            return Err(AnswerError::Twice(by.clone()));
        }
        let Answer { by, reason, scope, until, .. } = answer.clone();
        asking.votes.push(Vote { by, reason, scope, until });
        self.changed.insert(id);
        if asking.is_approved(people) {
            asking.turn(State::Approved, &mut self.changed);
            self.grants.extend(Grant::of(asking));
        }
        Ok(asking)
    }

    /// What time alone changes: questions end, approvals too.
    pub fn tick(&mut self, now: Millis) {
        for asking in self.questions.values_mut() {
            asking.pass(now, self.terms.returns, &mut self.changed);
        }
        self.grants.retain(|grant| now < grant.until);
    }

    /// Forgets questions that ended before that time, and the oldest that ended where there are too many: an agent may ask
    /// as often as it likes. Gives their ids.
    pub fn forget(&mut self, before: Millis) -> Vec<ApprovalId> {
        let has_ended = |asking: &&Asking| !asking.state.is_open() && asking.waiting == 0;
        let ended: Vec<_> = self.questions.values().filter(has_ended).collect();
        let too_many = ended.len().saturating_sub(MOST_ENDED);
        // What nobody was told of is told first.
        let is_old = |(place, asking): (usize, &&Asking)| {
            asking.expires < before || place < too_many && !self.changed.contains(&asking.id)
        };
        let old: Vec<_> = ended.iter().enumerate().filter(|one| is_old(*one)).map(|(_, asking)| asking.id).collect();
        if old.is_empty() {
            return old;
        }
        for id in &old {
            self.questions.remove(id);
        }
        self.latest.retain(|_, id| self.questions.contains_key(id));
        old
    }

    /// Questions that have changed since this was last asked.
    pub fn take_changed(&mut self) -> Vec<Asking> {
        let changed = std::mem::take(&mut self.changed);
        changed.iter().filter_map(|id| self.questions.get(id).cloned()).collect()
    }

    /// These could not be written down: they are still to be told.
    pub fn put_back(&mut self, changed: impl IntoIterator<Item = ApprovalId>) {
        self.changed.extend(changed);
    }

    /// All questions, the oldest first.
    pub fn questions(&self) -> impl Iterator<Item = &Asking> {
        self.questions.values()
    }

    /// One of them.
    pub fn question(&self, id: ApprovalId) -> Option<&Asking> {
        self.questions.get(&id)
    }

    /// The approvals that reach beyond one call.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// A session is over, and what was granted to it.
    pub fn end_session(&mut self, session: SessionId) {
        self.grants.retain(|grant| grant.session != Some(session));
    }

    fn granted(&self, asked: &Asked, people: &dyn People) -> Option<&Grant> {
        self.grants.iter().find(|grant| {
            let is_whose = grant.agent == asked.agent && grant.session.is_none_or(|session| session == asked.session);
            let is_asked = |requirement: &Requirement| {
                let sponsor = asked.sponsor.as_deref();
                let counts = |by: &&String| requirement.takes(by, people, sponsor);
                grant.requirements.contains(requirement)
                    && different(grant.by.iter().filter(counts).map(String::as_str), people)
                        >= requirement.needed as usize
            };
            is_whose && asked.needs.is_subset(&grant.needs) && asked.requirements.iter().all(is_asked)
        })
    }
}

impl Grant {
    /// What an approval grants beyond its call: as far and as long as all who gave it said.
    fn of(asking: &Asking) -> Option<Self> {
        let narrowest = asking.votes.iter().map(|vote| vote.scope).min()?;
        let session = match narrowest {
            Scope::Once => return None,
            Scope::Session => Some(asking.asked.session),
            Scope::Agent => None,
        };
        Some(Self {
            id: asking.id,
            session,
            agent: asking.asked.agent.clone(),
            needs: asking.asked.needs.clone(),
            requirements: asking.asked.requirements.clone(),
            by: asking.votes.iter().map(|vote| vote.by.clone()).collect(),
            until: asking.votes.iter().map(|vote| vote.until).min()?,
        })
    }
}

#[cfg(test)]
#[path = "approvals_tests.rs"]
mod tests;
