//! Messages as Slack's Block Kit has them. What agents choose is `plain_text`, where nothing is a link or a mention.

use chaperone_model::visible;
use serde_json::{Value, json};

/// The longest text of a section.
const MOST_SECTION: usize = 2_900;
/// The longest header.
const MOST_HEADER: usize = 150;

/// A question's message: what notifications show, and its blocks.
pub(super) fn question(question: &Value, kind: &str) -> (String, Vec<Value>) {
    // A line's end in what agents choose would begin a line of the message's.
    let text = |value: &Value| visible(value.as_str().unwrap_or_default()).into_owned();
    let list = |value: &Value, show: &dyn Fn(&Value) -> String, by: &str| {
        value.as_array().into_iter().flatten().map(show).collect::<Vec<_>>().join(by)
    };
    let agent = text(&question["agent"]);
    let needs = list(&question["needs"], &|it| format!("{} on {}", text(&it["action"]), text(&it["resource"])), "\n");
    let actions = list(&question["needs"], &|it| text(&it["action"]), ", ");
    let about = &question["about"];
    let command = list(&about["command"], &text, " ");
    let who = list(
        &question["requirements"],
        &|it| format!("{} of {} (policy {})", it["needed"], list(&it["groups"], &text, " or "), text(&it["policy"])),
        "\n",
    );
    let before = &question["before"];
    let votes = list(&question["votes"], &|it| text(&it["by"]), ", ");
    let state = match kind {
        "asked" => format!("Waits for {who}"),
        "denied" => format!("Denied by {}: {}", text(&question["denied"]["by"]), text(&question["denied"]["reason"])),
        "approved" => format!("Approved by {votes}"),
        "used" => format!("Approved by {votes}; the call went out"),
        other => format!("It is {other}"),
    };
    let rows = [
        ("Works for", text(&question["sponsor"])),
        ("Command", command),
        ("In", text(&about["directory"])),
        ("Call", format!("{} {}, {}", text(&about["service"]), text(&about["operation"]), text(&about["region"]))),
        ("Parameters", visible(&about["parameters"].to_string()).into_owned()),
        ("Why you are asked", text(&about["why"])),
        ("The last day before", format!("went out {}×, denied {}×", before["used"], before["denied"])),
        ("Until", text(&question["expires"])),
    ];
    let rows = rows.iter().filter(|(_, value)| !value.is_empty());
    let rows: Vec<_> = rows.map(|(name, value)| format!("{name}: {}", cut(value, 800))).collect();
    let head = format!("{agent} wants {actions}");
    let mut blocks = vec![
        json!({ "type": "header", "text": { "type": "plain_text", "emoji": false, "text": cut(&head, MOST_HEADER) } }),
        section(&needs),
        section(&rows.join("\n")),
        section(&state),
    ];
    if kind == "asked" {
        let button = |action: &str, text: &str, style: &str| {
            json!({ "type": "button", "action_id": action, "style": style, "value": question["id"],
                "text": { "type": "plain_text", "text": text } })
        };
        let buttons = [button("approve", "Allow this call", "primary"), button("deny", "Deny…", "danger")];
        blocks.push(json!({ "type": "actions", "block_id": "answer", "elements": buttons }));
    }
    (escaped(&cut(&format!("{head}: {state}"), 500)), blocks)
}

/// A paragraph.
pub(super) fn section(text: &str) -> Value {
    let text = if text.is_empty() { "–" } else { text };
    json!({ "type": "section", "text": { "type": "plain_text", "emoji": false, "text": cut(text, MOST_SECTION) } })
}

/// Where somebody who denies says why.
pub(super) fn reason(id: &str) -> Value {
    let text = |text: &str| json!({ "type": "plain_text", "text": text });
    json!({ "type": "modal", "callback_id": "deny", "private_metadata": id, "title": text("Deny the call"),
        "submit": text("Deny"), "close": text("Back"),
        "blocks": [{ "type": "input", "block_id": "reason", "optional": true, "label": text("Why, for the agent"),
            "element": { "type": "plain_text_input", "action_id": "reason", "max_length": 500 } }] })
}

fn cut(text: &str, most: usize) -> String {
    let clean = text.chars().map(|it| if it.is_control() && it != '\n' { ' ' } else { it });
    let mut out: String = clean.take(most).collect();
    if text.chars().nth(most).is_some() {
        out.pop();
        out.push('…');
    }
    out
}

/// Notifications' text is always read as Slack's markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_an_agent_says_is_markup_and_all_of_it_fits() {
        let long = "<!channel> *x* ".repeat(2_000);
        let asked = json!({ "id": "1", "agent": "coder", "needs": [{ "action": "s3:DeleteBucket", "resource": long }],
            "requirements": [{ "needed": 1, "groups": ["sre"], "policy": "ask" }], "votes": [], "about": {
                "command": [long], "why": long, "parameters": { "x": long } }, "before": { "used": 0, "denied": 0 } });
        let (text, blocks) = question(&asked, "asked");
        assert!(!text.contains('<') && text.len() < 3_000, "{text}");
        for block in &blocks {
            if let Some(text) = block["text"]["text"].as_str() {
                assert_eq!(block["text"]["type"], "plain_text");
                assert!(text.chars().count() <= 3_000);
            }
        }
        assert_eq!(blocks.last().unwrap()["type"], "actions");
        let mut lying = asked.clone();
        lying["about"]["command"] = json!(["ls\nUntil: tomorrow", "\u{202e}gpj.exe"]);
        let rows = question(&lying, "asked").1[2]["text"]["text"].as_str().unwrap().to_owned();
        assert!(!rows.lines().any(|line| line.starts_with("Until: tomorrow")) && !rows.contains('\u{202e}'), "{rows}");
        assert_eq!(question(&asked, "expired").1.last().unwrap()["type"], "section", "what is over has no buttons");
    }
}
