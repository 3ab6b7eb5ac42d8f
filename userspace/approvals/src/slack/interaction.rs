//! What somebody pressed: the payloads `block_actions` and `view_submission` of Slack's, as far as they matter here.

use chaperone_model::ApprovalId;
use serde_json::Value;

use crate::types::MOST_REASON;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Yes.
    Approve,
    /// They want to say no, and are asked why.
    AskReason { trigger: String },
    /// No.
    Deny { reason: String },
}

/// Somebody pressed something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interaction {
    pub(super) team: String,
    pub(super) user: String,
    pub(super) channel: Option<String>,
    pub(super) id: ApprovalId,
    pub(super) act: Act,
}

impl Interaction {
    /// From the form that Slack posts.
    pub(super) fn of_form(body: &[u8]) -> Option<Self> {
        let mut payloads = form_urlencoded::parse(body).filter(|(name, _)| name == "payload").map(|(_, value)| value);
        let payload = payloads.next()?;
        if payloads.next().is_some() {
            return None;
        }
        Self::of_payload(&serde_json::from_str(&payload).ok()?)
    }

    /// From the payload itself.
    pub(super) fn of_payload(payload: &Value) -> Option<Self> {
        let name = |value: &Value| value.as_str().filter(|text| (1..=64).contains(&text.len())).map(str::to_owned);
        // A user of another workspace, in a channel that is shared, says so.
        let team = name(&payload["user"]["team_id"]).or_else(|| name(&payload["team"]["id"]))?;
        let user = name(&payload["user"]["id"])?;
        let (id, act) = match payload["type"].as_str()? {
            "block_actions" => {
                let [action] = payload["actions"].as_array()?.as_slice() else { return None };
                let act = match action["action_id"].as_str()? {
                    "approve" => Act::Approve,
                    "deny" => Act::AskReason { trigger: payload["trigger_id"].as_str()?.to_owned() },
                    _ => return None,
                };
                (action["value"].as_str()?, act)
            }
            "view_submission" => {
                let view = &payload["view"];
                if view["callback_id"] != "deny" {
                    return None;
                }
                let reason = view["state"]["values"]["reason"]["reason"]["value"].as_str().unwrap_or_default();
                let one_line = |it: char| if it.is_control() { ' ' } else { it };
                let reason: String = reason.trim().chars().map(one_line).take(MOST_REASON / 4).collect();
                (view["private_metadata"].as_str()?, Act::Deny { reason })
            }
            _ => return None,
        };
        Some(Self { team, user, channel: name(&payload["channel"]["id"]), id: id.parse().ok()?, act })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "0197f2b4-7c9e-7d3a-a1b2-3c4d5e6f7081";

    #[test]
    fn what_is_pressed_is_read_and_nothing_else() {
        let user = json!({ "id": "U1", "team_id": "T1" });
        let pressed = |action: &str| {
            json!({ "type": "block_actions", "user": user, "team": { "id": "T1" }, "channel": { "id": "C1" },
                "trigger_id": "1.2.3", "actions": [{ "action_id": action, "value": ID }] })
        };
        let of = |payload: &Value| Interaction::of_payload(payload);
        assert_eq!(of(&pressed("approve")).unwrap().act, Act::Approve);
        assert_eq!(of(&pressed("deny")).unwrap().act, Act::AskReason { trigger: "1.2.3".into() });
        let submitted = json!({ "type": "view_submission", "user": user, "view": { "callback_id": "deny",
            "private_metadata": ID, "state": { "values": { "reason": { "reason": { "value": " in\nuse " } } } } } });
        assert_eq!(of(&submitted).unwrap().act, Act::Deny { reason: "in use".into() });
        let shared = json!({ "user": { "id": "U1", "team_id": "T2" } });
        let mut other = pressed("approve");
        other["user"] = shared["user"].clone();
        assert_eq!(of(&other).unwrap().team, "T2", "the user's own, and not the channel's");
        for (path, value) in [
            ("/type", json!("shortcut")),
            ("/user", json!({})),
            ("/user/id", json!("U".repeat(65))),
            ("/actions", json!([])),
            ("/actions", json!([{ "action_id": "approve", "value": ID }, { "action_id": "approve", "value": ID }])),
            ("/actions/0/value", json!("everything")),
            ("/actions/0/action_id", json!("approve_all")),
        ] {
            let mut wrong = pressed("approve");
            *wrong.pointer_mut(path).unwrap() = value;
            assert_eq!(of(&wrong), None, "{path}");
        }
        for body in ["", "payload=", "payload=%7B%7D", "payload=1&payload=2", "%ff=%ff"] {
            assert_eq!(Interaction::of_form(body.as_bytes()), None, "{body}");
        }
    }
}
