//! Questions by name, and what each has to be told. In ClickHouse each is a view.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

/// A question that a view answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The view's name.
    pub name: &'static str,
    /// What it answers, for people.
    pub asks: &'static str,
    /// What it has to be told, in the view's order.
    pub parameters: &'static [Parameter],
}

/// Something that a question has to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// An agent's name.
    Agent,
    /// A resource's ARN.
    Resource,
    /// A session's id.
    Session,
    /// From when on.
    Since,
    /// Until before when.
    Until,
}

use Parameter::{Agent, Resource, Session, Since, Until};

/// All of them.
pub const QUESTIONS: &[Question] = &[
    Question { name: "cost_drivers", asks: "Who started what costs money?", parameters: &[Since, Until] },
    Question { name: "denials_by_policy", asks: "Which policies refuse most, and whom?", parameters: &[Since, Until] },
    Question {
        name: "first_time_actions",
        asks: "What has an agent done for the first time?",
        parameters: &[Since, Until],
    },
    Question { name: "foreign_authority", asks: "Did anybody use keys that aren't ours?", parameters: &[Since, Until] },
    Question { name: "gaps", asks: "What is missing?", parameters: &[Since] },
    Question { name: "hosts", asks: "Do all hosts report?", parameters: &[] },
    Question { name: "new_hosts_called", asks: "Which hosts did nobody call before?", parameters: &[Since, Until] },
    Question { name: "refused_destinations", asks: "Where were agents not let go?", parameters: &[Since, Until] },
    Question { name: "risky_calls", asks: "Did anybody do something dangerous?", parameters: &[Since, Until] },
    Question { name: "secrets_asked_for", asks: "Who asked for secrets?", parameters: &[Since, Until] },
    Question { name: "session_timeline", asks: "What happened in this session, in order?", parameters: &[Session] },
    Question { name: "unattributed_commands", asks: "Which commands belong to nobody?", parameters: &[Since, Until] },
    Question {
        name: "volume_elsewhere",
        asks: "How much data went to hosts that aren't AWS's?",
        parameters: &[Since, Until],
    },
    Question {
        name: "volume_out",
        asks: "How much data went to AWS, by whom, and where to?",
        parameters: &[Since, Until],
    },
    Question { name: "what_did", asks: "What did this agent do?", parameters: &[Agent, Since, Until] },
    Question { name: "who_touched", asks: "Who used this resource, and how?", parameters: &[Resource, Since, Until] },
];

impl Question {
    /// The question of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        QUESTIONS.iter().find(|question| question.name == name)
    }
}

impl Parameter {
    /// Its name, in the view and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Agent => "agent",
            Resource => "resource",
            Session => "session",
            Since => "since",
            Until => "until",
        }
    }
}

/// What a question is told.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// The agent's name.
    pub agent: Option<String>,
    /// The resource's ARN.
    pub resource: Option<String>,
    /// The session.
    pub session: Option<Uuid>,
    /// From when on.
    pub since: OffsetDateTime,
    /// Until before when.
    pub until: OffsetDateTime,
}

/// A question's answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The columns' names.
    pub columns: Vec<String>,
    /// The rows, each with a value for every column.
    pub rows: Vec<Vec<Value>>,
}
