//! SQS's digests of messages' texts. Clients hold them against the text that they got, and fail where they don't fit;
//! and a digest of what was masked would tell whether a guess is right. Where something was masked, those of texts are
//! made anew, and those of attributes are left out, which clients take.
//!
//! <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_Message.html>

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use chaperone_model::{Call, Protocol};
use http::response;
use md5::{Digest as _, Md5};
use serde_json::Value;

use crate::body::{
    masked::MaskedLog,
    transform::{BodyTransform, Mode, TransformError},
};

/// Of attributes: they may be left out.
const OF_ATTRIBUTES: [&str; 2] = ["MD5OfMessageAttributes", "MD5OfMessageSystemAttributes"];

/// An answer of SQS's with digests.
pub(crate) struct MessageDigests {
    log: MaskedLog,
    /// In a call into which values went: the digests of what the agent sent, by the entry's id in a batch.
    sent: Option<BTreeMap<String, String>>,
    xml: bool,
    held: Vec<Bytes>,
}

impl MessageDigests {
    /// `None` for every other call's answer. What it works on is masked before.
    pub(crate) fn of(call: &Call, log: &MaskedLog, unmasked: bool) -> Option<Box<dyn BodyTransform>> {
        if call.service != "sqs" {
            return None;
        }
        let sent = match &*call.operation {
            "ReceiveMessage" => None,
            // Of texts that weren't kept whole there is no digest.
            "SendMessage" | "SendMessageBatch" if unmasked && call.has_cut_texts() => Some(BTreeMap::new()),
            "SendMessage" | "SendMessageBatch" if unmasked => Some(sent(&call.parameters)),
            _ => return None,
        };
        let xml = matches!(call.protocol, Protocol::Query);
        Some(Box::new(Self { log: log.clone(), sent, xml, held: Vec::new() }))
    }

    fn is_masked(&self) -> bool {
        self.sent.is_some() || !self.log.lock().is_empty()
    }
}

/// The digests of a request's messages as they were sent.
fn sent(parameters: &Value) -> BTreeMap<String, String> {
    let of = |message: &Value| message["MessageBody"].as_str().map(|text| digest(text.as_bytes()));
    let mut all = BTreeMap::new();
    all.extend(of(parameters).map(|digest| (String::new(), digest)));
    for entry in parameters["Entries"].as_array().into_iter().flatten() {
        let id = entry["Id"].as_str().unwrap_or_default().to_owned();
        all.extend(of(entry).map(|digest| (id, digest)));
    }
    all
}

fn digest(text: &[u8]) -> String {
    hex::encode(Md5::digest(text))
}

impl BodyTransform for MessageDigests {
    fn reads(&self) -> bool {
        true
    }

    fn head(&mut self, head: &mut response::Parts) -> Mode {
        if head.status.is_success() { Mode::Whole } else { Mode::Untouched }
    }

    fn push(&mut self, bytes: Bytes, _: &mut Vec<Bytes>) -> Result<(), TransformError> {
        self.held.push(bytes);
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), TransformError> {
        if !self.is_masked() {
            out.append(&mut self.held);
            return Ok(());
        }
        let body = std::mem::take(&mut self.held).concat();
        let wrong = |what: &str| TransformError(format!("its digests can't be made anew: it isn't {what}"));
        out.push(if self.xml {
            let text = std::str::from_utf8(&body).map_err(|_| wrong("text"))?;
            in_xml(text, self.sent.as_ref()).ok_or_else(|| wrong("SQS's XML"))?.into()
        } else {
            let mut answer: Value = serde_json::from_slice(&body).map_err(|_| wrong("JSON"))?;
            in_json(&mut answer, self.sent.as_ref());
            serde_json::to_vec(&answer).map_err(|_| wrong("JSON"))?.into()
        });
        Ok(())
    }
}

/// In an answer, and in each message or entry of its lists.
fn in_json(value: &mut Value, sent: Option<&BTreeMap<String, String>>) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(|it| in_json(it, sent)),
        Value::Object(members) => {
            for name in OF_ATTRIBUTES {
                members.remove(name);
            }
            if members.contains_key("MD5OfBody") {
                let body = members.get("Body").and_then(Value::as_str).unwrap_or_default();
                let digest = digest(body.as_bytes());
                members.insert("MD5OfBody".to_owned(), digest.into());
            }
            if members.contains_key("MD5OfMessageBody") {
                let id = members.get("Id").and_then(Value::as_str).unwrap_or_default();
                match sent.and_then(|all| all.get(id)) {
                    Some(digest) => members.insert("MD5OfMessageBody".to_owned(), digest.clone().into()),
                    None => members.remove("MD5OfMessageBody"),
                };
            }
            for list in ["Messages", "Successful"] {
                if let Some(list) = members.get_mut(list) {
                    in_json(list, sent);
                }
            }
        }
        _ => {}
    }
}

/// The same in XML, whose elements of these names hold texts alone; `None` if one doesn't end.
fn in_xml(text: &str, sent: Option<&BTreeMap<String, String>>) -> Option<String> {
    const MESSAGES: [&str; 3] = ["Message", "SendMessageBatchResultEntry", "SendMessageResult"];
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    loop {
        let next = MESSAGES.iter().filter_map(|name| Some((rest.find(&format!("<{name}>"))?, *name))).min();
        let Some((start, name)) = next else { break };
        out.push_str(&rest[..start]);
        let end = rest[start..].find(&format!("</{name}>"))? + start;
        let mut message = rest[start..end].to_owned();
        for name in OF_ATTRIBUTES {
            put(&mut message, name, None)?;
        }
        let body = digest(unescaped(content(&message, "Body").unwrap_or_default()).as_bytes());
        put(&mut message, "MD5OfBody", Some(&body))?;
        let id = content(&message, "Id").unwrap_or_default().to_owned();
        let own = sent.and_then(|all| all.get(&id)).map(String::as_str);
        put(&mut message, "MD5OfMessageBody", own)?;
        out.push_str(&message);
        rest = &rest[end..];
    }
    out.push_str(rest);
    Some(out)
}

/// An element's text.
fn content<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let inner = &text[text.find(&open)? + open.len()..];
    Some(&inner[..inner.find(&close)?])
}

/// Puts another text into an element that is there, or takes the element away.
fn put(text: &mut String, name: &str, new: Option<&str>) -> Option<()> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let Some(start) = text.find(&open) else { return Some(()) };
    let inner = start + open.len();
    let end = text[inner..].find(&close)? + inner;
    match new {
        Some(new) => text.replace_range(inner..end, new),
        None => text.replace_range(start..end + close.len(), ""),
    }
    Some(())
}

/// Without XML's references.
fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    let mut parts = text.split('&');
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (name, rest) = part.split_once(';').unwrap_or((part, ""));
        let number = name.strip_prefix('#').and_then(|it| match it.strip_prefix('x') {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => it.parse().ok(),
        });
        out.extend(match name {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            _ => number.and_then(char::from_u32),
        });
        out.push_str(rest);
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use chaperone_model::Masked;

    use super::*;

    fn call(operation: &str, protocol: &str, parameters: &Value) -> Call {
        let call = serde_json::json!({
            "partition": "aws", "region": null, "account": null, "service": "sqs", "signing_name": "sqs",
            "operation": operation, "protocol": protocol, "actions": [], "resources": [], "payload": "none",
            "parameters": parameters,
        });
        serde_json::from_value(call).unwrap()
    }

    fn answer(call: &Call, masked: bool, unmasked: bool, body: &str) -> Option<String> {
        let log = MaskedLog::default();
        let mut digests = MessageDigests::of(call, &log, unmasked)?;
        let mut head = http::Response::new(()).into_parts().0;
        assert_eq!(digests.head(&mut head), Mode::Whole);
        let mut out = Vec::new();
        for part in body.as_bytes().chunks(5) {
            digests.push(Bytes::copy_from_slice(part), &mut out).unwrap();
        }
        if masked {
            log.lock().push(Masked { rule: "r".into(), path: "p".into(), count: 1 });
        }
        digests.finish(&mut out).unwrap();
        Some(String::from_utf8(out.concat()).unwrap())
    }

    /// RFC 1321, A.5: of `abc`.
    const ABC: &str = "900150983cd24fb0d6963f7d28e17f72";

    #[test]
    fn digests_fit_what_was_masked() {
        let receive = call("ReceiveMessage", "json", &Value::Null);
        let body = r#"{"Messages":[{"MD5OfMessageAttributes":"x","MD5OfBody":"told","Body":"abc"},{"Body":"x","MD5OfBody":"y"}]}"#;
        assert_eq!(answer(&receive, false, false, body).unwrap(), body);
        let read: Value = serde_json::from_str(&answer(&receive, true, false, body).unwrap()).unwrap();
        assert_eq!(read["Messages"][0], serde_json::json!({ "Body": "abc", "MD5OfBody": ABC }));
        let receive = call("ReceiveMessage", "query", &Value::Null);
        let one = "<Message><MD5OfBody>told</MD5OfBody><MD5OfMessageAttributes>x</MD5OfMessageAttributes><Body>&#97;b&#x63;</Body></Message>";
        let body = format!("<R><ReceiveMessageResult>{one}{one}</ReceiveMessageResult></R>");
        let made = format!("<Message><MD5OfBody>{ABC}</MD5OfBody><Body>&#97;b&#x63;</Body></Message>");
        let made = format!("<R><ReceiveMessageResult>{made}{made}</ReceiveMessageResult></R>");
        assert_eq!(answer(&receive, true, false, &body).unwrap(), made);
    }

    #[test]
    fn a_value_that_went_to_aws_is_not_told_by_its_digest() {
        let sent = serde_json::json!({ "MessageBody": "abc" });
        let send = call("SendMessage", "json", &sent);
        assert!(answer(&send, true, false, "{}").is_none());
        let read =
            answer(&send, false, true, r#"{"MD5OfMessageBody":"real","MD5OfMessageAttributes":"real"}"#).unwrap();
        assert_eq!(read, format!("{{\"MD5OfMessageBody\":\"{ABC}\"}}"));
        let sent = serde_json::json!({ "Entries": [{ "Id": "1", "MessageBody": "abc" }] });
        let batch = call("SendMessageBatch", "json", &sent);
        let told = r#"{"Successful":[{"Id":"1","MD5OfMessageBody":"real"},{"Id":"2","MD5OfMessageBody":"real"}]}"#;
        let read: Value = serde_json::from_str(&answer(&batch, false, true, told).unwrap()).unwrap();
        assert_eq!(read["Successful"], serde_json::json!([{ "Id": "1", "MD5OfMessageBody": ABC }, { "Id": "2" }]));
        let batch = call("SendMessageBatch", "query", &sent);
        let told = "<R><SendMessageBatchResultEntry><Id>1</Id><MD5OfMessageBody>real</MD5OfMessageBody></SendMessageBatchResultEntry></R>";
        assert_eq!(answer(&batch, false, true, told).unwrap(), told.replace("real", ABC));
        // Other queues' calls have none.
        assert!(MessageDigests::of(&call("ListQueues", "json", &Value::Null), &MaskedLog::default(), true).is_none());
    }
}
