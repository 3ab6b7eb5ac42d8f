//! Secrets in answers are masked before the agent gets them: by AWS's models, by what they look like, and by policies.

mod asked;
mod fields;
mod reading;

use std::sync::Arc;

use bytes::Bytes;
use chaperone_aws::{SensitiveMembers, Sensitivity, VendingCall};
use chaperone_masking::{Format, Kind, Masker, Rules, Selector, SelectorBuilder};
use chaperone_model::{Call, Masked};
use chaperone_policy::{MaskTarget, Masks};
use http::{
    HeaderMap, Method, StatusCode, Uri,
    header::{CONTENT_ENCODING, CONTENT_LENGTH},
    request, response,
};
use parking_lot::Mutex;

use crate::{
    body::{
        inflate::Inflate,
        masked::{
            asked::Asked,
            fields::{FieldRules, encodings, take_of_body},
            reading::Reading,
        },
        stored::{Part, StoredObject},
        transform::{BodyTransform, Mode, TransformError},
    },
    masking::{AnswerPlaceholders, MaskingSettings, Placeholders},
};

/// An answer up to this size is read to its end before it goes on, so that its length and checksum are right and a
/// refusal is an error of AWS's own form. DynamoDB's and nearly every other service's stay below.
const MAX_WHOLE: u64 = 1 << 20;

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
    /// The agent has asked for an object under another type or coding than it has.
    overrides_format: bool,
    /// What is masked in an answer of this format and success, made for its head.
    ready: Option<(Format, bool, AnswerRules)>,
    log: MaskedLog,
    state: State,
}

/// What is masked in one answer.
struct AnswerRules {
    body: Rules,
    /// The body is no structure, and is masked as a whole.
    whole: bool,
    /// Fields of the head, with what says so.
    fields: Vec<(String, String)>,
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
            overrides_format: overrides_format(&parts.uri),
            ready: None,
            log: log.clone(),
            state: State::Waiting,
        };
        if !nothing
            && answer.call.is_raw()
            && !answer.rules(Format::Text, true).is_ok_and(|rules| rules.body.is_empty())
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
        self.stored.is_some() && format && !self.has_paths() && encodings(headers).is_empty()
    }

    /// The format of an answer. What a path masks is read as JSON where it says nothing else: it can't be in a text.
    fn format(&self, headers: &HeaderMap, success: bool) -> Format {
        match self.call.format(headers, success) {
            Format::Text if success && self.call.is_raw() && self.has_paths() => Format::Json,
            format => format,
        }
    }

    /// What is masked in an answer of this format.
    fn rules(&self, format: Format, success: bool) -> Result<AnswerRules, String> {
        let defaults = self.settings.enabled && !self.masks.lifted && !matches!(format, Format::EventStream);
        let xml = format == Format::Xml;
        let members = SensitiveMembers::of(&self.call.service, &self.call.operation, xml).filter(|_| success);
        let (mut rules, mut detectors) = (Rules::default(), Vec::new());
        let targets = || self.masks.policies.iter().flat_map(|(_, targets)| targets.iter());
        let sensitive = targets().any(|target| *target == MaskTarget::Sensitive);
        let mut fields: Vec<(String, String)> = Vec::new();
        let mut whole = false;
        if let Some(members) = &members {
            let selected = if sensitive { members.all.clone() } else { members.secrets.clone().filter(|_| defaults) };
            rules.selectors.extend(selected.map(Arc::new));
            whole = match members.body {
                Some(Sensitivity::Secret) => defaults || sensitive,
                Some(Sensitivity::Marked) => sensitive,
                None => false,
            };
            let named = FieldRules::sensitive(members.headers, defaults, sensitive);
            fields.extend(named.into_iter().map(|(name, rule)| (name.to_owned(), rule.to_owned())));
        }
        // An error's text is AWS's, whatever the answer would have been.
        let looks = defaults && (!success || !self.call.is_data() && format != Format::Text);
        let mut paths: Option<SelectorBuilder> = None;
        let mut credentials = looks;
        for (id, targets) in &self.masks.policies {
            for target in targets.iter() {
                match target {
                    MaskTarget::Sensitive => {}
                    MaskTarget::Credentials => credentials = true,
                    MaskTarget::Detector(name) => detectors.push(name.clone()),
                    MaskTarget::Path(path) => {
                        fields.push((path.clone(), id.clone()));
                        let paths = paths.get_or_insert_default();
                        paths.path(path, id, Kind::Text, xml).map_err(|error| error.to_string())?;
                    }
                }
            }
        }
        rules.selectors.extend(paths.map(|paths| Arc::new(Selector::from(paths))));
        rules.detectors = if detectors.is_empty() {
            credentials.then(|| self.settings.credentials())
        } else {
            if credentials {
                detectors.extend(self.settings.default_detectors());
            }
            Some(self.settings.detectors(detectors).map_err(|error| error.to_string())?)
        };
        Ok(AnswerRules { body: rules, whole, fields })
    }

    /// What is masked in an answer's fields, which an event stream, or no body at all, may come with.
    fn mask_fields(&mut self, headers: &mut HeaderMap, success: bool) {
        if self.only_echoes {
            return;
        }
        let format = self.format(headers, success);
        // A stream's head is no part of the stream.
        let as_if = if format == Format::EventStream { Format::Json } else { format };
        // What is wrong with a policy's mask is told where the body is read.
        let Ok(rules) = self.rules(as_if, success) else { return };
        let named = rules.fields.iter().map(|(name, rule)| (&**name, &**rule)).collect();
        let fields = FieldRules { named, detectors: rules.body.detectors.as_ref() };
        let found = fields.mask(headers, &mut self.placeholders);
        self.log.lock().extend(found);
        self.ready = Some((as_if, success, rules));
    }

    fn begin(&mut self, head: &mut response::Parts) -> Result<Option<State>, String> {
        let success = head.status.is_success();
        let mut format = self.format(&head.headers, success);
        let (mut rules, body) = if self.only_echoes {
            Default::default()
        } else {
            let rules = match self.ready.take() {
                Some((of, when, rules)) if of == format && when == success => rules,
                _ => self.rules(format, success)?,
            };
            (rules.body, rules.whole)
        };
        let only_echoes = rules.is_empty() && !body;
        rules.echoes = self.placeholders.vault().echoes();
        if rules.is_empty() && !body {
            return Ok(None);
        }
        let mut encodings = encodings(&head.headers);
        if only_echoes && self.call.is_raw() {
            // Whatever it is called, it is what somebody has stored; and what is compressed in there AWS has never read.
            if !encodings.is_empty() {
                return Ok(None);
            }
            if format != Format::EventStream {
                format = Format::Text;
                rules.same_length = true;
                let masker = Masker::new(format, rules, Box::new(self.placeholders.clone()));
                return Ok(Some(State::Reading(Box::new(Reading::passing(masker)))));
            }
        }
        if self.stored.is_some() && self.overrides_format && success {
            return Err("it is masked by what it says it is: read the object without response-content-type and \
                        response-content-encoding"
                .into());
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
        let fields = if keeps_length { Vec::new() } else { take_of_body(&mut head.headers, self.stored.is_some()) };
        head.headers.remove(CONTENT_ENCODING);
        let inflate = match (encodings.pop(), encodings.len()) {
            (Some(encoding), 0) => Some(Inflate::of(encoding.as_bytes())?),
            (None, _) => None,
            (Some(_), _) => return Err("it can't be read for masking: it is encoded more than once".into()),
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
            self.log.lock().push(whole);
            return;
        };
        let of =
            |it: &chaperone_masking::Finding| Masked { rule: it.rule.clone(), path: it.path.clone(), count: it.count };
        self.log.lock().extend(masker.findings().all().iter().map(of));
    }
}

impl BodyTransform for MaskedAnswer {
    fn reads(&self) -> bool {
        true
    }

    fn fields(&mut self, head: &mut response::Parts) {
        self.mask_fields(&mut head.headers, head.status.is_success());
    }

    fn trailers(&mut self, trailers: &mut HeaderMap) {
        if matches!(self.state, State::Reading(_)) {
            take_of_body(trailers, true);
            self.placeholders.clone().vault().clean(trailers);
            self.mask_fields(trailers, true);
        }
    }

    fn head(&mut self, head: &mut response::Parts) -> Mode {
        let empty = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if self.stored.is_some() && (head.status.is_success() || empty) {
            StoredObject::mark(&mut head.headers);
            let format = self.format(&head.headers, true);
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
            && reading.is_as_it_came()
        {
            // It is AWS's, byte for byte: what AWS said of it holds.
            for (name, value) in reading.fields.drain(..) {
                head.headers.append(name, value);
            }
        }
    }
}

fn is_head_object(call: &Call) -> bool {
    call.service == "s3" && call.operation == "HeadObject"
}

/// Whether a request asks S3 to say of an object that it is of another type, or is encoded otherwise, than it is.
fn overrides_format(uri: &Uri) -> bool {
    let names = uri.query().unwrap_or_default().split('&').map(|pair| pair.split('=').next().unwrap_or_default());
    names.into_iter().any(|name| {
        let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
        matches!(&*name, "response-content-type" | "response-content-encoding")
    })
}

#[cfg(test)]
mod tests;
