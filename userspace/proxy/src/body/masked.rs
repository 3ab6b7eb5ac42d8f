//! Secrets in answers are masked before the agent gets them: by AWS's models, by what they look like, and by policies.

use std::sync::Arc;

use bytes::Bytes;
use chaperone_aws::{SensitiveMembers, Sensitivity, VendingCall, has_raw_answer};
use chaperone_masking::{Format, Kind, Masker, Rules, Selector, SelectorBuilder};
use chaperone_model::{Call, Masked, Protocol};
use chaperone_policy::{MaskTarget, Masks};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG},
    request, response,
};
use parking_lot::Mutex;

use crate::{
    body::{
        inflate::Inflate,
        stored::{Cut, Part, StoredObject},
        transform::{BodyTransform, Mode, TransformError},
    },
    masking::{AnswerPlaceholders, MaskingSettings, OnError, Placeholders},
};

/// An answer up to this size is read to its end before it goes on, so that its length and checksum are right and a
/// refusal is an error of AWS's own form. DynamoDB's and nearly every other service's stay below.
const MAX_WHOLE: u64 = 1 << 20;

/// Services and operations whose answers are data that somebody stored: they are looked through where a policy says so.
const DATA: [(&str, &str); 26] = [
    ("appsync", ""),
    ("athena", "GetQueryResults"),
    ("aoss", ""),
    ("bedrock-agent-runtime", ""),
    ("bedrock-agentcore", ""),
    ("bedrock-runtime", ""),
    ("cloudtrail", "GetQueryResults"),
    ("dax", ""),
    ("dynamodb", ""),
    ("dynamodbstreams", ""),
    ("es", ""),
    ("execute-api", ""),
    ("kinesis", ""),
    ("logs", "FilterLogEvents"),
    ("logs", "GetLogEvents"),
    ("logs", "GetLogRecord"),
    ("logs", "GetQueryResults"),
    ("neptunedata", ""),
    ("qconnect", ""),
    ("rds-data", ""),
    ("redshift-data", "GetStatementResult"),
    ("redshift-data", "GetStatementResultV2"),
    ("sqs", "ReceiveMessage"),
    ("stepfunctions", ""),
    ("timestream-query", ""),
    ("vpc-lattice-svcs", ""),
];

/// What was masked in an answer, for its outcome.
pub(crate) type MaskedLog = Arc<Mutex<Vec<Masked>>>;

/// An answer in which secrets are masked.
pub(crate) struct MaskedAnswer {
    call: Asked,
    masks: Masks,
    settings: Arc<MaskingSettings>,
    placeholders: AnswerPlaceholders,
    /// Nothing is looked for but values that must not come back.
    only_echoes: bool,
    /// It is an object of S3's, in which something may be masked.
    stored: Option<StoredObject>,
    method: Method,
    log: MaskedLog,
    state: State,
}

/// What is needed to know of the call.
struct Asked {
    service: String,
    operation: String,
    protocol: Protocol,
}

#[derive(Default)]
enum State {
    #[default]
    Waiting,
    Refused(String),
    /// Something else goes on in its place.
    Replaced(Bytes),
    Reading(Box<Reading>),
}

struct Reading {
    masker: Option<Masker>,
    inflate: Option<Inflate>,
    format: Format,
    /// All of it is kept until its end.
    whole: bool,
    /// What of it was asked for.
    cut: Option<Cut>,
    given: Vec<Bytes>,
    /// The fields that are of the body as AWS sent it.
    fields: Vec<(HeaderName, HeaderValue)>,
    changed: bool,
}

impl MaskedAnswer {
    /// `None` where nothing could be masked. What the request asks for is changed where the answer will be.
    pub(crate) fn of(
        call: &Call,
        masks: Masks,
        settings: &Arc<MaskingSettings>,
        placeholders: &Placeholders,
        parts: &mut request::Parts,
        log: &MaskedLog,
        may_unmask: bool,
    ) -> Option<Box<dyn BodyTransform>> {
        // Where values may go back to AWS, one may while this call is under way.
        let may_echo = may_unmask || placeholders.vault().has_any();
        // Credentials that are handed out are placeholders already.
        let nothing =
            VendingCall::of(call).is_some() || masks.policies.is_empty() && (masks.lifted || !settings.enabled);
        if nothing && !may_echo {
            return None;
        }
        // What is said of an object goes by what would be answered with it.
        let operation = if is_head_object(call) { "GetObject".to_owned() } else { call.operation.to_string() };
        let asked = Asked { service: call.service.to_string(), operation, protocol: call.protocol };
        let nothing = nothing || masks.policies.is_empty() && asked.has_no_defaults();
        if nothing && !may_echo {
            return None;
        }
        let placeholders = placeholders.of(call).letting(&masks.unmask, settings.kept);
        let mut answer = Self {
            call: asked,
            masks,
            settings: settings.clone(),
            placeholders,
            only_echoes: nothing,
            stored: None,
            method: parts.method.clone(),
            log: log.clone(),
            state: State::Waiting,
        };
        if !nothing
            && answer.call.is_raw()
            && !answer.rules(Format::Text, true).is_ok_and(|(rules, _)| rules.is_empty())
        {
            let widen = parts.method == Method::GET && !answer.has_paths();
            answer.stored = StoredObject::of(call, &mut parts.headers, widen);
        }
        Some(Box::new(answer))
    }

    fn has_paths(&self) -> bool {
        let mut targets = self.masks.policies.iter().flat_map(|(_, targets)| targets.iter());
        targets.any(|target| matches!(target, MaskTarget::Path(_)))
    }

    /// Whether what is masked in an object is written over, so that what is said of its length holds.
    fn keeps_length(&self, format: Format, headers: &HeaderMap) -> bool {
        let format = matches!(format, Format::Json | Format::JsonLines | Format::Text | Format::Xml);
        self.stored.is_some() && format && !self.has_paths() && !is_encoded(headers)
    }

    /// What is masked in an answer of this format.
    fn rules(&self, format: Format, success: bool) -> Result<(Rules, bool), String> {
        let defaults = self.settings.enabled && !self.masks.lifted && !matches!(format, Format::EventStream);
        let xml = format == Format::Xml;
        let members = SensitiveMembers::of(&self.call.service, &self.call.operation, xml).filter(|_| success);
        let (mut rules, mut detectors) = (Rules::default(), Vec::new());
        let targets = || self.masks.policies.iter().flat_map(|(_, targets)| targets.iter());
        let sensitive = targets().any(|target| *target == MaskTarget::Sensitive);
        let mut body = false;
        if let Some(members) = &members {
            let selected = if sensitive { members.all.clone() } else { members.secrets.clone().filter(|_| defaults) };
            rules.selectors.extend(selected.map(Arc::new));
            body = match members.body {
                Some(Sensitivity::Secret) => defaults || sensitive,
                Some(Sensitivity::Marked) => sensitive,
                None => false,
            };
        }
        if defaults && !self.call.is_data() && format != Format::Text {
            detectors.extend(self.settings.default_detectors());
        }
        let mut paths: Option<SelectorBuilder> = None;
        for (id, targets) in &self.masks.policies {
            for target in targets.iter() {
                match target {
                    MaskTarget::Sensitive => {}
                    MaskTarget::Credentials => detectors.extend(self.settings.default_detectors()),
                    MaskTarget::Detector(name) => detectors.push(name.clone()),
                    MaskTarget::Path(path) => {
                        let paths = paths.get_or_insert_default();
                        paths.path(path, id, Kind::Text, xml).map_err(|error| error.to_string())?;
                    }
                }
            }
        }
        rules.selectors.extend(paths.map(|paths| Arc::new(Selector::from(paths))));
        if !detectors.is_empty() {
            rules.detectors = Some(self.settings.detectors(detectors).map_err(|error| error.to_string())?);
        }
        Ok((rules, body))
    }

    fn begin(&mut self, head: &mut response::Parts) -> Result<Option<State>, String> {
        let success = head.status.is_success();
        let mut format = self.call.format(&head.headers, success);
        let (mut rules, body) = if self.only_echoes { Default::default() } else { self.rules(format, success)? };
        let only_echoes = rules.is_empty() && !body;
        rules.echoes = self.placeholders.vault().echoes();
        if rules.is_empty() && !body {
            return Ok(None);
        }
        if only_echoes && self.call.is_raw() {
            // Whatever it is called, it is what somebody has stored; and what is compressed in there AWS has never read.
            if is_encoded(&head.headers) {
                return Ok(None);
            }
            if format != Format::EventStream {
                format = Format::Text;
                rules.same_length = true;
                let masker = Masker::new(format, rules, Box::new(self.placeholders.clone()));
                return Ok(Some(State::Reading(Box::new(Reading::passing(masker)))));
            }
        }
        let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let keeps_length = self.keeps_length(format, &head.headers);
        rules.same_length = keeps_length;
        let mut cut = None;
        if head.status == StatusCode::PARTIAL_CONTENT && !only_echoes {
            let part = self.stored.as_ref().filter(|_| keeps_length && format == Format::Text);
            match part.and_then(|object| object.part(head)) {
                Some(Part::Cut(part)) => cut = Some(part),
                Some(Part::None(answer)) => return Ok(Some(State::Replaced(answer))),
                None => {
                    return Err(
                        "it is a part of an object, in which a secret may be cut in two: read the whole object".into(),
                    );
                }
            }
        }
        let fields = if keeps_length { Vec::new() } else { take_fields(&mut head.headers, self.stored.is_some()) };
        let inflate = match head.headers.remove(CONTENT_ENCODING) {
            Some(encoding) if encoding != "identity" => Some(Inflate::of(encoding.as_bytes())?),
            _ => None,
        };
        let vault = Box::new(self.placeholders.clone());
        let masker = (!body).then(|| Masker::new(format, rules, vault));
        Ok(Some(State::Reading(Box::new(Reading {
            masker,
            changed: inflate.is_some(),
            inflate,
            format,
            whole: length.is_some_and(|length| length <= MAX_WHOLE) || body,
            cut,
            given: Vec::new(),
            fields,
        }))))
    }

    fn note(&self, reading: &Reading) {
        let Some(masker) = &reading.masker else {
            let whole = Masked { rule: "sensitive".to_owned(), path: String::new(), count: 1 };
            *self.log.lock() = vec![whole];
            return;
        };
        let of =
            |it: &chaperone_masking::Finding| Masked { rule: it.rule.clone(), path: it.path.clone(), count: it.count };
        *self.log.lock() = masker.findings().all().iter().map(of).collect();
    }
}

impl Asked {
    fn is_data(&self) -> bool {
        DATA.iter().any(|(service, operation)| {
            *service == self.service && (operation.is_empty() || *operation == self.operation)
        }) || self.is_raw()
    }

    /// Whether its answer is whatever somebody has put there.
    fn is_raw(&self) -> bool {
        has_raw_answer(&self.service, &self.operation) || self.protocol == Protocol::Http
    }

    /// Whether nothing is masked in its answer unless a policy says so.
    fn has_no_defaults(&self) -> bool {
        let has = |xml| {
            SensitiveMembers::of(&self.service, &self.operation, xml)
                .is_some_and(|it| it.secrets.is_some() || it.body == Some(Sensitivity::Secret))
        };
        self.is_data() && !has(false) && !has(true)
    }

    /// The format by what the head says or, where that says nothing of use, by the protocol.
    fn format(&self, headers: &HeaderMap, success: bool) -> Format {
        let told = headers.get(CONTENT_TYPE).and_then(|kind| Format::of(kind.to_str().ok()?));
        match told {
            Some(format) if format != Format::Text => format,
            _ if has_raw_answer(&self.service, &self.operation) || !success => Format::Text,
            _ => match self.protocol {
                Protocol::Json | Protocol::RestJson => Format::Json,
                Protocol::Ec2 | Protocol::Query | Protocol::RestXml => Format::Xml,
                Protocol::RpcV2Cbor => Format::Cbor,
                Protocol::Http => Format::Text,
            },
        }
    }
}

impl BodyTransform for MaskedAnswer {
    fn reads(&self) -> bool {
        true
    }

    fn head(&mut self, head: &mut response::Parts) -> Mode {
        let empty = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if self.stored.is_some() && (head.status.is_success() || empty) {
            StoredObject::mark(&mut head.headers);
            let format = self.call.format(&head.headers, true);
            if self.method == Method::HEAD && !self.keeps_length(format, &head.headers) {
                head.headers.remove(CONTENT_LENGTH);
                head.headers.remove(CONTENT_ENCODING);
            }
        }
        if self.method == Method::HEAD || empty {
            return Mode::Untouched;
        }
        match self.begin(head) {
            Ok(None) => Mode::Untouched,
            Ok(Some(state)) => {
                let streams = matches!(&state, State::Reading(reading) if !reading.whole);
                self.state = state;
                if streams { Mode::Streaming } else { Mode::Whole }
            }
            Err(why) => {
                self.state = State::Refused(why);
                Mode::Whole
            }
        }
    }

    fn push(&mut self, bytes: Bytes, out: &mut Vec<Bytes>) -> Result<(), TransformError> {
        match &mut self.state {
            State::Waiting => {
                out.push(bytes);
                Ok(())
            }
            State::Refused(why) => Err(TransformError(why.clone())),
            State::Replaced(_) => Ok(()),
            State::Reading(reading) => {
                let result = reading.push(&bytes);
                reading.settle(result, self.settings.on_error)?;
                if !reading.whole {
                    reading.give(out);
                }
                Ok(())
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), TransformError> {
        let mut state = std::mem::take(&mut self.state);
        let result = match &mut state {
            State::Waiting => Ok(()),
            State::Refused(why) => Err(TransformError(why.clone())),
            State::Replaced(answer) => {
                out.push(answer.clone());
                Ok(())
            }
            State::Reading(reading) => {
                let result = reading.finish();
                let result = reading.settle(result, self.settings.on_error);
                self.note(reading);
                reading.give(out);
                result
            }
        };
        self.state = state;
        result
    }

    fn settle(&mut self, head: &mut response::Parts) {
        if let State::Reading(reading) = &mut self.state
            && !reading.changed
            && self.log.lock().is_empty()
        {
            // It is AWS's, byte for byte: what AWS said of it holds.
            for (name, value) in reading.fields.drain(..) {
                head.headers.append(name, value);
            }
        }
    }
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity")
}

impl Reading {
    /// Of a body that streams, of which the head says what it said.
    fn passing(masker: Masker) -> Self {
        Self {
            masker: Some(masker),
            inflate: None,
            format: Format::Text,
            whole: false,
            cut: None,
            given: Vec::new(),
            fields: Vec::new(),
            changed: false,
        }
    }

    /// What goes on now.
    fn give(&mut self, out: &mut Vec<Bytes>) {
        match &mut self.cut {
            Some(cut) => out.extend(self.given.drain(..).map(|bytes| cut.of(&bytes))),
            None => out.append(&mut self.given),
        }
    }

    fn push(&mut self, bytes: &Bytes) -> Result<(), String> {
        let mut plain = Vec::new();
        match &mut self.inflate {
            Some(inflate) => inflate.push(bytes, &mut plain)?,
            None => plain.push(bytes.clone()),
        }
        let Some(masker) = &mut self.masker else { return Ok(()) };
        plain.iter().try_for_each(|bytes| masker.push(bytes, &mut self.given)).map_err(|error| error.to_string())
    }

    fn finish(&mut self) -> Result<(), String> {
        let mut plain = Vec::new();
        if let Some(inflate) = &mut self.inflate {
            inflate.finish(&mut plain)?;
        }
        let Some(masker) = &mut self.masker else {
            self.given = vec![Bytes::from_static(PLACEHOLDER.as_bytes())];
            return Ok(());
        };
        plain.iter().try_for_each(|bytes| masker.push(bytes, &mut self.given)).map_err(|error| error.to_string())?;
        masker.finish(&mut self.given).map_err(|error| error.to_string())
    }

    /// What becomes of a body that can't be read: it is refused or, where nothing of it has gone on, masked as a whole.
    fn settle(&mut self, result: Result<(), String>, on_error: OnError) -> Result<(), TransformError> {
        let Err(why) = result else { return Ok(()) };
        if on_error == OnError::Refuse || !self.whole {
            return Err(TransformError(why));
        }
        self.masker = None;
        self.inflate = None;
        self.changed = true;
        self.given = vec![Bytes::from_static(match self.format {
            Format::Json | Format::JsonLines => b"{}",
            Format::Xml => b"<masked/>",
            Format::Cbor => b"\xa0",
            Format::EventStream => b"",
            Format::Text => PLACEHOLDER.as_bytes(),
        })];
        Ok(())
    }
}

const PLACEHOLDER: &str = "chaperone-masked";

fn is_head_object(call: &Call) -> bool {
    call.service == "s3" && call.operation == "HeadObject"
}

/// Takes out the fields that are of the body as it comes; the entity tag may have been changed already.
fn take_fields(headers: &mut HeaderMap, keep_tag: bool) -> Vec<(HeaderName, HeaderValue)> {
    let of_body = |name: &HeaderName| {
        matches!(name.as_str(), "content-md5" | "digest" | "content-digest" | "repr-digest" | "x-amz-crc32")
            || name == ETAG && !keep_tag
            || name == CONTENT_LENGTH
            || name.as_str().starts_with("x-amz-checksum-")
    };
    let names: Vec<HeaderName> = headers.keys().filter(|name| of_body(name)).cloned().collect();
    let mut taken = Vec::new();
    for name in names {
        taken.extend(headers.get_all(&name).iter().map(|value| (name.clone(), value.clone())));
        headers.remove(&name);
    }
    taken
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::body::transform::Transforms;

    const SECRET: &str = r#"{"Name":"n","SecretString":"hunter2"}"#;
    const GITHUB: &str = "ghp_16C7e42F292c6912E7710c838347Ae178B4a";

    fn call(service: &str, operation: &str, protocol: &str) -> Call {
        serde_json::from_value(serde_json::json!({
            "partition": "aws",
            "region": null,
            "account": null,
            "service": service,
            "signing_name": service,
            "operation": operation,
            "protocol": protocol,
            "actions": [],
            "resources": [],
            "payload": "none",
        }))
        .unwrap()
    }

    fn policy(targets: &[MaskTarget]) -> Masks {
        Masks { policies: vec![("p".to_owned(), Arc::new(targets.to_vec()))], ..Masks::default() }
    }

    struct Got {
        body: String,
        head: response::Parts,
        masked: Vec<Masked>,
    }

    fn answer(
        call: &Call,
        masks: Masks,
        settings: MaskingSettings,
        fields: &[(&'static str, &str)],
        status: u16,
        body: &[u8],
    ) -> Result<Got, String> {
        run(&Placeholders::new(), call, masks, settings, fields, status, body)
    }

    /// An answer to a session that had others before.
    fn answer_of(
        session: &Placeholders,
        call: &Call,
        fields: &[(&'static str, &str)],
        body: &[u8],
    ) -> Result<Got, String> {
        run(session, call, Masks::default(), MaskingSettings::default(), fields, 200, body)
    }

    fn run(
        session: &Placeholders,
        call: &Call,
        masks: Masks,
        settings: MaskingSettings,
        fields: &[(&'static str, &str)],
        status: u16,
        body: &[u8],
    ) -> Result<Got, String> {
        let log = MaskedLog::default();
        let mut transforms = Transforms::default();
        let settings = Arc::new(settings);
        let mut request = http::Request::post("/").body(()).unwrap().into_parts().0;
        for (name, value) in fields.iter().filter_map(|(name, value)| Some((name.strip_prefix("?")?, value))) {
            request.headers.insert(name, value.parse().unwrap());
            request.method = if is_head_object(call) { Method::HEAD } else { Method::GET };
        }
        let fields = fields.iter().filter(|(name, _)| !name.starts_with('?'));
        transforms.add(MaskedAnswer::of(call, masks, &settings, session, &mut request, &log, false));
        let mut head = http::Response::builder().status(status).body(()).unwrap().into_parts().0;
        for (name, value) in fields {
            head.headers.insert(*name, value.parse().unwrap());
        }
        head.headers.entry(CONTENT_LENGTH).or_insert(HeaderValue::from(body.len()));
        let mode = transforms.head(&mut head);
        let mut out = Vec::new();
        for part in body.chunks(7) {
            let part = Bytes::copy_from_slice(part);
            if mode == Mode::Untouched {
                out.push(part);
            } else {
                transforms.push(part, &mut out).map_err(|error| error.to_string())?;
            }
        }
        if mode != Mode::Untouched {
            transforms.finish(&mut out).map_err(|error| error.to_string())?;
        }
        if mode == Mode::Whole {
            transforms.settle(&mut head);
        }
        let masked = log.lock().clone();
        Ok(Got { body: String::from_utf8_lossy(&out.concat()).into_owned(), head, masked })
    }

    fn default(call: &Call, fields: &[(&'static str, &str)], body: &[u8]) -> Result<Got, String> {
        answer(call, Masks::default(), MaskingSettings::default(), fields, 200, body)
    }

    fn get_secret() -> Call {
        call("secretsmanager", "GetSecretValue", "json")
    }

    const JSON: (&str, &str) = ("content-type", "application/x-amz-json-1.1");

    #[test]
    fn secrets_are_masked_and_what_the_head_says_of_the_body_goes() {
        let got = default(&get_secret(), &[JSON, ("x-amz-crc32", "1"), ("etag", "x")], SECRET.as_bytes()).unwrap();
        assert!(got.body.starts_with(r#"{"Name":"n","SecretString":"chaperone-masked-"#), "{}", got.body);
        assert!(!got.body.contains("hunter2"));
        assert_eq!(got.masked, [Masked { rule: "sensitive".into(), path: "SecretString".into(), count: 1 }]);
        for name in ["x-amz-crc32", "etag", "content-length"] {
            assert!(!got.head.headers.contains_key(name), "{name}");
        }
        // Nothing to mask: nothing is changed.
        let clean = r#"{"Name":"n"}"#;
        let got =
            default(&get_secret(), &[JSON, ("x-amz-crc32", "1"), ("x-amz-checksum-crc32", "y")], clean.as_bytes());
        let got = got.unwrap();
        assert_eq!((got.body.as_str(), got.masked.len()), (clean, 0));
        for (name, value) in [("x-amz-crc32", "1"), ("x-amz-checksum-crc32", "y"), ("content-length", "12")] {
            assert_eq!(got.head.headers[name], value);
        }
        // A server that doesn't say that it is JSON.
        let got = default(&get_secret(), &[("content-type", "text/html")], SECRET.as_bytes()).unwrap();
        assert!(!got.body.contains("hunter2"));
        // Detectors in what no model marks.
        let body = format!(r#"{{"Description":"use {GITHUB}"}}"#);
        let got = default(&call("ecs", "DescribeServices", "json"), &[JSON], body.as_bytes()).unwrap();
        assert_eq!(got.masked, [Masked { rule: "github".into(), path: "Description".into(), count: 1 }]);
    }

    #[test]
    fn data_is_looked_through_where_a_policy_says_so() {
        let object = call("s3", "GetObject", "rest-xml");
        let body = format!("key = {GITHUB}\n");
        assert_eq!(default(&object, &[], body.as_bytes()).unwrap().body, body);
        let masks = || policy(&[MaskTarget::Credentials]);
        let got = answer(&object, masks(), MaskingSettings::default(), &[("etag", "x")], 200, body.as_bytes()).unwrap();
        assert!(got.body.starts_with("key = chaperone-masked-") && got.body.len() == body.len(), "{}", got.body);
        assert_eq!(got.head.headers[ETAG], "x-masked");
        let refused = answer(&object, masks(), MaskingSettings::default(), &[], 206, body.as_bytes());
        assert!(refused.err().unwrap().contains("whole object"));
        let path = policy(&[MaskTarget::Path("Items[].pin.S".into())]);
        let items = br#"{"Items":[{"pin":{"S":"1234"},"id":{"S":"1"}}]}"#;
        let query = call("dynamodb", "Query", "json");
        let got = answer(&query, path, MaskingSettings::default(), &[JSON], 200, items).unwrap();
        assert!(got.body.ends_with(r#""},"id":{"S":"1"}}]}"#) && !got.body.contains("1234"), "{}", got.body);
        assert_eq!(got.masked[0].rule, "p");
    }

    /// Heads, parts and the whole say the same of an object.
    #[test]
    fn an_object_is_the_same_in_its_parts_and_its_head() {
        let object = call("s3", "GetObject", "rest-xml");
        let text = format!("{}key = {GITHUB}\n{}", "a".repeat(50), "b".repeat(50));
        let of = |call: &Call, targets: &[MaskTarget], fields: &[(&'static str, &str)], status, body: &str| {
            run(
                &Placeholders::new(),
                call,
                policy(targets),
                MaskingSettings::default(),
                fields,
                status,
                body.as_bytes(),
            )
        };
        let credentials = [MaskTarget::Credentials];
        let head = call("s3", "HeadObject", "rest-xml");
        let length = text.len().to_string();
        let said = of(
            &head,
            &credentials,
            &[("?x", ""), ("etag", "\"x\""), ("content-length", &length), ("x-amz-checksum-crc32", "A")],
            200,
            "",
        )
        .unwrap();
        assert!(said.head.headers[ETAG] == "\"x-masked\"" && said.head.headers[CONTENT_LENGTH] == *length);
        assert_eq!(said.head.headers.len(), 2);
        let whole = of(&object, &credentials, &[("?x", ""), ("etag", "\"x\"")], 200, &text).unwrap();
        assert!(whole.head.headers[ETAG] == "\"x-masked\"" && whole.body.len() == text.len());
        // A part that begins and ends within the secret has nothing of it.
        let (from, to) = (60, 70);
        let range = format!("bytes={from}-{to}");
        let answered = format!("bytes 0-{}/{}", text.len() - 1, text.len());
        let part = of(&object, &credentials, &[("?range", &range), ("content-range", &answered)], 206, &text).unwrap();
        assert_eq!(part.head.headers["content-range"], format!("bytes {from}-{to}/{}", text.len()).as_str());
        assert!(part.body.len() == 11 && !text.contains(&part.body) && part.body.contains("-"), "{}", part.body);
        // What can't be read in parts is refused; and where its length isn't known, nothing is said of it.
        let json = ("content-type", "application/json");
        let refused =
            of(&object, &credentials, &[("?range", "bytes=0-1"), json, ("content-range", "bytes 0-1/9")], 206, "{}");
        assert!(refused.err().unwrap().contains("whole object"));
        let path = [MaskTarget::Path("a".into())];
        let refused = of(&object, &path, &[("?range", "bytes=0-1"), ("content-range", "bytes 0-1/9")], 206, "ab");
        assert!(refused.err().unwrap().contains("whole object"));
        let said = of(&head, &path, &[("?x", ""), json, ("content-length", "9")], 200, "").unwrap();
        assert!(!said.head.headers.contains_key(CONTENT_LENGTH));
        // Nothing is masked by this one in an object: it is AWS's.
        let said = of(&head, &[MaskTarget::Sensitive], &[("?x", ""), ("etag", "x"), ("content-length", "9")], 200, "")
            .unwrap();
        assert!(said.head.headers[ETAG] == "x" && said.head.headers[CONTENT_LENGTH] == "9");
    }

    #[test]
    fn what_is_lifted_or_replaced_elsewhere_stays() {
        let lifted = Masks { lifted: true, ..Masks::default() };
        let got = answer(&get_secret(), lifted, MaskingSettings::default(), &[JSON], 200, SECRET.as_bytes()).unwrap();
        assert_eq!(got.body, SECRET);
        let off = MaskingSettings::new(false, OnError::Refuse, None, Vec::new()).unwrap();
        assert_eq!(answer(&get_secret(), Masks::default(), off, &[JSON], 200, SECRET.as_bytes()).unwrap().body, SECRET);
        let sts = "<A><B><Credentials><SecretAccessKey>x</SecretAccessKey></Credentials></B></A>";
        assert_eq!(default(&call("sts", "AssumeRole", "query"), &[], sts.as_bytes()).unwrap().body, sts);
    }

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn compressed_answers_are_read_within_bounds() {
        let packed = gzip(SECRET.as_bytes());
        let zstd = zstd::encode_all(SECRET.as_bytes(), 3).unwrap();
        for (encoding, body) in [("gzip", &packed), ("zstd", &zstd)] {
            let got = default(&get_secret(), &[JSON, ("content-encoding", encoding)], body).unwrap();
            assert!(got.body.contains("chaperone-masked-") && !got.body.contains("hunter2"));
            assert!(!got.head.headers.contains_key(CONTENT_ENCODING));
        }
        let bomb = gzip(&vec![b' '; 32 << 20]);
        for (encoding, body) in [
            ("gzip", &packed[..packed.len() - 1]),
            ("gzip", &packed[..4]),
            ("gzip", SECRET.as_bytes()),
            ("zstd", SECRET.as_bytes()),
            ("br", SECRET.as_bytes()),
            ("gzip, gzip", &packed[..]),
            ("gzip", &bomb[..]),
        ] {
            assert!(default(&get_secret(), &[JSON, ("content-encoding", encoding)], body).is_err(), "{encoding}");
        }
    }

    #[test]
    fn what_cant_be_read_is_refused_or_masked_as_a_whole() {
        let broken = &SECRET.as_bytes()[..SECRET.len() - 1];
        assert!(default(&get_secret(), &[JSON], broken).err().unwrap().contains("JSON"));
        let settings = MaskingSettings::new(true, OnError::MaskAll, None, Vec::new()).unwrap();
        let got = answer(&get_secret(), Masks::default(), settings, &[JSON], 200, broken).unwrap();
        assert_eq!(got.body, "{}");
    }

    #[test]
    fn placeholders_are_a_sessions_own_and_one_secrets() {
        let of = |session: &Placeholders, call: &Call, path: &str| {
            use chaperone_masking::{Secret, Vault as _};
            session.of(call).placeholder(Secret { kind: Kind::Text, rule: "r", path, value: Some(b"v") })
        };
        let (one, other) = (Placeholders::new(), Placeholders::new());
        let mut secret = get_secret();
        let first = of(&one, &secret, "a");
        assert_eq!(first, of(&one.clone(), &secret, "a"));
        assert_ne!(first, of(&one, &secret, "b"));
        assert_ne!(first, of(&other, &secret, "a"));
        // Whoever stores a guess elsewhere and reads it can't tell that it is the same value.
        secret.resources = vec!["arn:aws:secretsmanager:eu-west-1:123456789012:secret:own".into()];
        assert_ne!(first, of(&one, &secret, "a"));
    }

    /// What a session was not shown must not come back to it in another answer.
    #[test]
    fn what_was_masked_is_looked_for_in_later_answers() {
        let session = Placeholders::new();
        let secret = r#"{"SecretString":"correct-horse-battery"}"#;
        let got = answer_of(&session, &get_secret(), &[JSON], secret.as_bytes()).unwrap();
        let placeholder = &got.body[r#"{"SecretString":""#.len()..got.body.len() - 2];
        assert!(placeholder.starts_with("chaperone-masked-"), "{placeholder}");
        for (call, fields, body) in [
            (
                call("ssm", "GetParameter", "json"),
                &[JSON][..],
                r#"{"Parameter":{"Type":"String","Value":"correct-horse-battery"}}"#,
            ),
            (call("dynamodb", "GetItem", "json"), &[JSON], r#"{"Item":{"a":{"S":"x correct-horse-battery"}}}"#),
            (call("sts", "AssumeRole", "query"), &[], "<A><B><Arn>r/correct-horse-battery</Arn></B></A>"),
            (
                call("rds", "CreateDBInstance", "query"),
                &[],
                "<E><Error><Message>correct-horse-battery is bad</Message></Error></E>",
            ),
            (
                call("sqs", "ReceiveMessage", "json"),
                &[JSON],
                r#"{"Messages":[{"Body":"{\"p\":\"correct-horse-battery\"}"}]}"#,
            ),
        ] {
            let got = answer_of(&session, &call, fields, body.as_bytes()).unwrap();
            assert_eq!(got.body, body.replace("correct-horse-battery", placeholder));
            assert_eq!(got.masked[0].rule, "echo");
            // Another session was never kept from it.
            let other = answer_of(&Placeholders::new(), &call, fields, body.as_bytes()).unwrap();
            assert_eq!(other.body, body);
        }
        // What is stored streams as it is long, and the head stays.
        let object = call("s3", "GetObject", "rest-xml");
        let got = answer_of(&session, &object, &[("etag", "e")], b"p=correct-horse-battery;").unwrap();
        assert_eq!(got.body, format!("p={};", &placeholder[..21]));
        assert!(got.head.headers[ETAG] == "e" && got.head.headers[CONTENT_LENGTH] == "24");
        let packed = gzip(b"p=correct-horse-battery;");
        let got = answer_of(&session, &object, &[("content-encoding", "gzip")], &packed).unwrap();
        assert_eq!(got.head.headers[CONTENT_ENCODING], "gzip");
    }
}
