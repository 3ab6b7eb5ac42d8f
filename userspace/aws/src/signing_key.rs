//! What an answer must not bring back of the credentials that signed its request, prepared once for all their calls.

use aho_corasick::{AhoCorasick, MatchKind};

/// Shorter texts are no keys, and could be part of anything.
const MIN_KNOWN: usize = 16;
/// How much of a token is enough to know it by, without the characters that some formats write otherwise.
const MAX_RUN: usize = 48;

/// How a text is written.
#[derive(Clone, Copy, Debug)]
enum Form {
    Plain,
    /// Its bytes in hexadecimal with spaces between them, as S3 writes what should have been signed.
    Dump {
        upper: bool,
    },
}

impl Form {
    const ALL: [Self; 3] = [Self::Plain, Self::Dump { upper: false }, Self::Dump { upper: true }];

    fn write(self, text: &[u8]) -> Vec<u8> {
        let Self::Dump { upper } = self else { return text.to_vec() };
        let digits = if upper { b"0123456789ABCDEF" } else { b"0123456789abcdef" };
        let mut out = Vec::with_capacity(3 * text.len());
        for byte in text {
            out.extend([digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)], b' ']);
        }
        out.pop();
        out
    }
}

/// A text in one form.
struct Needle {
    text: Vec<u8>,
    form: Form,
    /// It is the access key's id, in whose place the agent's own goes.
    is_id: bool,
}

/// Finds the id and the token of one signing key, in every form that AWS says them again in.
pub(crate) struct SigningKey {
    needles: Vec<Needle>,
    finder: AhoCorasick,
    longest: usize,
}

impl SigningKey {
    pub(crate) fn of(id: &str, token: Option<&str>) -> Self {
        // What is around it some formats write otherwise: `/` as `\/`, `+` as `%2B`, `=` as `&#61;`.
        let plain = |b: u8| b.is_ascii_alphanumeric();
        let token = token.unwrap_or_default().as_bytes();
        let run = token.split(|b| !plain(*b)).max_by_key(|run| run.len()).unwrap_or_default();
        Self::new(id.as_bytes(), &run[..run.len().min(MAX_RUN)])
    }

    fn new(id: &[u8], run: &[u8]) -> Self {
        let mut needles = Vec::new();
        for (text, is_id) in [(id, true), (run, false)] {
            if text.len() >= MIN_KNOWN {
                needles.extend(Form::ALL.map(|form| Needle { text: form.write(text), form, is_id }));
            }
        }
        let finder = AhoCorasick::builder()
            // The one for which several texts are looked for at once by vector instructions.
            .match_kind(MatchKind::LeftmostFirst)
            .build(needles.iter().map(|needle| &needle.text))
            .expect("BUG: six texts make an automaton");
        let longest = needles.iter().map(|needle| needle.text.len()).max().unwrap_or(0);
        Self { needles, finder, longest }
    }

    /// Where it is in `text`, and what goes on in its place, of the same length: the agent's own id, or nothing readable.
    pub(crate) fn find(&self, text: &[u8], own_id: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let mut found = Vec::new();
        for hit in self.finder.find_iter(text) {
            let Needle { text: known, form, is_id } = &self.needles[hit.pattern().as_usize()];
            let by = form.write(own_id);
            let fits = *is_id && by.len() == known.len() && by != *known;
            // Of a dump nothing is left that reads as one.
            found.push((hit.start(), if fits { by } else { vec![b'x'; known.len()] }));
        }
        found
    }

    /// How many bytes at the end may be the beginning of it.
    pub(crate) fn beginning(&self, text: &[u8]) -> usize {
        let tail = &text[text.len().saturating_sub(self.longest.saturating_sub(1))..];
        let of = |needle: &Needle| {
            let from = tail.len().saturating_sub(needle.text.len() - 1);
            memchr::memchr_iter(needle.text[0], &tail[from..])
                .find(|&at| needle.text.starts_with(&tail[from + at..]))
                .map_or(0, |at| tail.len() - from - at)
        };
        self.needles.iter().map(of).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_texts_are_no_keys() {
        let key = SigningKey::new(b"test", b"");
        assert!(key.find(b"a test", b"").is_empty());
        assert_eq!(key.beginning(b"a tes"), 0);
        let key = SigningKey::new(b"0123456789abcdef", b"");
        assert_eq!(key.find(b"a 0123456789abcdef", b"short"), [(2, vec![b'x'; 16])]);
        assert_eq!(key.find(b"a 0123456789abcdef", b"fedcba9876543210"), [(2, b"fedcba9876543210".to_vec())]);
        assert_eq!(key.beginning(b"a 0123456"), 7);
    }
}
