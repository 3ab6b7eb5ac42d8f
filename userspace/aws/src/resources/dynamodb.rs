//! DynamoDB's tables and indexes: by name, in batches, transactions and PartiQL statements.

use std::borrow::Cow;

use chaperone_model::AccessLevel;
use serde_json::{Map, Value};

use super::{Place, checked, names};
use crate::{actions::Requirements, decode::value::MAX_STRING, decode_error::DecodeError};

pub(crate) fn tables(
    needs: &mut Requirements,
    members: &Map<String, Value>,
    place: &Place<'_>,
) -> Result<(), DecodeError> {
    let index = members.get("IndexName").and_then(Value::as_str);
    for name in ["TableName", "SourceTableName", "TargetTableName", "GlobalTableName"] {
        if let Some(name) = members.get(name).and_then(Value::as_str) {
            table(needs, name, index.filter(|_| members.contains_key("TableName")), place)?;
        }
    }
    for (name, value) in members {
        if name.ends_with("Arn")
            && let Some(arn) = value.as_str()
            && (arn.split(':').nth(2) == Some("dynamodb") || names::is_arn_in_disguise(arn))
        {
            names::arn(needs, &checked(arn)?)?;
        }
    }
    if let Some(Value::Object(items)) = members.get("RequestItems") {
        for name in items.keys() {
            table(needs, name, None, place)?;
        }
    }
    for item in members.get("TransactItems").and_then(Value::as_array).into_iter().flatten() {
        for part in item.as_object().into_iter().flat_map(Map::values) {
            if let Some(name) = part.get("TableName").and_then(Value::as_str) {
                table(needs, name, None, place)?;
            }
        }
    }
    Ok(())
}

/// A table, or an index of it, by its name or ARN. Whatever isn't a name as DynamoDB has them could be any.
fn table(needs: &mut Requirements, name: &str, index: Option<&str>, place: &Place<'_>) -> Result<(), DecodeError> {
    if name.len().max(index.map_or(0, str::len)) >= MAX_STRING {
        return Err(DecodeError::TooLarge("resource's name"));
    }
    let is_arn = name.starts_with("arn:");
    let mut arn = match is_arn {
        true if name.splitn(6, ':').nth(5).is_some_and(|name| name.starts_with("table/")) => name.to_owned(),
        // Of another type, with a table's name perhaps.
        true => {
            names::arn(needs, name)?;
            return needs.unknown(place.arn_of("dynamodb", "table/", "*"), Cow::Borrowed("no ARN of a table"), false);
        }
        false if is_name(name) => place.arn_of("dynamodb", "table/", name),
        false => {
            return needs.unknown(place.arn_of("dynamodb", "table/", "*"), Cow::Borrowed("no name of a table"), false);
        }
    };
    match index {
        None if is_arn => return names::arn(needs, &arn),
        Some(_) if is_arn && arn.contains("/index/") => {
            return needs.unknown(
                arn[..=arn.rfind('/').unwrap_or_default()].to_owned() + "*",
                Cow::Borrowed("an index named twice"),
                false,
            );
        }
        None => {}
        Some(index) if is_name(index) => arn.extend(["/index/", index]),
        Some(_) => {
            return needs.unknown(arn + "/index/*", Cow::Borrowed("no name of an index"), false);
        }
    }
    needs.resource(arn)
}

/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html>
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// A transaction is checked item by item, each by what it does to which table. False: an item doesn't say it, so that
/// all of a transaction's actions are needed on everything.
pub(crate) fn transaction(
    needs: &mut Requirements,
    members: &Map<String, Value>,
    place: &Place<'_>,
) -> Result<bool, DecodeError> {
    let mut items = Vec::new();
    for item in members.get("TransactItems").and_then(Value::as_array).into_iter().flatten() {
        let parts = item.as_object().map(Map::iter).into_iter().flatten();
        let before = items.len();
        items.extend(parts.map(|(kind, part)| (kind.as_str(), part.get("TableName").and_then(Value::as_str))));
        if items.len() == before {
            return Ok(false);
        }
    }
    let mut asks = Vec::with_capacity(items.len());
    for (kind, name) in items {
        let (action, level) = match kind {
            "ConditionCheck" => ("dynamodb:ConditionCheckItem", AccessLevel::Read),
            "Delete" => ("dynamodb:DeleteItem", AccessLevel::Write),
            "Put" => ("dynamodb:PutItem", AccessLevel::Write),
            "Update" => ("dynamodb:UpdateItem", AccessLevel::Write),
            _ => return Ok(false),
        };
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(false) };
        asks.push((action, level, name));
    }
    let any = !asks.is_empty();
    for (action, level, name) in asks {
        needs.action(action, level);
        table(needs, name, None, place)?;
        needs.close();
    }
    Ok(any)
}

/// PartiQL is checked statement by statement, each by its first word and its table.
pub(crate) fn part_iql(
    needs: &mut Requirements,
    members: &Map<String, Value>,
    place: &Place<'_>,
) -> Result<(), DecodeError> {
    const UNCLEAR: DecodeError = DecodeError::Body("a PartiQL statement whose table can't be told");
    let statements = members.get("Statements").or_else(|| members.get("TransactStatements"));
    let statements = statements.and_then(Value::as_array).into_iter().flatten();
    let mut all = statements.map(|s| s.get("Statement")).chain(members.get("Statement").map(Some)).peekable();
    if all.peek().is_none() {
        return Err(UNCLEAR);
    }
    for statement in all {
        let statement = statement.and_then(Value::as_str).ok_or(UNCLEAR)?;
        let (word, name, index) = part_iql_statement(statement).ok_or(UNCLEAR)?;
        let (action, level) = match word.as_str() {
            "SELECT" => ("dynamodb:PartiQLSelect", AccessLevel::Read),
            "INSERT" => ("dynamodb:PartiQLInsert", AccessLevel::Write),
            "UPDATE" => ("dynamodb:PartiQLUpdate", AccessLevel::Write),
            "DELETE" => ("dynamodb:PartiQLDelete", AccessLevel::Write),
            _ => return Err(UNCLEAR),
        };
        needs.action(action, level);
        table(needs, &name, index.as_deref(), place)?;
        needs.close();
    }
    Ok(())
}

/// A statement's first word, table and index. In a transaction a condition can stand for a statement:
/// `EXISTS(SELECT …)`, <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ql-functions.exists.html>.
fn part_iql_statement(statement: &str) -> Option<(String, String, Option<String>)> {
    let mut statement = statement.trim();
    if statement.get(..6).is_some_and(|word| word.eq_ignore_ascii_case("EXISTS")) {
        statement = statement[6..].trim_start().strip_prefix('(')?.strip_suffix(')')?.trim();
        statement.get(..6).filter(|word| word.eq_ignore_ascii_case("SELECT"))?;
    }
    let word: String = statement.chars().take_while(char::is_ascii_alphabetic).collect();
    let (table, index) = part_iql_table(statement)?;
    Some((word.to_ascii_uppercase(), table, index))
}

/// The table after FROM, INTO or UPDATE: `table`, `"table"` or `"table"."index"`.
fn part_iql_table(statement: &str) -> Option<(String, Option<String>)> {
    let mut words = statement.split_ascii_whitespace();
    let first = words.next()?.to_ascii_uppercase();
    let rest = match first.as_str() {
        "UPDATE" => statement.trim_start().get(6..)?,
        "SELECT" | "DELETE" | "INSERT" => {
            let keyword = if first == "INSERT" { "INTO" } else { "FROM" };
            let upper = statement.to_ascii_uppercase();
            let mut at = None;
            for (i, _) in upper.match_indices(keyword) {
                let bounded = |c: Option<char>| c.is_none_or(|c| !(c.is_alphanumeric() || c == '_'));
                if bounded(upper[..i].chars().next_back()) && bounded(upper[i + 4..].chars().next()) {
                    // Twice is a nested query or text in quotes: not ours to parse.
                    if at.replace(i + 4).is_some() {
                        return None;
                    }
                }
            }
            statement.get(at?..)?
        }
        _ => return None,
    };
    let rest = rest.trim_start();
    let name = |text: &str| -> Option<(String, usize)> {
        if let Some(quoted) = text.strip_prefix('"') {
            let end = quoted.find('"')?;
            return Some((quoted[..end].to_owned(), end + 2));
        }
        let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))).unwrap_or(text.len());
        (end > 0).then(|| (text[..end].to_owned(), end))
    };
    let (table, end) = name(rest)?;
    let index = match rest[end..].strip_prefix('.') {
        Some(after) => Some(name(after)?.0),
        None => None,
    };
    Some((table, index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_partiql_statements() {
        let table = |text: &str| part_iql_table(text).map(|(t, i)| format!("{t}/{}", i.unwrap_or_default()));
        assert_eq!(table("SELECT * FROM Music WHERE a='b'").as_deref(), Some("Music/"));
        assert_eq!(table("select a from \"Music\".\"idx\"").as_deref(), Some("Music/idx"));
        assert_eq!(table("  UPDATE \"My-Table\" SET a=1").as_deref(), Some("My-Table/"));
        assert_eq!(table("INSERT INTO t VALUE {'a':1}").as_deref(), Some("t/"));
        assert_eq!(table("DELETE FROM t WHERE x = ' FROM other '"), None);
        let statement = |text: &str| part_iql_statement(text).map(|(word, t, _)| format!("{word} {t}"));
        assert_eq!(statement("EXISTS(SELECT * FROM \"t\" WHERE a = 1)").as_deref(), Some("SELECT t"));
        assert_eq!(statement("exists ( select * from t )").as_deref(), Some("SELECT t"));
        assert_eq!(statement("EXISTS(DELETE FROM t)"), None);
        assert_eq!(statement("EXISTS(SELECT * FROM t) FROM u)"), None);
        assert_eq!(table("ſELECT * FROM t"), None);
    }
}
