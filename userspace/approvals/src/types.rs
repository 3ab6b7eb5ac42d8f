//! What the API takes and gives.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use chaperone_model::visible;
use chaperone_policy::approvals::{Asking, Scope, State};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// The longest reason.
pub(crate) const MOST_REASON: usize = 2000;
/// The longest that an approval reaches beyond its call, in minutes.
pub(crate) const MOST_MINUTES: u64 = 30 * 24 * 60;

/// Where a question stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum QuestionState {
    /// Everyone who had to has said yes, and the call hasn't come for it yet.
    Approved,
    /// Somebody has said no.
    Denied,
    /// The time was over before the call went out.
    Expired,
    /// Nobody has decided it: the only state in which it can be answered.
    Pending,
    /// Policies or groups changed meanwhile, and it was asked anew.
    Superseded,
    /// The call went out.
    Used,
    /// The client is gone and hasn't come back.
    Withdrawn,
}

/// How far an approval reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// The same actions on the same resources, by this agent.
    Agent,
    /// This call.
    #[default]
    Once,
    /// The same actions on the same resources, by this session.
    Session,
}

impl From<Reach> for Scope {
    fn from(reach: Reach) -> Self {
        match reach {
            Reach::Agent => Self::Agent,
            Reach::Once => Self::Once,
            Reach::Session => Self::Session,
        }
    }
}

impl From<Scope> for Reach {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Agent => Self::Agent,
            Scope::Once => Self::Once,
            Scope::Session => Self::Session,
        }
    }
}

/// An action that needs approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Need {
    /// As IAM names it, such as `s3:DeleteBucket`.
    pub action: String,
    /// An ARN, or `*`.
    pub resource: String,
}

/// One policy's demand for approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Requirement {
    /// The policy.
    pub policy: String,
    /// Whoever is in one of them may answer.
    pub groups: Vec<String>,
    /// So many different people must say yes.
    pub needed: u32,
    /// The person that the agent works for may be one of them.
    pub sponsor_may_approve: bool,
}

/// A yes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Vote {
    /// Whose.
    pub by: String,
    /// Why.
    pub reason: String,
    /// How far it reaches.
    #[serde(rename = "for")]
    pub reach: Reach,
    /// Until when it reaches beyond this call.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<OffsetDateTime>,
}

/// A no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Denial {
    /// Whose.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// The call and the command that makes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct About {
    /// The command's arguments, as the process was started with; secrets masked.
    pub command: Vec<String>,
    /// Its working directory.
    pub directory: String,
    /// The file that it executes.
    pub executable: String,
    /// AWS's service.
    pub service: String,
    /// Its operation.
    pub operation: String,
    /// The region, if the call has one.
    pub region: Option<String>,
    /// The account.
    pub account: Option<String>,
    /// The host that is called.
    pub host: String,
    /// HTTP's method.
    pub method: String,
    /// The path.
    pub path: String,
    /// What it is about.
    #[schema(value_type = Object)]
    pub resources: Value,
    /// With which parameters; values of members that are named like secrets are masked.
    #[schema(value_type = Object)]
    pub parameters: Value,
    /// The policies that don't let it pass.
    pub policies: Vec<String>,
    /// What they say.
    pub why: String,
}

/// A value whose texts nobody takes for something else. Lines may end in them: whoever shows JSON escapes that.
fn shown(value: &Value) -> Value {
    let text = |text: &str| -> String {
        let pieces = text.split_inclusive(['\n', '\t']);
        let clean = |piece: &str| match piece.strip_suffix(['\n', '\t']) {
            Some(rest) => [&*visible(rest), &piece[rest.len()..]].concat(),
            None => visible(piece).into_owned(),
        };
        pieces.map(clean).collect()
    };
    match value {
        Value::String(it) => Value::String(text(it)),
        Value::Array(all) => all.iter().map(shown).collect(),
        Value::Object(members) => members.iter().map(|(name, value)| (text(name), shown(value))).collect(),
        other => other.clone(),
    }
}

impl About {
    fn of(about: &Value) -> Self {
        let text = |name: &str| visible(about[name].as_str().unwrap_or_default()).into_owned();
        let maybe = |name: &str| about[name].as_str().map(|text| visible(text).into_owned());
        let list = |name: &str| {
            let all = about[name].as_array().into_iter().flatten();
            all.filter_map(Value::as_str).map(|text| visible(text).into_owned()).collect()
        };
        Self {
            command: list("command"),
            directory: text("directory"),
            executable: text("executable"),
            service: text("service"),
            operation: text("operation"),
            region: maybe("region"),
            account: maybe("account"),
            host: text("host"),
            method: text("method"),
            path: text("path"),
            resources: shown(&about["resources"]),
            parameters: shown(&about["parameters"]),
            policies: list("policies"),
            why: text("why"),
        }
    }
}

/// What became, within a day, of this agent's other questions about the same actions on the same resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Before {
    /// So many went out.
    pub used: u32,
    /// So many were denied.
    pub denied: u32,
    /// So many ended otherwise, or are open.
    pub other: u32,
}

/// A call that waits for people, or did.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Question {
    /// Its id, a UUID.
    #[schema(format = Uuid)]
    pub id: String,
    /// Where it stands.
    pub state: QuestionState,
    /// When it was asked.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub asked: OffsetDateTime,
    /// When it is over, answered or not.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub expires: OffsetDateTime,
    /// The agent that asks.
    pub agent: String,
    /// Its session, a UUID.
    #[schema(format = Uuid)]
    pub session: String,
    /// The person that the agent works for, if that is known.
    pub sponsor: Option<String>,
    /// The call that asked first, a UUID.
    #[schema(format = Uuid)]
    pub call: String,
    /// The call that went out, a UUID.
    #[schema(format = Uuid)]
    pub used_by: Option<String>,
    /// What needs approval.
    pub needs: Vec<Need>,
    /// Who must say yes.
    pub requirements: Vec<Requirement>,
    /// Who has said yes.
    pub votes: Vec<Vote>,
    /// Who has said no.
    pub denied: Option<Denial>,
    /// So many attempts of the call wait at this moment.
    pub waiting: u32,
    /// The call and its command.
    pub about: About,
    /// How that went before.
    pub before: Before,
}

impl Question {
    /// A question among all that there are.
    pub fn of(asking: &Asking, all: &[Asking]) -> Self {
        let mut before = Before::default();
        let is_like = |other: &&Asking| {
            other.id != asking.id && other.asked.agent == asking.asked.agent && other.asked.needs == asking.asked.needs
        };
        for other in all.iter().filter(is_like).filter(|other| other.at <= asking.at) {
            match other.state {
                State::Used { .. } => before.used += 1,
                State::Denied { .. } => before.denied += 1,
                _ => before.other += 1,
            }
        }
        let need = |(action, resource): &(String, String)| Need {
            action: action.clone(),
            resource: visible(resource).into_owned(),
        };
        let requirements = asking.asked.requirements.iter().map(|one| Requirement {
            policy: one.policy.clone(),
            groups: one.groups.clone(),
            needed: one.needed,
            sponsor_may_approve: one.sponsor_may,
        });
        let votes = asking.votes.iter().map(|vote| Vote {
            by: vote.by.clone(),
            reason: vote.reason.clone(),
            reach: vote.scope.into(),
            until: (vote.until != 0).then(|| at(vote.until)),
        });
        let (state, denied, used_by) = match &asking.state {
            State::Approved => (QuestionState::Approved, None, None),
            State::Denied { by, reason } => {
                let denial = Denial { by: by.clone(), reason: reason.clone() };
                (QuestionState::Denied, Some(denial), None)
            }
            State::Expired => (QuestionState::Expired, None, None),
            State::Pending => (QuestionState::Pending, None, None),
            State::Superseded => (QuestionState::Superseded, None, None),
            State::Used { call } => (QuestionState::Used, None, Some(call.to_string())),
            State::Withdrawn => (QuestionState::Withdrawn, None, None),
        };
        Self {
            id: asking.id.to_string(),
            state,
            asked: at(asking.at),
            expires: at(asking.expires),
            agent: asking.asked.agent.clone(),
            session: asking.asked.session.to_string(),
            sponsor: asking.asked.sponsor.clone(),
            call: asking.asked.call.to_string(),
            used_by,
            needs: asking.asked.needs.iter().map(need).collect(),
            requirements: requirements.collect(),
            votes: votes.collect(),
            denied,
            waiting: u32::try_from(asking.waiting).unwrap_or(u32::MAX),
            about: About::of(&asking.asked.about),
            before,
        }
    }
}

pub(crate) fn at(millis: u64) -> OffsetDateTime {
    let nanoseconds = i128::from(millis) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Questions, the oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Questions {
    /// Those that the approver may answer; with `ended`, those of the last day that are over, too.
    pub questions: Vec<Question>,
}

/// A yes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Approve {
    /// Why, for the record.
    #[schema(max_length = 2000)]
    pub reason: String,
    /// How far it reaches.
    #[serde(rename = "for")]
    pub reach: Reach,
    /// For so many minutes, if it reaches beyond this call.
    #[schema(minimum = 1, maximum = 43200)]
    pub minutes: Option<u64>,
}

/// A no.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Deny {
    /// Why, for the agent, who reads it in the error, and for the record.
    #[schema(max_length = 2000)]
    pub reason: String,
}

/// Something that is a JSON object and nothing else: serde would take a struct's members from a list, too.
#[derive(Clone, Debug)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members))
            }
        }

        deserializer.deserialize_map(Members(PhantomData)).map(Self)
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Me {
    /// By what name they approve, and are recorded.
    pub name: String,
    /// What people call them.
    pub display_name: Option<String>,
    /// Their provider.
    pub issuer: String,
    /// Who they are to it.
    pub subject: String,
    /// The approvers' groups that they are in now.
    pub groups: Vec<String>,
    /// What a browser must send as `x-csrf-token` with everything but GET.
    pub csrf_token: Option<String>,
    /// When they must sign in again.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub session_ends: Option<OffsetDateTime>,
}

/// Why something isn't done (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// HTTP's status.
    pub status: u16,
    /// For programs: `bad-request`, `busy`, `forbidden`, `not-found`, `not-pending`, `sign-in`, `unavailable` and the like.
    pub code: String,
    /// For people.
    pub detail: String,
    /// More, if there is any.
    #[serde(flatten)]
    #[schema(ignore)]
    pub more: BTreeMap<String, Value>,
}
