//! One answer's body while it is read: expanded, masked, cut to what was asked for.

use bytes::Bytes;
use chaperone_masking::{Format, Masker};
use http::{HeaderName, HeaderValue};

use crate::{
    body::{inflate::Inflate, stored::Cut, transform::TransformError},
    masking::OnError,
};

pub(super) struct Reading {
    pub(super) masker: Option<Masker>,
    pub(super) inflate: Option<Inflate>,
    pub(super) format: Format,
    /// All of it is kept until its end.
    pub(super) whole: bool,
    /// What of it was asked for.
    pub(super) cut: Option<Cut>,
    pub(super) given: Vec<Bytes>,
    /// The fields that are of the body as AWS sent it.
    pub(super) fields: Vec<(HeaderName, HeaderValue)>,
    pub(super) changed: bool,
}

const PLACEHOLDER: &str = "chaperone-masked";

impl Reading {
    /// Of a body that streams, of which the head says what it said.
    pub(super) fn passing(masker: Masker) -> Self {
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

    /// Whether what goes on is AWS's body, byte for byte.
    pub(super) fn is_as_it_came(&self) -> bool {
        !self.changed && self.masker.as_ref().is_some_and(|masker| masker.findings().is_empty())
    }

    /// What goes on now.
    pub(super) fn give(&mut self, out: &mut Vec<Bytes>) {
        match &mut self.cut {
            Some(cut) => out.extend(self.given.drain(..).map(|bytes| cut.of(&bytes))),
            None => out.append(&mut self.given),
        }
    }

    pub(super) fn push(&mut self, bytes: &Bytes) -> Result<(), String> {
        let mut plain = Vec::new();
        match &mut self.inflate {
            Some(inflate) => inflate.push(bytes, &mut plain)?,
            None => plain.push(bytes.clone()),
        }
        let Some(masker) = &mut self.masker else { return Ok(()) };
        plain.iter().try_for_each(|bytes| masker.push(bytes, &mut self.given)).map_err(|error| error.to_string())
    }

    pub(super) fn finish(&mut self) -> Result<(), String> {
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
    pub(super) fn settle(&mut self, result: Result<(), String>, on_error: OnError) -> Result<(), TransformError> {
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
