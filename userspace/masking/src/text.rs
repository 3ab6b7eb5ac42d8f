//! Plain text, and bytes of any sort: looked through for secrets, whatever they are otherwise.

use bytes::Bytes;

use crate::{
    MaskError,
    escapes::Style,
    out::Out,
    run::{Run, Scanner},
};

/// Masks a body as it is.
#[derive(Debug)]
pub(crate) struct TextMasker(Run);

impl TextMasker {
    /// With `same_length`, secrets are written over by as many bytes.
    pub(crate) fn new(same_length: bool) -> Self {
        Self(Run::new(same_length))
    }

    pub(crate) fn push(&mut self, bytes: &Bytes, scanner: &mut Scanner, out: &mut Vec<Bytes>) -> Result<(), MaskError> {
        let mut out = Out::new(bytes, out);
        self.0.push((0, bytes.len()), false, Style::Plain, "", scanner, &mut out)?;
        out.pass_to(bytes.len());
        Ok(())
    }

    pub(crate) fn finish(&mut self, scanner: &mut Scanner, out: &mut Vec<Bytes>) -> Result<(), MaskError> {
        let empty = Bytes::new();
        self.0.end(Style::Plain, "", scanner, &mut Out::new(&empty, out), 0)
    }
}
