//! Questions by name: views of the migrations, and what each has to be told.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Warehouse, WarehouseError};

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

#[derive(serde::Deserialize)]
struct JsonCompact {
    meta: Vec<Column>,
    data: Vec<Vec<Value>>,
}

#[derive(serde::Deserialize)]
struct Column {
    name: String,
}

impl Warehouse {
    /// Asks a question of this warehouse's tenant; at most `limit` rows.
    pub async fn ask(&self, question: &Question, arguments: &Arguments, limit: u64) -> Result<Answer, WarehouseError> {
        let failed = |source| self.failed(&format!("answer `{}`", question.name), source);
        let mut given = Vec::new();
        for parameter in question.parameters {
            let text = match parameter {
                Agent => arguments.agent.clone(),
                Resource => arguments.resource.clone(),
                Session => arguments.session.map(|session| session.to_string()),
                Since => Some(arguments.since.unix_timestamp().to_string()),
                Until => Some(arguments.until.unix_timestamp().to_string()),
            };
            let text =
                text.ok_or_else(|| WarehouseError::Unasked { question: question.name, lacks: parameter.name() })?;
            given.push((parameter.name(), text));
        }
        let list: Vec<_> = given.iter().map(|(name, _)| format!("{name} = ?")).collect();
        let view =
            if list.is_empty() { question.name.to_owned() } else { format!("{}({})", question.name, list.join(", ")) };
        let sql = format!("SELECT * EXCEPT tenant FROM {view} WHERE tenant = ? LIMIT ?");
        let mut query = self.client().query(&sql);
        for (_, text) in &given {
            query = query.bind(text);
        }
        let query = query.bind(&self.config().tenant).bind(limit);
        // Counts beyond 2^53 would lose their last digits in many a reader of JSON, and those of ours don't.
        let query = query.with_setting("output_format_json_quote_64bit_integers", "0");
        let bytes = query.fetch_bytes("JSONCompact").map_err(failed)?.collect().await.map_err(failed)?;
        let answer: JsonCompact = serde_json::from_slice(&bytes)
            .map_err(|error| WarehouseError::Row { table: question.name, why: error.to_string() })?;
        let columns = answer.meta.into_iter().map(|column| column.name).collect();
        Ok(Answer { columns, rows: answer.data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_is_a_view_with_these_parameters_and_is_in_the_docs() {
        let sql: String = crate::steps::STEPS.iter().map(|(_, sql)| *sql).collect();
        let docs = include_str!("../../../docs/queries.md");
        for question in QUESTIONS {
            let head = format!("CREATE OR REPLACE VIEW {} AS\n", question.name);
            let (_, view) = sql.split_once(&head).unwrap_or_else(|| panic!("no view {}", question.name));
            let view = view.split(";\n").next().unwrap_or_default();
            for parameter in [Agent, Resource, Session, Since, Until] {
                let taken = view.contains(&format!("{{{}:", parameter.name()));
                assert_eq!(taken, question.parameters.contains(&parameter), "{} {}", question.name, parameter.name());
            }
            assert!(docs.contains(&format!("## {}: {}", question.name, question.asks)), "{}", question.name);
        }
    }
}
