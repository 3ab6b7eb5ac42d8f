//! Intents that fit: a call that is permitted is recorded however much it says.
//!
//! What is too long is cut where it says the least for its length. Each cut leaves a mark with the length and digest of
//! the whole intent, and every part has a share of the room, so that the smallest intent always fits. What was decided
//! is decided: nothing here is read by a policy.

use std::sync::Arc;

use chaperone_model::{CallIntent, TRUNCATED};
use serde_json::{Map, Value};

use crate::record::sha256;

/// The intent, cut to `max` bytes of JSON. `whole` is its JSON.
pub(crate) fn fitted(intent: &CallIntent, whole: &[u8], max: usize) -> CallIntent {
    let mark = format!("…[cut from {} bytes, sha256 {}]", whole.len(), hex::encode(sha256(whole)));
    let cut = Cut { mark: &mark };
    let mut intent = intent.clone();
    // Shares of the room, in sixty-fourths: 51 together. Names of services, actions, policies' versions are the rest.
    let room = |shares: usize| max / 64 * shares;
    cut.text(&mut intent.target, room(4));
    cut.text(&mut intent.host, room(1));
    cut.text(&mut intent.method, room(1));
    let headers = &mut intent.head.headers;
    for (name, value) in headers.iter_mut() {
        cut.text(name, room(1));
        cut.text(value, room(2));
    }
    cut.list(headers, room(8), |(name, value)| length(name) + length(value) + 6, |mark| ("…".into(), mark.into()));
    let mut process = (*intent.process).clone();
    cut.text(&mut process.exe, room(1));
    cut.texts(&mut process.argv, room(2));
    intent.process = Arc::new(process);
    cut.texts(&mut intent.decision.policies, room(2));
    cut.text(&mut intent.decision.message, room(2));
    if let Some(call) = &mut intent.call {
        cut.texts(&mut call.candidates, room(1));
        cut.texts(&mut call.unread, room(1));
        cut.texts(&mut call.references.arns, room(3));
        cut.texts(&mut call.references.accounts, room(1));
        let kept = cut.texts(&mut call.resources, room(10));
        call.pairs.retain(|(_, resource)| usize::from(*resource) < kept);
        call.pairs.truncate(room(2) / "[65535,65535],".len());
        call.unknown.truncate(room(4) / 512);
        for unknown in &mut call.unknown {
            for text in [&mut unknown.pattern, &mut unknown.why] {
                let mut owned = text.clone().into_owned();
                cut.text(&mut owned, 200);
                *text = owned.into();
            }
        }
        let (mut left, mut any) = (room(8), false);
        let mut parameters = std::mem::take(&mut call.parameters);
        cut_value(&mut parameters, &mut left, &mut any);
        if any && let Value::Object(members) = &mut parameters {
            members.insert(TRUNCATED.to_owned(), Value::Bool(true));
            members.insert("$whole".to_owned(), Value::String(mark.clone()));
        }
        call.parameters = parameters;
    }
    intent
}

/// How long a text is as JSON.
fn length(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum::<usize>() + 2
}

struct Cut<'a> {
    mark: &'a str,
}

impl Cut<'_> {
    /// Cuts a text to so many bytes of JSON, the mark within them.
    fn text(&self, text: &mut String, room: usize) {
        if length(text) <= room {
            return;
        }
        let mut left = room.saturating_sub(length(self.mark));
        let mut end = 0;
        for (at, c) in text.char_indices() {
            let cost = length(c.encode_utf8(&mut [0; 4])) - 2;
            if cost > left {
                break;
            }
            left -= cost;
            end = at + c.len_utf8();
        }
        text.truncate(end);
        if room >= length(self.mark) {
            text.push_str(self.mark);
        }
    }

    /// Cuts a list to so many bytes of JSON. How many of its own elements are left.
    fn list<T>(&self, all: &mut Vec<T>, room: usize, of: impl Fn(&T) -> usize, mark: impl Fn(&str) -> T) -> usize {
        if all.iter().map(|one| of(one) + 1).sum::<usize>() <= room {
            return all.len();
        }
        let mut left = room.saturating_sub(length(self.mark) + 16);
        let fits = |one: &&T| {
            let cost = of(one) + 1;
            let fits = cost <= left;
            left = left.saturating_sub(cost);
            fits
        };
        let kept = all.iter().take_while(fits).count();
        all.truncate(kept);
        all.push(mark(self.mark));
        kept
    }

    fn texts(&self, all: &mut Vec<String>, room: usize) -> usize {
        // One long name leaves room for others.
        if all.iter().map(|one| length(one) + 1).sum::<usize>() > room {
            for one in all.iter_mut() {
                self.text(one, room / 4);
            }
        }
        self.list(all, room, |one| length(one), str::to_owned)
    }
}

/// Cuts a document, first elements first. Long texts keep their beginnings.
fn cut_value(value: &mut Value, left: &mut usize, any: &mut bool) {
    let longest = (*left / 4).min(2048);
    match value {
        Value::String(text) => {
            if length(text) > longest {
                *any = true;
                let mut end = (longest / 6).min(text.len());
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                text.truncate(end);
                text.push('…');
            }
            *left = left.saturating_sub(length(text));
        }
        Value::Array(all) => {
            let mut kept = Vec::new();
            for mut one in std::mem::take(all) {
                if *left < 64 {
                    *any = true;
                    break;
                }
                *left -= 2;
                cut_value(&mut one, left, any);
                kept.push(one);
            }
            *all = kept;
        }
        Value::Object(all) => {
            let mut kept = Map::new();
            for (name, mut one) in std::mem::take(all) {
                if *left < length(&name) + 64 {
                    *any = true;
                    break;
                }
                *left -= length(&name) + 2;
                cut_value(&mut one, left, any);
                kept.insert(name, one);
            }
            *all = kept;
        }
        _ => *left = left.saturating_sub(24),
    }
}
#[cfg(test)]
mod tests {
    use chaperone_model::{CallId, Event, SessionId, UnknownResources};
    use serde_json::json;

    use super::*;
    use crate::samples;

    fn intent() -> CallIntent {
        match samples::intent(CallId::new(), SessionId::new()) {
            Event::CallIntent(intent) => *intent,
            other => panic!("{other:?}"),
        }
    }

    fn fit(intent: &CallIntent, max: usize) -> CallIntent {
        let whole = serde_json::to_vec(intent).unwrap();
        let fitted = fitted(intent, &whole, max);
        let text = serde_json::to_string(&Event::CallIntent(Box::new(fitted.clone()))).unwrap();
        assert!(text.len() <= max, "{} of {max}", text.len());
        let back: Event = serde_json::from_str(&text).unwrap();
        assert_eq!(back, Event::CallIntent(Box::new(fitted.clone())));
        fitted
    }

    #[test]
    fn many_events_are_recorded_in_part() {
        let mut many = intent();
        let events: Vec<_> = (0..1000).map(|i| json!({"timestamp": i, "message": "x".repeat(600)})).collect();
        many.call.as_mut().unwrap().parameters = json!({"logGroupName": "g", "logEvents": events});
        let call = fit(&many, 512 << 10).call.unwrap();
        assert_eq!(call.parameters["$truncated"], true);
        assert!(call.parameters["$whole"].as_str().unwrap().contains("sha256"));
        assert!(call.parameters["logEvents"].as_array().unwrap().len() > 50);
        assert_eq!(call.resources, ["arn:aws:s3:::bucket/key"]);
    }

    #[test]
    fn the_worst_still_fits() {
        let mut worst = intent();
        let control = "\u{1}".repeat(9000);
        worst.target = control.clone();
        worst.head.headers = (0..200).map(|i| (format!("x-{i}"), control.clone())).collect();
        worst.decision.policies = vec![control.clone(); 50];
        worst.decision.message = control.repeat(20);
        let call = worst.call.as_mut().unwrap();
        call.resources = (0..1000).map(|i| format!("arn:aws:s3:::bucket/{i}{}", "\"".repeat(1000))).collect();
        call.pairs = (0..1000).flat_map(|resource| (0..20).map(move |action| (action, resource))).collect();
        call.references.arns = call.resources.clone();
        let unknown = UnknownResources {
            action: None,
            pattern: control.clone().into(),
            why: control.clone().into(),
            alias: false,
        };
        call.unknown = vec![unknown; 1000];
        call.parameters =
            json!({"a": vec![control.clone(); 100], "b": {"c": vec![1; 100_000]}, "d": vec![vec![0; 3]; 9000]});
        for max in [16 << 10, 64 << 10, 512 << 10] {
            let call = fit(&worst, max).call.unwrap();
            let places = call.resources.len();
            assert!(call.pairs.iter().all(|(_, resource)| usize::from(*resource) < places));
            assert!(call.resources.last().unwrap().contains("sha256"));
        }
    }

    #[test]
    fn what_fits_is_left_alone() {
        let plain = intent();
        assert_eq!(fit(&plain, 16 << 10), plain);
    }
}
