//! A call that waits for a person: what makes it the same call when it comes again, what people are shown of it, and how
//! it is held.
//!
//! Clients give up reading after a minute, and people take longer. Over HTTP/1.1 an interim answer now and then starts a
//! client's clock anew; and after `approvals.hold` the client is told to try again, and its retry joins the question.

use std::{borrow::Cow, time::Duration};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use chaperone_model::{ApprovalId, Call, Decision, OutcomeStatus, Payload, Reason, Verdict};
use chaperone_policy::{
    Question,
    approvals::{Asked, Fingerprint, Requirement, Standing, State},
};
use http::{HeaderMap, header::USER_AGENT, request::Parts};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, interval_at, sleep};

use crate::{
    call::{
        error::{CallError, Kind, Refusal},
        exchange::{Exchange, RequestBody},
    },
    http::interims::Interims,
    identities::IdentityState,
};

/// How long a call is held at most whose client can't be told that it takes longer. Its read timeout should not be over: that of
/// the AWS SDK for Java's client by Netty is 30 seconds, those of others that speak HTTP/2 are a minute.
const UNTOLD: Duration = Duration::from_secs(25);
/// How much people are shown of a call's parameters, in bytes of JSON.
const SHOWN: usize = 16 << 10;
/// Members that tell one attempt from another and that SDKs make up: botocore's models mark them as idempotency tokens.
/// Those among the marked whose names may mean something else elsewhere (`RequestId`) are not here.
const TOKENS: [&str; 11] = [
    "ClientRequestToken",
    "ClientToken",
    "CreationToken",
    "CreatorRequestId",
    "ExecuteToken",
    "IdempotencyToken",
    "ProvisionToken",
    "TerminateToken",
    "UpdateToken",
    "clientRequestToken",
    "clientToken",
];
/// Header fields that differ each time a client makes the same call, or that mean nothing for what it does.
const VARYING: [&str; 18] = [
    "accept",
    "accept-encoding",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "amz-sdk-retry",
    "authorization",
    "connection",
    "content-length",
    "date",
    "expect",
    "host",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-user-agent",
    "x-amzn-trace-id",
];

/// Holds a call until it may go out, and says who approved it; or says why it may not, or not yet.
pub(super) async fn wait(
    exchange: &Exchange,
    parts: &Parts,
    call: &Call,
    question: &Question,
    identity: &IdentityState,
) -> Result<String, CallError> {
    let desk = exchange.connection.plane.approvals.clone();
    let settings = desk.settings();
    let body = bound_body(exchange, parts, call)?;
    let session = &exchange.connection.session.session;
    let asked = Asked {
        fingerprint: fingerprint(exchange, parts, call, &body),
        call: exchange.id,
        session: session.id,
        agent: session.agent.clone(),
        sponsor: exchange.connection.plane.identities.sponsor(identity),
        needs: question.refused.iter().map(|one| (one.action.clone(), one.resource.clone())).collect(),
        requirements: Requirement::of(question),
        about: about(exchange, call, question).into(),
    };
    let unavailable = |error: &dyn std::fmt::Display| Refusal {
        kind: Kind::Unavailable,
        reason: Reason::Waiting,
        message: format!("this call needs approval, and nobody can be asked now: {error}"),
        outcome: OutcomeStatus::Failed,
    };
    // What is large doesn't lie in memory until somebody answers: it comes again with the retry.
    let interims = exchange.interims.as_ref().filter(|_| bears_interims(&parts.headers));
    let hold = match interims {
        _ if body.len() > settings.body_bytes => Duration::ZERO,
        Some(_) => settings.hold,
        None => settings.hold.min(UNTOLD),
    };
    drop(body);
    let (standing, waiting) = desk.ask(asked).await.map_err(|error| unavailable(&error))?;
    let Some(mut waiting) = waiting else { return settled(standing, question) };
    let end = sleep(hold);
    tokio::pin!(end);
    let mut tick = interval_at(Instant::now() + settings.interim, settings.interim);
    loop {
        tokio::select! {
            biased;
            standing = waiting.decided() => return settled(standing.map_err(|error| unavailable(&error))?, question),
            () = &mut end => return Err(CallError::Held(Box::new(held(waiting.id(), question)))),
            _ = tick.tick() => interims.map(Interims::send).unwrap_or_default(),
        }
    }
}

/// Whether a client takes an interim answer for what it is. The AWS SDK for Java's client by Netty takes it for the answer, which
/// it isn't (RFC 9110, section 15.2), and tells the program that the call failed. Who claims to be it gets none.
fn bears_interims(headers: &HeaderMap) -> bool {
    let agents = headers.get_all(USER_AGENT).iter().chain(headers.get_all("x-amz-user-agent"));
    !agents
        .map(|value| value.as_bytes().to_ascii_lowercase())
        .any(|it| memchr::memmem::find(&it, b"nettynio").is_some())
}

/// What is decided, in words.
fn settled(standing: Standing, question: &Question) -> Result<String, CallError> {
    let (id, state) = match standing {
        Standing::Go { id, by } => return Ok(format!("approved by {} ({id})", by.join(", "))),
        Standing::Wait { id, .. } => return Err(CallError::Held(Box::new(held(id, question)))),
        Standing::Refused { id, state } => (id, state),
    };
    let denial = &question.denial.message;
    let message = match state {
        State::Denied { by, reason } if reason.is_empty() => format!("{denial}; {by} denied it (approval {id})"),
        State::Denied { by, reason } => format!("{denial}; {by} denied it: {reason} (approval {id})"),
        State::Expired => {
            format!("{denial}; nobody answered in time (approval {id}). Run the command again to ask anew")
        }
        other => format!("{denial}; its approval is {} ({id}). Run the command again to ask anew", other.as_str()),
    };
    Err(CallError::Denied(Box::new(Decision { message, ..question.denial.decision() })))
}

/// Not decided yet: for the agent, who reads errors, and for the record.
fn held(id: ApprovalId, question: &Question) -> Decision {
    let who: Vec<&str> = question.approvers.iter().map(|(_, who)| who.as_str()).collect();
    let message = format!("waiting for approval {id} by {}; run the same command again", who.join(" and by "));
    Decision { verdict: Verdict::Deny, message, ..question.denial.decision() }
}

/// What stands for the body: its digest, or what the signature says it is.
fn bound_body(exchange: &Exchange, parts: &Parts, call: &Call) -> Result<Bytes, Refusal> {
    match (&exchange.body, call.payload) {
        (None, _) => Ok(Bytes::new()),
        (Some(RequestBody::Whole(bytes, ..)), _) => Ok(bytes.clone()),
        (Some(RequestBody::Streaming(_)), Payload::DeclaredHash) => {
            let declared = parts.headers.get("x-amz-content-sha256");
            Ok(declared.map(|hash| Bytes::copy_from_slice(hash.as_bytes())).unwrap_or_default())
        }
        (Some(RequestBody::Streaming(body)), _) if http_body::Body::is_end_stream(body) => Ok(Bytes::new()),
        (Some(RequestBody::Streaming(_)), _) => Err(Refusal::denied(
            Kind::AccessDenied,
            Reason::NotSupported,
            "this call needs approval, and its body is sent without a digest of the whole that could be approved. Send it \
             with its SHA-256 (payload_signing_enabled = true, request_checksum_calculation = when_required in the AWS \
             configuration)",
        )),
    }
}

/// Blots out what differs between two runs of one command. What stands in the call more than once may mean something
/// else there, and stays.
fn blot_tokens(parts: &mut [Cow<'_, [u8]>], parameters: &Value) {
    for token in TOKENS.iter().filter_map(|name| parameters.get(name)?.as_str()).filter(|token| is_uuid(token)) {
        let found = |part: &Cow<'_, [u8]>| memchr::memmem::find_iter(part, token).count();
        if parts.iter().map(found).sum::<usize>() == 1
            && let Some((part, at)) = parts.iter_mut().find_map(|part| {
                let at = memchr::memmem::find(part, token.as_bytes())?;
                Some((part, at))
            })
        {
            part.to_mut()[at..at + token.len()].fill(b'-');
        }
    }
}

fn is_uuid(text: &str) -> bool {
    uuid::Uuid::try_parse(text).is_ok()
}

fn fingerprint(exchange: &Exchange, parts: &Parts, call: &Call, body: &[u8]) -> Fingerprint {
    // A session of the next daemon is the same one to its processes, and so to those who are asked.
    let session = &exchange.connection.session.session;
    let cgroup = session.cgroup.0.to_string();
    let boot = &exchange.connection.plane.placeholders.1;
    let fixed: [&str; 8] = [
        &session.agent,
        &cgroup,
        boot,
        exchange.method.as_str(),
        &exchange.host,
        parts.uri.path(),
        &call.service,
        &call.operation,
    ];
    let mut all: Vec<Cow<'_, [u8]>> = fixed.iter().map(|part| part.as_bytes().into()).collect();
    let query = parts.uri.query().unwrap_or_default().split('&');
    let mut query: Vec<&str> = query.filter(|pair| !is_signature(pair.split('=').next().unwrap_or_default())).collect();
    query.sort_unstable();
    all.push(query.join("&").into_bytes().into());
    for (name, value) in fields(&parts.headers) {
        all.extend([name.as_bytes().into(), value.into()]);
    }
    // It may be large, and is copied only where there is a token in it.
    all.push(body.into());
    blot_tokens(&mut all, &call.parameters);
    let mut sha = Context::new(&SHA256);
    for part in all {
        sha.update(&(part.len() as u64).to_be_bytes());
        sha.update(&part);
    }
    Fingerprint(sha.finish().as_ref().try_into().expect("BUG: SHA-256 has 32 bytes"))
}

/// Query parameters of a presigned request's signature.
fn is_signature(name: &str) -> bool {
    const OF_SIGNATURES: [&str; 5] =
        ["X-Amz-Credential", "X-Amz-Date", "X-Amz-Security-Token", "X-Amz-Signature", "X-Amz-Expires"];
    OF_SIGNATURES.iter().any(|own| own.eq_ignore_ascii_case(name))
}

fn fields(headers: &HeaderMap) -> Vec<(&str, &[u8])> {
    let kept = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    // A body's own digest is in the fingerprint by itself, without its tokens.
    let mut kept: Vec<_> = kept
        .filter(|(name, _)| {
            !VARYING.contains(name) && *name != "x-amz-content-sha256" && !name.starts_with("x-amz-checksum")
        })
        .collect();
    kept.sort_unstable();
    kept
}

/// What people are shown.
fn about(exchange: &Exchange, call: &Call, question: &Question) -> Value {
    let process = &exchange.connection.process;
    let mut parameters = masked("", &call.parameters);
    if parameters.to_string().len() > SHOWN {
        parameters = json!({ "cut": "the parameters are too long to show; the record has them" });
    }
    // All that need approval are listed by themselves.
    let mut left = SHOWN;
    let resources: Vec<&String> = call
        .resources
        .iter()
        .take_while(|resource| {
            let room = left.checked_sub(resource.len());
            left = room.unwrap_or(0);
            room.is_some()
        })
        .collect();
    json!({
        "agent": exchange.connection.session.session.agent,
        "command": process.argv,
        // Looking at this link takes no lock that the process could hold. It describes, like the arguments.
        "directory": std::fs::read_link(format!("/proc/{}/cwd", process.pid)).unwrap_or_default(),
        "executable": process.exe,
        "host": exchange.host,
        "method": exchange.method.as_str(),
        "path": exchange.path,
        "service": call.service,
        "operation": call.operation,
        "region": call.region,
        "account": call.account,
        "resources": resources,
        "parameters": parameters,
        "policies": question.denial.policies.iter().map(|policy| policy.id.as_str()).collect::<Vec<_>>(),
        "why": question.denial.message,
    })
}

/// Values of members whose names say that they are secret are not shown.
fn masked(name: &str, value: &Value) -> Value {
    const SECRET: [&str; 9] = [
        "apikey",
        "authtoken",
        "credential",
        "passphrase",
        "password",
        "privatekey",
        "secret",
        "sessiontoken",
        "token",
    ];
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    match value {
        Value::Object(members) => Value::Object(
            members.iter().map(|(name, inner)| (name.clone(), masked(name, inner))).collect::<Map<_, _>>(),
        ),
        Value::Array(all) => Value::Array(all.iter().map(|inner| masked(name, inner)).collect()),
        Value::String(_) if SECRET.iter().any(|secret| plain.contains(secret)) && !plain.ends_with("arn") => {
            "[not shown]".into()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_makes_up_for_each_attempt_is_not_part_of_the_call() {
        let parameters = |token: &str| json!({ "ClientToken": token, "InstanceType": "t3.micro" });
        let body = |token: &str| format!("Action=RunInstances&ClientToken={token}&InstanceType=t3.micro").into_bytes();
        let (one, other) = ("5b0b2f0e-7e7b-4d5a-9c1f-0a1b2c3d4e5f", "6c1c3a1f-8f8c-4e6b-8d2a-1b2c3d4e5f60");
        let blotted = |body: Vec<u8>, parameters: &Value| {
            let mut parts = [b"POST"[..].into(), body.into()];
            blot_tokens(&mut parts, parameters);
            parts
        };
        let seen = |token: &str| blotted(body(token), &parameters(token));
        assert_eq!(seen(one), seen(other));
        // One that is chosen is the call's own.
        assert_ne!(seen("deploy-1"), seen("deploy-2"));
        assert_ne!(blotted(body(one), &json!({ "RequestId": one })), seen(one));
        // And nothing else can be made to look like one.
        let twice = |id: &str| [body(id), format!("&KeyId={id}").into_bytes()].concat();
        assert_ne!(blotted(twice(one), &parameters(one)), blotted(twice(other), &parameters(other)));
    }

    #[test]
    fn a_client_that_takes_interim_answers_for_the_answer_gets_none() {
        let bears = |name: &'static str, value: &'static str| {
            bears_interims(&HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())]))
        };
        assert!(!bears("user-agent", "aws-sdk-java/2.40.0 md/io#async md/http#NettyNio ua/2.1"));
        assert!(!bears("x-amz-user-agent", "aws-sdk-java/2.20.0 io/async http/NettyNio"));
        assert!(bears("user-agent", "aws-sdk-java/2.40.0 md/io#sync md/http#Apache ua/2.1"));
        assert!(bears_interims(&HeaderMap::new()));
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = masked(
            "",
            &json!({
                "MasterUserPassword": "hunter2", "SecretString": "x", "Tags": [{ "Key": "a", "Value": "b" }],
                "Nested": { "AuthTokens": ["y"] }, "SecretArn": "arn:aws:secretsmanager:::secret:a",
            }),
        );
        let text = shown.to_string();
        assert!(!text.contains("hunter2") && !text.contains("\"x\"") && !text.contains("\"y\""), "{text}");
        assert!(text.contains("\"b\"") && text.contains("arn:aws:secretsmanager"), "{text}");
    }
}
