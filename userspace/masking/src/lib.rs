//! Secrets taken out of answers while they stream: in JSON, XML, CBOR, AWS's event streams and plain text.
//!
//! It knows formats and what secrets look like, and nothing of policies, HTTP or services: which members are to be
//! masked comes as a [`Selector`], what goes in their place from a [`Vault`]. Every format is read strictly and with
//! bounded memory; what can't be read is an error, never passed on. Bytes in which nothing is masked go on as the very
//! slices that came.

#![forbid(unsafe_code)]

mod automaton;
mod cbor;
mod detect;
mod echoes;
mod escapes;
mod event_stream;
mod findings;
mod json;
mod masker;
mod out;
mod run;
mod selector;
#[cfg(test)]
mod tests;
mod text;
mod utf8;
mod xml;

pub use detect::{CustomDetector, DETECTORS, DetectorError, Detectors};
pub use echoes::Echoes;
pub use findings::{Finding, Findings, Fixed, Secret, Vault};
pub use masker::{Format, MaskError, Masker, Rules};
pub use selector::{Kind, Mask, Selector, SelectorBuilder, SelectorError};
