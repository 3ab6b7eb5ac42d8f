//! Texts that fit a regular expression, made by walking through it.

use anyhow::Result;
use regex_syntax::{
    ParserBuilder,
    hir::{Class, Hir, HirKind},
};

/// Repetitions go no further than this past their least, where they have no end.
const MORE: u32 = 24;

/// Makes texts of one expression, every run the same ones.
pub(super) struct Sampler {
    hir: Hir,
    state: u64,
}

impl Sampler {
    /// Of an expression; where it lets letters be of either case, they are as they are written.
    pub(super) fn new(pattern: &str) -> Result<Self> {
        let pattern = pattern.replace("(?i)", "").replace("(?i:", "(?:").replace("(?-i:", "(?:");
        let hir = ParserBuilder::new().unicode(false).utf8(false).build().parse(&pattern)?;
        Ok(Self { hir, state: 0x9e37_79b9_7f4a_7c15 })
    }

    /// The next text.
    pub(super) fn sample(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let hir = self.hir.clone();
        self.walk(&hir, &mut out);
        out
    }

    fn walk(&mut self, hir: &Hir, out: &mut Vec<u8>) {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => {}
            HirKind::Literal(literal) => out.extend_from_slice(&literal.0),
            HirKind::Class(class) => out.push(self.one_of(class)),
            HirKind::Repetition(it) => {
                let most = it.max.unwrap_or(it.min + MORE).min(it.min + MORE);
                for _ in 0..it.min + self.below(most - it.min + 1) {
                    self.walk(&it.sub, out);
                }
            }
            HirKind::Capture(it) => self.walk(&it.sub, out),
            HirKind::Concat(parts) => parts.iter().for_each(|part| self.walk(part, out)),
            HirKind::Alternation(ways) => {
                let at = self.below(u32::try_from(ways.len()).unwrap_or(u32::MAX));
                self.walk(&ways[at as usize], out);
            }
        }
    }

    /// A printable byte of a class, if it has any.
    fn one_of(&mut self, class: &Class) -> u8 {
        let has = |byte: u8| match class {
            Class::Bytes(it) => it.iter().any(|range| (range.start()..=range.end()).contains(&byte)),
            Class::Unicode(it) => {
                it.iter().any(|range| (range.start()..=range.end()).contains(&char::from(byte))) && byte.is_ascii()
            }
        };
        let bytes: Vec<u8> = (0..=255).filter(|byte| has(*byte)).collect();
        let letters: Vec<u8> = bytes.iter().copied().filter(u8::is_ascii_graphic).collect();
        let from = if letters.is_empty() { bytes } else { letters };
        from[self.below(u32::try_from(from.len()).unwrap_or(u32::MAX)) as usize]
    }

    fn below(&mut self, end: u32) -> u32 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.state >> 33) % u64::from(end.max(1))).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_fits() {
        for pattern in [r"\b(ghp_[0-9a-zA-Z]{36})(?:[\s;]|$)", "(?i)a|b[^x]{3,}c?", r"x{2,3}(?:\\?['\x60])"] {
            let expression = regex::bytes::Regex::new(pattern).unwrap();
            let mut sampler = Sampler::new(pattern).unwrap();
            let all: Vec<Vec<u8>> = (0..20).map(|_| sampler.sample()).collect();
            assert!(all.iter().all(|it| expression.is_match(it)), "{pattern}: {all:?}");
            assert!(all.iter().any(|it| *it != all[0]), "{pattern}");
        }
    }
}
