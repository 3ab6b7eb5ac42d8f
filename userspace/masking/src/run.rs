//! One text that is looked through for secrets while it comes in pieces: a JSON string, the text of an XML element, a
//! plain body. What can't be decided yet is held, and nothing else.

use bytes::{Bytes, BytesMut};

use crate::{
    MaskError,
    detect::{Detectors, Hit, HitRule},
    echoes::{self, Echoes},
    escapes::{Decoded, Style, decode},
    findings::{Findings, Secret, Vault},
    out::Out,
    selector::Kind,
};

/// More is held of no text. Above every detector's reach; escapes may make a text six times as long.
const MAX_HELD: usize = 1 << 20;
/// How much of a secret its vault is shown.
pub(crate) const MAX_VALUE: usize = 64 * 1024;

/// What texts are looked through with, and what comes of it.
pub(crate) struct Scanner {
    detectors: Option<Detectors>,
    echoes: Option<Echoes>,
    pub(crate) vault: Box<dyn Vault>,
    pub(crate) findings: Findings,
    /// Hits of the last look; kept for its memory.
    hits: Vec<Hit>,
}

impl Scanner {
    pub(crate) fn new(detectors: Option<Detectors>, echoes: Option<Echoes>, vault: Box<dyn Vault>) -> Self {
        Self { detectors, echoes, vault, findings: Findings::default(), hits: Vec::new() }
    }

    /// Whether texts are looked through at all.
    pub(crate) fn looks(&self) -> bool {
        self.detectors.is_some() || self.echoes.is_some()
    }

    /// Whether nothing is found or begins in these bytes. What ends in them needn't be looked at.
    pub(crate) fn is_clean(&self, bytes: &[u8]) -> bool {
        self.detectors.as_ref().is_none_or(|it| it.is_clean(bytes))
            && self.echoes.as_ref().is_none_or(|it| it.is_clean(bytes))
    }

    /// What goes in a secret's place.
    pub(crate) fn placeholder(&mut self, kind: Kind, rule: &str, path: &str, value: Option<&[u8]>) -> String {
        self.findings.add(rule, path);
        let value = value.filter(|value| value.len() <= MAX_VALUE);
        self.vault.placeholder(Secret { kind, rule, path, value })
    }

    /// Looks at a text; the hits are kept.
    fn look(&mut self, decoded: &Decoded<'_>, before: Option<u8>, last: bool) -> usize {
        self.hits.clear();
        let safe = match &self.detectors {
            Some(detectors) => detectors.scan(&decoded.text, before, last, &mut self.hits),
            None => decoded.text.len(),
        };
        match &self.echoes {
            Some(echoes) => echoes.scan(&decoded.text, last, safe, &mut self.hits),
            None => safe,
        }
    }

    /// What goes on in the place of a hit, which has so many bytes as it is written.
    fn by(&mut self, hit: Hit, decoded: &Decoded<'_>, path: &str, length: Option<usize>) -> Bytes {
        let by = if let (HitRule::Echo(at), Some(echoes)) = (hit.rule, &self.echoes) {
            self.findings.add(echoes::RULE, path);
            echoes.placeholder(at).to_owned()
        } else {
            let rule = self.detectors.as_ref().map_or_else(String::new, |it| it.name(hit.rule).to_owned());
            self.placeholder(Kind::Text, &rule, path, Some(&decoded.text[hit.start..hit.end]))
        };
        fitted(by, length)
    }
}

/// A placeholder of exactly so many bytes, if it must have them.
fn fitted(mut text: String, length: Option<usize>) -> Bytes {
    let Some(length) = length else { return text.into() };
    text.truncate(length);
    while text.len() < length {
        text.push('-');
    }
    text.into()
}

/// The text being read.
#[derive(Debug, Default)]
pub(crate) struct Run {
    held: BytesMut,
    /// What is held need not be looked at again before there is so much of it.
    again: usize,
    before: Option<u8>,
    /// Secrets are replaced by as many bytes: the text's length has gone on already.
    pub(crate) same_length: bool,
}

impl Run {
    pub(crate) fn new(same_length: bool) -> Self {
        Self { same_length, ..Self::default() }
    }

    /// Forgets what was before: another text begins.
    pub(crate) fn begin(&mut self, same_length: bool) {
        self.held.clear();
        (self.again, self.before, self.same_length) = (0, None, same_length);
    }

    /// Whether nothing of the text is held.
    pub(crate) fn is_idle(&self) -> bool {
        self.held.is_empty()
    }

    /// Takes a part of the piece, from `start` to `end`. Secrets in it are replaced; what isn't decided is taken away,
    /// and goes on later.
    pub(crate) fn push(
        &mut self,
        (start, end): (usize, usize),
        last: bool,
        style: Style,
        path: &str,
        scanner: &mut Scanner,
        out: &mut Out<'_>,
    ) -> Result<(), MaskError> {
        // XML's references are read in any case: those that aren't its own are refused.
        if !scanner.looks() && style != Style::Xml {
            return Ok(());
        }
        if self.held.is_empty() {
            let part = &out.chunk[start..end];
            let decoded = decode(part, style, last)?;
            let safe = scanner.look(&decoded, self.before, last);
            let mut safe_raw = if safe == decoded.text.len() { decoded.read } else { decoded.raw(safe) };
            for hit in std::mem::take(&mut scanner.hits) {
                let (from, end) = (decoded.raw(hit.start), decoded.raw_end(hit.end));
                let by = scanner.by(hit, &decoded, path, self.same_length.then_some(end - from));
                debug_assert!(start + end <= out.chunk.len());
                out.replace(start + from, start + end, by);
                safe_raw = safe_raw.max(end);
            }
            self.before = safe.checked_sub(1).map(|at| decoded.text[at]).or(self.before);
            if safe_raw < part.len() {
                self.hold(&part[safe_raw..])?;
                out.pass_to(start + safe_raw);
                out.drop_to(end);
            }
            return Ok(());
        }
        let part = &out.chunk[start..end];
        self.hold(part)?;
        out.pass_to(start);
        out.drop_to(end);
        // Tiny pieces must not have what is held looked at over and over.
        if !last && self.held.len() < self.again {
            return Ok(());
        }
        let held = std::mem::take(&mut self.held).freeze();
        let decoded = decode(&held, style, last)?;
        let safe = scanner.look(&decoded, self.before, last);
        let safe_raw = if safe == decoded.text.len() { decoded.read } else { decoded.raw(safe) };
        let mut at = 0;
        for hit in std::mem::take(&mut scanner.hits) {
            let (from, end) = (decoded.raw(hit.start), decoded.raw_end(hit.end));
            out.put(held.slice(at..from));
            out.put(scanner.by(hit, &decoded, path, self.same_length.then_some(end - from)));
            at = end;
        }
        let safe_raw = safe_raw.max(at);
        out.put(held.slice(at..safe_raw));
        self.before = safe.checked_sub(1).map(|at| decoded.text[at]).or(self.before);
        self.hold(&held[safe_raw..])?;
        self.again = self.held.len() + self.held.len() / 2;
        Ok(())
    }

    /// The end of a text whose last bytes have come before it was known to end.
    pub(crate) fn end(
        &mut self,
        style: Style,
        path: &str,
        scanner: &mut Scanner,
        out: &mut Out<'_>,
        at: usize,
    ) -> Result<(), MaskError> {
        if self.held.is_empty() { Ok(()) } else { self.push((at, at), true, style, path, scanner, out) }
    }

    fn hold(&mut self, part: &[u8]) -> Result<(), MaskError> {
        if self.held.len() + part.len() > MAX_HELD {
            return Err(MaskError::TooLarge("a secret that doesn't end", MAX_HELD));
        }
        self.held.extend_from_slice(part);
        Ok(())
    }
}
