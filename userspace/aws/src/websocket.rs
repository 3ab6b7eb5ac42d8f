//! WebSockets: what a handshake asks for, and handshakes that are signed in their query, as browsers and the IoT SDKs do
//! it: checked, and signed again in the same place. (Those that are signed in their head are requests like any other.)
//!
//! What passes after the handshake is between the agent and the service, so that a handshake needs all that its messages
//! can ask for.

use std::fmt;

use chaperone_model::{
    AccessLevel::{Read, Write},
    Call,
};
use http::{Method, Uri, request::Parts};
use percent_encoding::percent_decode_str;
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use crate::{
    AwsCredentials, Endpoint, EventKey, HostKind, HostMatch, PathRules, Placeholder, RequestAuth, SignError, Signer,
    TokenField, VerifyError,
    canonical::{HeaderForm, write_encoded, write_head},
    decode_error::DecodeError,
    endpoint::{EndpointRequirements, clear_path},
    presigned::{Query, rebuilt},
    request_auth::HeaderAuthority,
    resources::Place,
    route,
    sign::{EMPTY_SHA256, Hashed, MAX_CLOCK_SKEW, format_date, hex_of, kept, parse_date, push_names, push_scope},
};

/// What IoT's message broker is signed as. A session token is no part of what is signed there: it is appended.
/// <https://docs.aws.amazon.com/iot/latest/developerguide/iam-users-groups-roles.html>
pub(crate) const IOT: &str = "iotdevicegateway";
/// AWS takes presigned URLs for a week, and Transcribe its own for five minutes. Ours are used at once.
const MAX_EXPIRES: i64 = 7 * 24 * 60 * 60;
const OUR_EXPIRES: i64 = 300;

/// The call that a handshake is. `services` are those that the host's name can stand for.
pub(crate) fn call(
    host: &HostMatch,
    services: &[&str],
    parts: &Parts,
    place: &Place<'_>,
    signing_name: Option<&str>,
) -> Result<Call, DecodeError> {
    let none = || DecodeError::NoOperation { service: "any service's WebSockets".into() };
    if parts.method != Method::GET {
        return Err(none());
    }
    let path = parts.uri.path();
    let asks = match (&host.kind, services) {
        (HostKind::Endpoint(Endpoint::ExecuteApi { api: Some(api) }), _) => execute_api(api, path, place)?,
        (HostKind::Endpoint(Endpoint::TranscribeStreaming), _) => transcribe(path).ok_or_else(none)?,
        (HostKind::Service, ["bedrock-agentcore"]) => agent_core(parts, place).ok_or_else(none)?,
        (HostKind::Service, ["iot-data"]) if path == "/mqtt" => mqtt(place),
        (HostKind::Service, ["iotwireless"]) if path == "/start-network-analyzer-stream" => {
            EndpointRequirements::one("iotwireless", "iotwireless:StartNetworkAnalyzerStream", Write, "*".into())
        }
        (HostKind::Service, services) if services.contains(&"kinesis-video-signaling") && path == "/" => {
            signaling(parts).ok_or_else(none)?
        }
        _ => return Err(none()),
    };
    let signing_name = signing_name.or(match &host.kind {
        HostKind::Endpoint(endpoint) => endpoint.signing_names().first().copied(),
        _ => None,
    });
    asks.call(parts, place, signing_name)
}

/// Messages choose their routes by what is in them.
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-control-access-iam.html>
fn execute_api(api: &str, path: &str, place: &Place<'_>) -> Result<EndpointRequirements, DecodeError> {
    let path = clear_path(path)?;
    let stage = path[1..].trim_end_matches('/');
    if stage.is_empty() || stage.contains('/') {
        return Err(DecodeError::Path("not a stage's name alone, which a WebSocket of API Gateway has"));
    }
    let on = |route: &str| place.arn("execute-api", &format!("{api}/{stage}/{route}"));
    let invoke = || vec![("execute-api:Invoke", Write)];
    Ok(EndpointRequirements { service: "execute-api", groups: vec![(invoke(), on("$connect")), (invoke(), on("*"))] })
}

/// <https://docs.aws.amazon.com/transcribe/latest/dg/streaming-websocket.html>
fn transcribe(path: &str) -> Option<EndpointRequirements> {
    let action = match path {
        "/call-analytics-stream-transcription-websocket" => "transcribe:StartCallAnalyticsStreamTranscriptionWebSocket",
        "/medical-scribe-stream-websocket" => "transcribe:StartMedicalScribeStream",
        "/medical-stream-transcription-websocket" => "transcribe:StartMedicalStreamTranscriptionWebSocket",
        "/stream-transcription-websocket" => "transcribe:StartStreamTranscriptionWebSocket",
        _ => return None,
    };
    Some(EndpointRequirements::one("transcribe-streaming", action, Write, "*".into()))
}

/// All that MQTT's packets can ask of the broker, on whatever topic.
/// <https://docs.aws.amazon.com/iot/latest/developerguide/iot-policy-actions.html>
fn mqtt(place: &Place<'_>) -> EndpointRequirements {
    let actions = ["iot:Connect", "iot:Publish", "iot:Receive", "iot:RetainPublish", "iot:Subscribe"];
    let actions = actions.into_iter().map(|action| (action, Write)).collect();
    EndpointRequirements { service: "iot-data", groups: vec![(actions, place.arn("iot", "*"))] }
}

/// <https://docs.aws.amazon.com/bedrock-agentcore/latest/devguide/runtime-get-started-websocket.html>, and the streams of
/// its browser.
fn agent_core(parts: &Parts, place: &Place<'_>) -> Option<EndpointRequirements> {
    const USER: &str = "x-amzn-bedrock-agentcore-runtime-user-id";
    let mut segments = parts.uri.path().split('/').skip(1);
    let segments = [(); 6].map(|()| segments.next());
    let plain = |text: &str| {
        let text = percent_decode_str(text).decode_utf8().ok()?;
        let clear = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:/".contains(&b));
        (clear && !text.contains("..")).then(|| text.into_owned())
    };
    match segments {
        [Some("runtimes"), Some(runtime), Some("ws"), None, ..] => {
            let runtime = plain(runtime)?;
            let arn = if runtime.starts_with("arn:") {
                runtime
            } else {
                place.arn("bedrock-agentcore", &format!("runtime/{runtime}"))
            };
            let mut actions = vec![("bedrock-agentcore:InvokeAgentRuntimeWithWebSocketStream", Write)];
            let query = route::Query::parse(parts.uri.query()).ok()?;
            if parts.headers.contains_key(USER) || query.0.iter().any(|(name, _)| name.eq_ignore_ascii_case(USER)) {
                actions.push(("bedrock-agentcore:InvokeAgentRuntimeWithWebSocketStreamForUser", Write));
            }
            Some(EndpointRequirements { service: "bedrock-agentcore", groups: vec![(actions, arn)] })
        }
        // A browser of AWS's own is in no account of the agent's.
        [Some("browser-streams"), Some(_), Some("sessions"), Some(_), Some(stream), None] => {
            let action = match stream {
                "automation" => "bedrock-agentcore:ConnectBrowserAutomationStream",
                "live-view" => "bedrock-agentcore:ConnectBrowserLiveViewStream",
                _ => return None,
            };
            Some(EndpointRequirements::one("bedrock-agentcore", action, Read, "*".into()))
        }
        _ => None,
    }
}

/// Kinesis Video Streams' signaling: the viewer is who gives itself an id.
/// <https://docs.aws.amazon.com/kinesisvideostreams-webrtc-dg/latest/devguide/kvswebrtc-websocket-apis-1.html>
fn signaling(parts: &Parts) -> Option<EndpointRequirements> {
    let query = route::Query::parse(parts.uri.query()).ok()?;
    let value = |name: &str| {
        let mut values = query.0.iter().filter(|(it, _)| it.eq_ignore_ascii_case(name));
        values.next().filter(|_| values.next().is_none()).map(|(_, value)| value.clone())
    };
    let channel = value("x-amz-channelarn").filter(|arn| arn.starts_with("arn:"))?;
    let viewer = query.0.iter().any(|(name, _)| name.eq_ignore_ascii_case("x-amz-clientid"));
    let action = if viewer { "kinesisvideo:ConnectAsViewer" } else { "kinesisvideo:ConnectAsMaster" };
    Some(EndpointRequirements::one("kinesis-video-signaling", action, Write, channel.into_owned()))
}

/// A handshake that is signed in its query, taken apart; not believed before [`verify`](Self::verify).
pub struct SignedHandshake {
    /// Key id, day, region and service.
    scope: [String; 4],
    signed_headers: String,
    signature: [u8; 32],
    stamp: String,
    expires: Option<i64>,
    token: Option<String>,
    /// The query without what authorises, as it came.
    rest: String,
    /// The target as it was signed: with the token and without, which differs by service and by client.
    signed: [Uri; 2],
}

impl fmt::Debug for SignedHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedHandshake").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl SignedHandshake {
    /// Takes a handshake's query apart. Fails when it can't be read in one way only.
    pub fn of(parts: &Parts) -> Result<Self, VerifyError> {
        const UNREADABLE: VerifyError = VerifyError::Presigned("it can't be read");
        let mut query = Query::of(parts)?;
        let mut signed = [String::new(), String::new()];
        for (name, _, pair) in &query.pairs {
            for (at, text) in signed.iter_mut().enumerate() {
                if name != "x-amz-signature" && (at == 0 || name != "x-amz-security-token") {
                    push_pair(text, pair);
                }
            }
        }
        let mut take = |name: &'static str| query.take(name);
        if take("x-amz-algorithm")?.as_deref() != Some("AWS4-HMAC-SHA256") {
            return Err(VerifyError::NotSupported("a presigned query of another algorithm than AWS4-HMAC-SHA256"));
        }
        let credential = take("x-amz-credential")?.ok_or(UNREADABLE)?;
        let stamp = take("x-amz-date")?.ok_or(VerifyError::Date("no X-Amz-Date"))?;
        let expires = take("x-amz-expires")?;
        let signed_headers = take("x-amz-signedheaders")?.ok_or(UNREADABLE)?;
        let signature = take("x-amz-signature")?.ok_or(UNREADABLE)?;
        let token = take("x-amz-security-token")?;
        if take("x-amz-s3session-token")?.is_some() {
            return Err(VerifyError::Token);
        }
        let expires = expires.map(|text| {
            Some(text)
                .filter(|text| !text.is_empty() && text.len() <= 6 && text.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|text| text.parse().ok())
                .filter(|expires| (1..=MAX_EXPIRES).contains(expires))
                .ok_or(VerifyError::Date("X-Amz-Expires is not 1 to 604800"))
        });
        let field = format!("Credential={credential}, SignedHeaders={signed_headers}, Signature={signature}");
        let read = crate::request_auth::fields(&field).map_err(VerifyError::Presigned)?;
        let HeaderAuthority { access_key_id, date, region, service, signature, .. } = read;
        let scope = [access_key_id, date, region, service].map(str::to_owned);
        let mut rest = String::new();
        query.pairs.iter().for_each(|(_, _, pair)| push_pair(&mut rest, pair));
        let [with, without] = signed.map(|query| rebuilt(&parts.uri, &query));
        let signed = [with?, without?];
        Ok(Self { scope, signed_headers, signature, stamp, expires: expires.transpose()?, token, rest, signed })
    }

    /// What the query says, as a field of the head would say it.
    pub fn authority(&self) -> RequestAuth<'_> {
        RequestAuth::Header(self.header())
    }

    fn header(&self) -> HeaderAuthority<'_> {
        let [access_key_id, date, region, service] = &self.scope;
        let (signed_headers, signature) = (&self.signed_headers[..], self.signature);
        HeaderAuthority { access_key_id, date, region, service, signed_headers, signature }
    }

    /// Checks signature, session token and expiry. `parts` are those that it was taken from.
    pub fn verify(
        &self,
        signer: &Signer,
        parts: &Parts,
        placeholder: &Placeholder,
        now: OffsetDateTime,
    ) -> Result<(), VerifyError> {
        let header = self.header();
        if header.access_key_id != placeholder.access_key_id() {
            return Err(VerifyError::ForeignKey { access_key_id: header.access_key_id.chars().take(128).collect() });
        }
        if placeholder.token_field() != TokenField::Security
            || self.token.as_deref() != Some(placeholder.session_token())
        {
            return Err(VerifyError::Token);
        }
        let at = parse_date(&self.stamp, header.date)?;
        if at - now > MAX_CLOCK_SKEW {
            return Err(VerifyError::Date("it is of the future"));
        }
        if now - at > self.expires.map_or(MAX_CLOCK_SKEW, Duration::seconds) {
            return Err(VerifyError::Date("it has expired"));
        }
        let mut signed = parts.clone();
        let verify = |uri: &Uri| {
            signed.uri = uri.clone();
            signer.verify_head(&signed, &header, &self.stamp, Hashed::Body(&EMPTY_SHA256), placeholder).map(drop)
        };
        let [with, without] = self.signed.each_ref().map(verify);
        if with == Err(VerifyError::Mismatch) { without } else { with }
    }

    /// Puts our authority into the query in the agent's place. Gives the signature, from which messages may go on.
    pub fn sign(
        &self,
        signer: &Signer,
        parts: &mut Parts,
        credentials: &AwsCredentials,
        now: OffsetDateTime,
    ) -> Result<String, SignError> {
        let [_, _, region, service] = &self.scope;
        let mut names = kept(parts, &self.signed_headers);
        names.extend(parts.headers.keys().filter(|name| name.as_str().starts_with("x-amz-")).cloned());
        names.push(http::header::HOST);
        names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        names.dedup();
        let stamp = format_date(now);
        let day = &stamp[..8];
        let id = credentials.access_key_id();
        let (mut credential, mut signed_headers) = (String::new(), String::new());
        push_scope(&mut credential, &[id, day, region, service]);
        push_names(&mut signed_headers, &names);
        let expires = self.expires.map(|expires| expires.min(OUR_EXPIRES).to_string());
        let token = credentials.session_token();
        let in_time = token.filter(|_| service != IOT);
        let mut query = self.rest.clone();
        for (name, value) in [
            ("X-Amz-Algorithm", Some("AWS4-HMAC-SHA256")),
            ("X-Amz-Credential", Some(&credential)),
            ("X-Amz-Date", Some(&stamp)),
            ("X-Amz-Expires", expires.as_deref()),
            ("X-Amz-Security-Token", in_time),
            ("X-Amz-SignedHeaders", Some(&signed_headers)),
        ] {
            push_member(&mut query, name, value);
        }
        let unfit = |_| SignError::Credentials;
        parts.uri = rebuilt(&parts.uri, &query).map_err(unfit)?;
        let mut canonical = Vec::with_capacity(1024);
        let (rules, names) = (PathRules::of(service), names.iter().map(http::HeaderName::as_str));
        if !write_head(&mut canonical, parts, rules, HeaderForm::default(), names) {
            return Err(SignError::Header);
        }
        canonical.extend_from_slice(hex_of(&EMPTY_SHA256).as_bytes());
        let secret = credentials.secret_access_key();
        let signature = hex::encode(signer.signature(id, secret, &canonical, &stamp, (day, region, service)));
        push_member(&mut query, "X-Amz-Signature", Some(&signature));
        push_member(&mut query, "X-Amz-Security-Token", token.filter(|_| service == IOT));
        parts.uri = rebuilt(&parts.uri, &query).map_err(unfit)?;
        Ok(signature)
    }

    /// What the messages of an event stream are signed by, in a WebSocket that began with this: the agent's key by its
    /// secret, and ours by the secret and the signature that [`sign`](Self::sign) gave.
    pub fn event_keys(&self, agents: &str, ours: &str, signature: String) -> (EventKey, EventKey) {
        let key = |secret: &str, previous: String| EventKey {
            secret: Zeroizing::new(secret.to_owned()),
            region: self.scope[2].clone(),
            service: self.scope[3].clone(),
            previous,
            of_day: None,
        };
        (key(agents, hex::encode(self.signature)), key(ours, signature))
    }
}

fn push_pair(query: &mut String, pair: &str) {
    query.push(if query.is_empty() { '?' } else { '&' });
    query.push_str(pair);
}

fn push_member(query: &mut String, name: &str, value: Option<&str>) {
    let Some(value) = value else { return };
    push_pair(query, name);
    query.push('=');
    write_encoded(query, value.as_bytes());
}

#[cfg(test)]
mod tests {
    use http::{Request, header::UPGRADE};
    use serde::Deserialize;
    use time::macros::datetime;

    use super::*;
    use crate::{Catalog, wire_tests::placeholder};

    /// By botocore and the AWS CRT: `tests/data/websockets.py`.
    static URLS: &str = include_str!("../tests/data/websockets.json");
    const NOW: OffsetDateTime = datetime!(2025-06-01 12:00 UTC);

    #[derive(Deserialize)]
    struct Line {
        name: String,
        url: String,
    }

    fn parts(url: &str) -> Parts {
        let uri: Uri = url.parse().unwrap();
        let request = Request::builder().uri(uri.path_and_query().unwrap().as_str());
        let request = request.header("host", uri.authority().unwrap().as_str()).header(UPGRADE, "websocket");
        request.body(()).unwrap().into_parts().0
    }

    fn lines() -> Vec<(String, Parts)> {
        let lines: Vec<Line> = serde_json::from_str(URLS).unwrap();
        lines.into_iter().map(|line| (line.name, parts(&line.url))).collect()
    }

    fn line(name: &str) -> Parts {
        lines().into_iter().find(|it| it.0 == name).unwrap().1
    }

    fn host(parts: &Parts) -> HostMatch {
        let host = parts.headers["host"].to_str().unwrap();
        Catalog::global().host(host.split(':').next().unwrap()).unwrap()
    }

    fn verify(parts: &Parts, now: OffsetDateTime) -> Result<(), VerifyError> {
        SignedHandshake::of(parts)?.verify(&Signer::new(), parts, &placeholder(), now)
    }

    fn needs(parts: &Parts, authority: &RequestAuth<'_>) -> Result<Vec<String>, DecodeError> {
        let call = Catalog::global().decode(&host(parts), parts, None, authority, Some("123456789012"))?;
        let known = Catalog::global().actions();
        for action in &call.actions {
            assert_eq!(Some(&action.level), known.get(&*action.name), "{}", action.name);
        }
        Ok(call.needs().map(|(action, resource)| format!("{} {resource}", action.name)).collect())
    }

    #[test]
    fn a_handshake_needs_all_that_its_messages_can_ask() {
        let here = "eu-west-1:123456789012";
        for (name, parts) in lines() {
            let handshake = SignedHandshake::of(&parts).unwrap();
            let expected = match &name[..] {
                "transcribe" => vec!["transcribe:StartStreamTranscriptionWebSocket *".to_owned()],
                "execute-api" => ["$connect", "*"]
                    .map(|route| format!("execute-api:Invoke arn:aws:execute-api:{here}:a1b2c3d4e5/prod/{route}"))
                    .to_vec(),
                "agentcore" => vec![format!(
                    "bedrock-agentcore:InvokeAgentRuntimeWithWebSocketStream arn:aws:bedrock-agentcore:{here}:runtime/mine-abc"
                )],
                "signaling" => {
                    vec![format!("kinesisvideo:ConnectAsViewer arn:aws:kinesisvideo:{here}:channel/door/1")]
                }
                "iot" => ["Connect", "Publish", "Receive", "RetainPublish", "Subscribe"]
                    .map(|action| format!("iot:{action} arn:aws:iot:{here}:*"))
                    .to_vec(),
                other => panic!("{other}"),
            };
            assert_eq!(needs(&parts, &handshake.authority()), Ok(expected), "{name}");
        }
        let browser = parts(
            "wss://bedrock-agentcore.eu-west-1.amazonaws.com/browser-streams/aws.browser.v1/sessions/01ABC/automation",
        );
        let automation = "bedrock-agentcore:ConnectBrowserAutomationStream *".to_owned();
        assert_eq!(needs(&browser, &RequestAuth::None), Ok(vec![automation]));
    }

    #[test]
    fn what_is_no_handshake_of_a_service_is_none() {
        for url in [
            "wss://transcribestreaming.eu-west-1.amazonaws.com/stream-transcription",
            "wss://transcribestreaming.eu-west-1.amazonaws.com/stream-transcription-websocket/",
            "wss://a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com/",
            "wss://a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com/prod/items",
            "wss://a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com/prod/../dev",
            "wss://a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com/%70rod",
            "wss://a-ats.iot.eu-west-1.amazonaws.com/things/t/shadow",
            "wss://bedrock-agentcore.eu-west-1.amazonaws.com/runtimes/a%2F..%2Fb/ws",
            "wss://bedrock-agentcore.eu-west-1.amazonaws.com/runtimes/a/invocations",
            "wss://v-1a2b3c4d.kinesisvideo.eu-west-1.amazonaws.com/",
            "wss://v-1a2b3c4d.kinesisvideo.eu-west-1.amazonaws.com/?X-Amz-ChannelARN=arn:a&x-amz-channelarn=arn:b",
            "wss://s3.eu-west-1.amazonaws.com/bucket/key",
            "wss://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15",
            "wss://abc.appsync-realtime-api.eu-west-1.amazonaws.com/graphql",
        ] {
            assert!(needs(&parts(url), &RequestAuth::None).is_err(), "{url}");
        }
        // What is a WebSocket's is nothing else's.
        let mut plain = line("transcribe");
        plain.headers.remove(UPGRADE);
        assert!(needs(&plain, &RequestAuth::None).is_err());
        let mut posted = line("iot");
        posted.method = Method::POST;
        assert!(needs(&posted, &RequestAuth::None).is_err());
        // The broker's name is for its WebSocket alone, and each other's for nothing but themselves.
        let iot = SignedHandshake::of(&line("iot")).unwrap();
        let mut publish = parts("wss://a-ats.iot.eu-west-1.amazonaws.com/topics/t");
        assert!(needs(&publish, &iot.authority()).is_err());
        publish.headers.remove(UPGRADE);
        publish.method = Method::POST;
        assert!(matches!(needs(&publish, &iot.authority()), Err(DecodeError::Scope { .. })));
        assert!(matches!(needs(&line("execute-api"), &iot.authority()), Err(DecodeError::Scope { .. })));
        // Over HTTP/2, Transcribe is a call of its own.
        let mut stream = parts("wss://transcribestreaming.eu-west-1.amazonaws.com/stream-transcription");
        stream.headers.remove(UPGRADE);
        stream.method = Method::POST;
        let needed = needs(&stream, &RequestAuth::None);
        assert_eq!(needed, Ok(vec!["transcribe:StartStreamTranscription *".to_owned()]));
    }

    #[test]
    fn what_sdks_presign_is_believed_while_it_lasts() {
        for (name, parts) in lines() {
            assert_eq!(verify(&parts, NOW), Ok(()), "{name}");
            let lasts = if name == "iot" { 15 } else { 5 };
            assert_eq!(verify(&parts, NOW + Duration::minutes(lasts)), Ok(()), "{name}");
            let late = verify(&parts, NOW + Duration::minutes(lasts + 1));
            assert_eq!(late, Err(VerifyError::Date("it has expired")), "{name}");
            assert!(matches!(verify(&parts, NOW - Duration::minutes(16)), Err(VerifyError::Date(_))), "{name}");
            for change in [
                |parts: &mut Parts| parts.method = Method::POST,
                |parts: &mut Parts| parts.uri = parts.uri.to_string().replacen('?', "x?", 1).parse().unwrap(),
                |parts: &mut Parts| parts.uri = format!("{}&a=b", parts.uri).parse().unwrap(),
                |parts: &mut Parts| {
                    parts.headers.insert("host", "other.amazonaws.com".parse().unwrap());
                },
            ] {
                let mut other = parts.clone();
                change(&mut other);
                assert_eq!(verify(&other, NOW), Err(VerifyError::Mismatch), "{name}");
            }
            let handshake = SignedHandshake::of(&parts).unwrap();
            let signer = Signer::new();
            let wrong = Placeholder::fixed("ASIAQWERTYUIOPASDFGH", "guessed", "chaperone/placeholder-token");
            assert_eq!(handshake.verify(&signer, &parts, &wrong, NOW), Err(VerifyError::Mismatch), "{name}");
            let stale = Placeholder::fixed("ASIAQWERTYUIOPASDFGH", placeholder().secret_access_key(), "another");
            assert_eq!(handshake.verify(&signer, &parts, &stale, NOW), Err(VerifyError::Token), "{name}");
            let foreign = Placeholder::mint(chaperone_model::SessionId::new());
            let error = handshake.verify(&signer, &parts, &foreign, NOW);
            assert!(matches!(error, Err(VerifyError::ForeignKey { .. })), "{name}");
        }
    }

    /// What we sign with the key, at the time and for the query of the URLs that the SDKs made is what they signed.
    #[test]
    fn ours_is_what_the_sdks_would_have_made() {
        let placeholder = placeholder();
        let credentials = aws_credential_types::Credentials::new(
            placeholder.access_key_id(),
            placeholder.secret_access_key(),
            Some(placeholder.session_token().to_owned()),
            None,
            "test",
        );
        let (signer, credentials) = (Signer::new(), AwsCredentials::new(credentials));
        let sorted = |parts: &Parts| {
            let mut pairs: Vec<String> = parts.uri.query().unwrap().split('&').map(str::to_owned).collect();
            pairs.sort();
            (parts.uri.path().to_owned(), pairs)
        };
        for (name, parts) in lines() {
            let handshake = SignedHandshake::of(&parts).unwrap();
            let mut ours = parts.clone();
            let signature = handshake.sign(&signer, &mut ours, &credentials, NOW).unwrap();
            assert_eq!(sorted(&ours), sorted(&parts), "{name}");
            assert!(ours.uri.to_string().contains(&signature), "{name}");
        }
        let real = aws_credential_types::Credentials::new("AKIAREAL", "secret", None, None, "test");
        let mut ours = line("iot");
        let handshake = SignedHandshake::of(&ours).unwrap();
        handshake.sign(&signer, &mut ours, &AwsCredentials::new(real), NOW + Duration::days(1)).unwrap();
        let target = ours.uri.to_string();
        assert!(target.contains("=AKIAREAL%2F20250602%2Feu-west-1%2Fiotdevicegateway%2F"), "{target}");
        assert!(!target.contains("ASIA") && !target.contains("placeholder") && !target.contains("Token"), "{target}");
    }

    #[test]
    fn hostile_queries_are_refused() {
        let with = |from: &str, to: &str| {
            let mut parts = line("transcribe");
            let target = parts.uri.to_string();
            assert!(target.contains(from), "{from}");
            parts.uri = target.replacen(from, to, 1).parse().unwrap();
            verify(&parts, NOW).unwrap_err()
        };
        for (from, to) in [
            ("X-Amz-Expires=300", "X-Amz-Expires=0"),
            ("X-Amz-Expires=300", "X-Amz-Expires=604801"),
            ("X-Amz-Expires=300", "X-Amz-Expires="),
            ("X-Amz-Date=20250601T120000Z", "X-Amz-Date=20250602T120000Z"),
            ("X-Amz-Date=20250601T120000Z&", ""),
        ] {
            assert!(matches!(with(from, to), VerifyError::Date(_)), "{to}");
        }
        for (from, to) in [
            ("X-Amz-Date=", "x-amz-date=20250601T120000Z&X-Amz-Date="),
            ("X-Amz-Signature=", "X-Amz-Signature=00&X-Amz-Signature="),
            ("X-Amz-Signature=5", "X-Amz-Signature=z"),
            ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=Host"),
            ("%2Faws4_request", ""),
            ("?", "?%ff=1&"),
        ] {
            assert!(matches!(with(from, to), VerifyError::Presigned(_)), "{to}");
        }
        assert_eq!(with("&X-Amz-Security-Token=chaperone%2Fplaceholder-token", ""), VerifyError::Token);
        assert_eq!(with("&X-Amz-Signature", "&X-Amz-S3session-Token=x&X-Amz-Signature"), VerifyError::Token);
        assert!(matches!(with("=AWS4-HMAC-SHA256", "=AWS4-ECDSA-P256-SHA256"), VerifyError::NotSupported(_)));
        let mut unsigned = line("transcribe");
        unsigned.headers.insert("x-amz-acl", "public-read".parse().unwrap());
        assert_eq!(verify(&unsigned, NOW), Err(VerifyError::Unsigned("x-amz-acl".into())));
    }
}
