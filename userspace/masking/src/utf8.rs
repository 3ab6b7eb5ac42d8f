//! Whether bytes that come in pieces are UTF-8.

use crate::MaskError;

/// Checks pieces, the characters that are cut between them included.
#[derive(Debug, Default)]
pub(crate) struct Utf8 {
    cut: [u8; 4],
    length: usize,
}

impl Utf8 {
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Result<(), MaskError> {
        while self.length > 0 {
            let Some((first, rest)) = bytes.split_first() else { return Ok(()) };
            self.cut[self.length] = *first;
            self.length += 1;
            bytes = rest;
            match std::str::from_utf8(&self.cut[..self.length]) {
                Ok(_) => self.length = 0,
                Err(error) if error.error_len().is_none() && self.length < 4 => {}
                Err(_) => return Err(MaskError::Unparsable("text that is UTF-8")),
            }
        }
        if let Err(error) = std::str::from_utf8(bytes) {
            if error.error_len().is_some() {
                return Err(MaskError::Unparsable("text that is UTF-8"));
            }
            let rest = &bytes[error.valid_up_to()..];
            self.cut[..rest.len()].copy_from_slice(rest);
            self.length = rest.len();
        }
        Ok(())
    }

    pub(crate) fn finish(&self) -> Result<(), MaskError> {
        if self.length == 0 { Ok(()) } else { Err(MaskError::Unparsable("text that is UTF-8")) }
    }
}
