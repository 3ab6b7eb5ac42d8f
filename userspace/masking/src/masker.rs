//! One answer's body on its way through the masker of its format.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    Detectors, Echoes, Findings, Selector, Vault, cbor::CborMasker, event_stream::EventStreamMasker, json::JsonMasker,
    run::Scanner, selector::Selected, text::TextMasker, xml::XmlMasker,
};

/// Why a body doesn't go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    /// It isn't what it says it is.
    #[error("it can't be read for masking: it isn't {0}")]
    Unparsable(&'static str),
    /// It can't be read within the bounds.
    #[error("it can't be read for masking: {0}, of more than {1}")]
    TooLarge(&'static str, usize),
}

/// The format of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Concise Binary Object Representation (RFC 8949).
    Cbor,
    /// Messages of `application/vnd.amazon.eventstream`.
    EventStream,
    /// One JSON value.
    Json,
    /// JSON values one after the other.
    JsonLines,
    /// Anything else.
    Text,
    /// XML without a DOCTYPE.
    Xml,
}

impl Format {
    /// By the content type; `None` for what it doesn't tell.
    pub fn of(content_type: &str) -> Option<Self> {
        let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        Some(match kind.as_str() {
            "application/cbor" => Self::Cbor,
            "application/vnd.amazon.eventstream" => Self::EventStream,
            "application/x-ndjson" | "application/jsonl" | "application/jsonlines" | "application/x-jsonlines" => {
                Self::JsonLines
            }
            _ if kind.ends_with("json") || kind.starts_with("application/x-amz-json") => Self::Json,
            _ if kind.ends_with("/xml") || kind.ends_with("+xml") => Self::Xml,
            _ if kind.starts_with("text/") => Self::Text,
            _ => return None,
        })
    }
}

/// What is masked in an answer.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Members.
    pub selectors: Vec<Arc<Selector>>,
    /// What looks like a secret.
    pub detectors: Option<Detectors>,
    /// Values that must not come back.
    pub echoes: Option<Echoes>,
    /// What detectors find in JSON, XML and plain text is written over by as many bytes: the body's length has been told
    /// already, and parts of it may be read by themselves.
    pub same_length: bool,
}

impl Rules {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.detectors.is_none() && self.echoes.is_none() && self.selectors.iter().all(|it| it.is_empty())
    }
}

enum Reader {
    Cbor(CborMasker),
    EventStream(Box<EventStreamMasker>),
    Json(JsonMasker),
    Text(TextMasker),
    Xml(XmlMasker),
}

/// Masks one body.
pub struct Masker {
    reader: Reader,
    scanner: Scanner,
    failed: Option<MaskError>,
}

impl Masker {
    /// For a body of this format.
    pub fn new(format: Format, rules: Rules, vault: Box<dyn Vault>) -> Self {
        let selected = Selected::new(rules.selectors);
        let reader = match format {
            Format::Cbor => Reader::Cbor(CborMasker::new(selected)),
            Format::EventStream => Reader::EventStream(Box::new(EventStreamMasker::new(selected))),
            Format::Json => Reader::Json(JsonMasker::new(selected, false, rules.same_length)),
            Format::JsonLines => Reader::Json(JsonMasker::new(selected, true, rules.same_length)),
            Format::Text => Reader::Text(TextMasker::new(rules.same_length)),
            Format::Xml => Reader::Xml(XmlMasker::new(selected, rules.same_length)),
        };
        Self { reader, scanner: Scanner::new(rules.detectors, rules.echoes, vault), failed: None }
    }

    /// Takes a piece, and appends what goes on now. After an error nothing goes on any more.
    pub fn push(&mut self, bytes: &Bytes, out: &mut Vec<Bytes>) -> Result<(), MaskError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let scanner = &mut self.scanner;
        let result = match &mut self.reader {
            Reader::Cbor(it) => it.push(bytes, scanner, out),
            Reader::EventStream(it) => it.push(bytes, scanner, out),
            Reader::Json(it) => it.push(bytes, scanner, out),
            Reader::Text(it) => it.push(bytes, scanner, out),
            Reader::Xml(it) => it.push(bytes, scanner, out),
        };
        result.inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// The end of the body.
    pub fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), MaskError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let scanner = &mut self.scanner;
        let result = match &mut self.reader {
            Reader::Cbor(it) => it.finish(),
            Reader::EventStream(it) => it.finish(scanner, out),
            Reader::Json(it) => it.finish(),
            Reader::Text(it) => it.finish(scanner, out),
            Reader::Xml(it) => it.finish(),
        };
        result.inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// What was masked so far.
    pub fn findings(&self) -> &Findings {
        &self.scanner.findings
    }
}
