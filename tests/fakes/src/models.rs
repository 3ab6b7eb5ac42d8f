//! Services that answer in streams, or with what their clients must be able to read: Bedrock's models, Kinesis' consumers,
//! Lex's bots. What they say is always the same.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures_util::stream;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE, request::Parts};
use http_body_util::{BodyExt as _, StreamBody};

use crate::{
    backend::{self, Answer},
    events,
};

const KINESIS: &str = "Kinesis_20131202.SubscribeToShard";

/// Whether this request is answered here.
pub fn is_for(head: &Parts, host: &str) -> bool {
    ["bedrock-runtime.", "bedrock-mantle.", "runtime-v2-lex.", "transcribestreaming."]
        .iter()
        .any(|name| host.starts_with(name))
        || head.headers.get("x-amz-target").is_some_and(|target| *target == KINESIS)
}

/// What a request that is signed right is answered.
pub fn answer(head: &Parts) -> Answer {
    let last = head.uri.path().rsplit('/').next().unwrap_or_default();
    match last {
        "converse" => json(
            "{\"output\":{\"message\":{\"role\":\"assistant\",\"content\":[{\"text\":\"hello\"}]}},\"stopReason\":\"end_turn\",\
             \"usage\":{\"inputTokens\":1,\"outputTokens\":1,\"totalTokens\":2},\"metrics\":{\"latencyMs\":1}}",
        ),
        "converse-stream" => events(&[
            ("messageStart", "{\"role\":\"assistant\"}".to_owned()),
            ("contentBlockDelta", "{\"contentBlockIndex\":0,\"delta\":{\"text\":\"hel\"}}".to_owned()),
            ("contentBlockDelta", "{\"contentBlockIndex\":0,\"delta\":{\"text\":\"lo\"}}".to_owned()),
            ("messageStop", "{\"stopReason\":\"end_turn\"}".to_owned()),
        ]),
        "invoke-with-response-stream" => events(
            &["{\"n\":1}", "{\"n\":2}"]
                .map(|text| ("chunk", format!("{{\"bytes\":\"{}\"}}", BASE64_STANDARD.encode(text)))),
        ),
        // The Messages API of Anthropic and the Chat Completions of OpenAI, as their SDKs read them.
        "messages" => json(
            "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"stop_reason\":\"end_turn\",\
             \"stop_sequence\":null,\"content\":[{\"type\":\"text\",\"text\":\"hello\"}],\
             \"usage\":{\"input_tokens\":1,\"output_tokens\":1}}",
        ),
        "completions" => json(
            "{\"id\":\"c1\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\
             \"finish_reason\":\"stop\",\"message\":{\"role\":\"assistant\",\"content\":\"hello\"}}],\
             \"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1,\"total_tokens\":2}}",
        ),
        "responses" => json(
            "{\"id\":\"r1\",\"object\":\"response\",\"created_at\":1,\"model\":\"m\",\"status\":\"completed\",\"output\":[{\
             \"type\":\"message\",\"id\":\"m1\",\"role\":\"assistant\",\"status\":\"completed\",\"content\":[{\
             \"type\":\"output_text\",\"text\":\"hello\",\"annotations\":[]}]}],\"tools\":[],\"tool_choice\":\"auto\",\
             \"parallel_tool_calls\":true}",
        ),
        "models" => json(
            "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\",\"created\":1,\"owned_by\":\"o\"}]}",
        ),
        _ if head.headers.get("x-amz-target").is_some_and(|target| *target == KINESIS) => {
            events(&[("initial-response", "{}".to_owned()), shard("1"), shard("2")])
        }
        "text" => json("{\"sessionId\":\"s\"}"),
        "invoke" => json("{\"said\":\"hello\"}"),
        _ => json(""),
    }
}

fn shard(number: &str) -> (&'static str, String) {
    let text = format!("{{\"ContinuationSequenceNumber\":\"{number}\",\"MillisBehindLatest\":0,\"Records\":[]}}");
    ("SubscribeToShardEvent", text)
}

fn json(text: &str) -> Answer {
    backend::text_answer(StatusCode::OK, "application/json", text.to_owned())
}

/// Each in a frame of its own, as they come from a model.
fn events(all: &[(&'static str, String)]) -> Answer {
    let frames: Vec<_> = all.iter().map(|(kind, payload)| events::event(kind, payload)).collect();
    let mut answer = Response::new(StreamBody::new(stream::iter(frames)).boxed_unsync());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/vnd.amazon.eventstream"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_json() {
        for path in
            ["/model/m/converse", "/anthropic/v1/messages", "/v1/chat/completions", "/v1/responses", "/v1/models"]
        {
            let head = http::Request::post(path).body(()).unwrap().into_parts().0;
            let body = futures_util::FutureExt::now_or_never(answer(&head).into_body().collect()).unwrap().unwrap();
            let bytes = body.to_bytes();
            serde_json::from_slice::<serde_json::Value>(&bytes).unwrap();
        }
    }
}
