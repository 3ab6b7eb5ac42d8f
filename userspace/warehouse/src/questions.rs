//! Questions by name: views of the migrations.

use chaperone_query::{
    Answer, Arguments,
    Parameter::{Agent, Resource, Session, Since, Until},
    Question,
};
use serde_json::Value;

use crate::{Warehouse, WarehouseError};

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
    use chaperone_query::QUESTIONS;

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
