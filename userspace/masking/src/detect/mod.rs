//! Secrets known by what they look like, in any text.
//!
//! One automaton finds the few letters that a kind of secret begins with; only there is looked closer, by a matcher
//! that reads no further than its reach. Text without such letters costs one pass.

mod check;
mod custom;
mod matchers;
mod rules;

use std::{
    ops::Range,
    sync::{Arc, LazyLock},
};

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};

pub use custom::{CustomDetector, DetectorError};
use matchers::Verdict;
pub use rules::DETECTORS;
use rules::{RULES, Rule};

/// A secret in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Where what it is known by begins.
    pub(crate) from: usize,
    pub(crate) rule: HitRule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HitRule {
    BuiltIn(u16),
    Custom(u16),
    /// One of the values that must not come back.
    Echo(u16),
}

/// A set of detectors, ready to look with.
#[derive(Clone, Debug)]
pub struct Detectors(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    automaton: AhoCorasick,
    /// The rule of each of the automaton's patterns.
    rules: Vec<u16>,
    literals: Vec<Vec<u8>>,
    /// For each pattern those whose letters its own begin with: where it is found, they are there too.
    others: Vec<Vec<usize>>,
    /// The bytes that some literal begins with, in either case.
    first: [bool; 256],
    longest: usize,
    cards: Option<u16>,
    custom: Vec<CustomDetector>,
}

static CREDENTIALS: LazyLock<Detectors> = LazyLock::new(|| {
    let names: Vec<&str> = DETECTORS.iter().filter(|it| it.default).map(|it| it.name).collect();
    Detectors::new(&names, Vec::new()).expect("BUG: the default detectors make an automaton")
});

impl Detectors {
    /// Those that are on by default: credentials, and no card numbers.
    pub fn credentials() -> Self {
        CREDENTIALS.clone()
    }

    /// Those with these names, and custom ones.
    pub fn new(names: &[&str], custom: Vec<CustomDetector>) -> Result<Self, DetectorError> {
        if let Some(unknown) = names.iter().find(|name| !DETECTORS.iter().any(|it| it.name == **name)) {
            return Err(DetectorError::Unknown((*unknown).to_owned()));
        }
        let (mut rules, mut literals) = (Vec::new(), Vec::new());
        let mut cards = None;
        for (at, rule) in RULES.iter().enumerate().filter(|(_, rule)| names.contains(&rule.name)) {
            let at = u16::try_from(at).map_err(|_| DetectorError::TooMany)?;
            if rule.literal.is_empty() {
                cards = Some(at);
                continue;
            }
            rules.push(at);
            literals.push(rule.literal.as_bytes().to_ascii_lowercase());
        }
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::LeftmostLongest)
            .kind(Some(AhoCorasickKind::DFA))
            .build(&literals)
            .map_err(|error| DetectorError::Automaton(error.to_string()))?;
        let begins = |it: &Vec<u8>, at: usize| {
            let all = literals.iter().enumerate();
            all.filter(|(other, literal)| *other != at && it.starts_with(literal)).map(|(other, _)| other).collect()
        };
        let others = literals.iter().enumerate().map(|(at, it)| begins(it, at)).collect();
        let mut first = [false; 256];
        for literal in &literals {
            first[usize::from(literal[0])] = true;
            first[usize::from(literal[0].to_ascii_uppercase())] = true;
        }
        let longest = literals.iter().map(Vec::len).max().unwrap_or(0);
        Ok(Self(Arc::new(Inner { automaton, rules, literals, others, first, longest, cards, custom })))
    }

    /// Whether there is nothing in a text that needs a closer look: what isn't so may still have no secret.
    pub fn finds_nothing(&self, text: &[u8]) -> bool {
        self.is_clean(text)
    }

    /// A hit's name.
    pub(crate) fn name(&self, rule: HitRule) -> &str {
        match rule {
            HitRule::BuiltIn(at) => RULES[usize::from(at)].name,
            HitRule::Custom(at) => self.0.custom[usize::from(at)].name(),
            HitRule::Echo(_) => crate::echoes::RULE,
        }
    }

    /// Whether nothing begins in these bytes that is looked closer at: most answers hold no such letters at all.
    pub(crate) fn is_clean(&self, bytes: &[u8]) -> bool {
        let it = &*self.0;
        it.cards.is_none() && it.custom.is_empty() && it.automaton.find(bytes).is_none()
    }

    /// Looks through a text that `before` came right before. Without `last` more will follow: what is from the given
    /// position on must be looked at again together with it.
    pub(crate) fn scan(&self, text: &[u8], before: Option<u8>, last: bool, hits: &mut Vec<Hit>) -> usize {
        let it = &*self.0;
        let mut safe = text.len();
        let mut at = 0;
        while let Some(found) = it.automaton.find(Input::new(text).range(at..)) {
            let pattern = found.pattern().as_usize();
            let mut next = found.start() + 1;
            let mut more = false;
            for pattern in std::iter::once(pattern).chain(it.others[pattern].iter().copied()) {
                let position = it.rules[pattern];
                let letters = found.start()..found.start() + it.literals[pattern].len();
                match verdict(&RULES[usize::from(position)], text, letters, before, last) {
                    Verdict::No => {}
                    Verdict::More => more = true,
                    Verdict::Hit(start, end) => {
                        let from = found.start().min(start);
                        hits.push(Hit { start, end, from, rule: HitRule::BuiltIn(position) });
                        next = next.max(end);
                    }
                }
            }
            if more {
                safe = safe.min(found.start());
                break;
            }
            at = next;
        }
        if !last {
            safe = safe.min(text.len() - it.beginning(&text[..safe]).min(text.len()));
        }
        if let Some(rule) = it.cards {
            safe = matchers::cards(text, before, last, safe, |start, end| {
                hits.push(Hit { start, end, from: start, rule: HitRule::BuiltIn(rule) });
            });
        }
        for (at, custom) in it.custom.iter().enumerate() {
            let rule = HitRule::Custom(u16::try_from(at).unwrap_or(u16::MAX));
            safe = custom.scan(text, last, safe, |from, start, end| hits.push(Hit { start, end, from, rule }));
        }
        settle(hits, safe)
    }
}

impl Inner {
    /// How many bytes at the end may be the beginning of a literal.
    fn beginning(&self, text: &[u8]) -> usize {
        let from = text.len().saturating_sub(self.longest.saturating_sub(1));
        for at in from..text.len() {
            if !self.first[usize::from(text[at])] {
                continue;
            }
            let tail = &text[at..];
            let begins =
                |literal: &Vec<u8>| literal.len() > tail.len() && literal[..tail.len()].eq_ignore_ascii_case(tail);
            if self.literals.iter().any(begins) {
                return tail.len();
            }
        }
        0
    }
}

/// Hits in order, none over another: the first one counts, and has the others' bytes too. Those that begin where nothing
/// is decided yet are met again.
pub(crate) fn settle(hits: &mut Vec<Hit>, mut safe: usize) -> usize {
    hits.sort_by_key(|hit| (hit.start, std::cmp::Reverse(hit.end)));
    for hit in hits.iter().rev() {
        if hit.start >= safe {
            safe = safe.min(hit.from);
        }
    }
    hits.retain(|hit| hit.start < safe);
    hits.dedup_by(|hit, before| {
        let over = hit.start < before.end;
        if over {
            before.end = before.end.max(hit.end);
        }
        over
    });
    // What is a hit is decided to its end.
    if let Some(last) = hits.last() {
        safe = safe.max(last.end);
    }
    safe
}

/// What a rule says of its letters at a place.
fn verdict(rule: &Rule, text: &[u8], letters: Range<usize>, before: Option<u8>, last: bool) -> Verdict {
    let Range { start, end } = letters;
    if rule.exact && text[start..end] != *rule.literal.as_bytes() {
        return Verdict::No;
    }
    let previous = if start == 0 { before } else { Some(text[start - 1]) };
    if rule.at_word && previous.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Verdict::No;
    }
    rule.matcher.look(text, start, end, last)
}

#[cfg(test)]
mod tests {
    use super::{matchers::Matcher, *};

    /// Bytes that nobody can guess and that every run has the same.
    struct Random(u64);

    impl Random {
        fn next(&mut self, below: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.0 >> 33).unwrap_or(0) % below
        }

        fn of(&mut self, alphabet: &[u8], length: usize) -> String {
            (0..length).map(|_| char::from(alphabet[self.next(alphabet.len())])).collect()
        }
    }

    static ALL: LazyLock<Detectors> = LazyLock::new(|| {
        let all: Vec<&str> = DETECTORS.iter().map(|it| it.name).collect();
        Detectors::new(&all, Vec::new()).unwrap()
    });

    fn found(text: &str) -> Vec<(&'static str, String)> {
        let mut hits = Vec::new();
        ALL.scan(text.as_bytes(), None, true, &mut hits);
        let name = |hit: &Hit| match hit.rule {
            HitRule::BuiltIn(at) => RULES[usize::from(at)].name,
            HitRule::Custom(_) | HitRule::Echo(_) => "custom",
        };
        hits.iter().map(|hit| (name(hit), text[hit.start..hit.end].to_owned())).collect()
    }

    #[test]
    fn every_token_that_is_well_formed_is_found_and_what_is_too_short_or_in_a_word_is_not() {
        let mut random = Random(1);
        for rule in RULES {
            let Matcher::Token { class, min, max, inner, .. } = rule.matcher else { continue };
            let alphabet: Vec<u8> = (0..=255).filter(|b: &u8| class.has(*b) && b.is_ascii_alphanumeric()).collect();
            for _ in 0..20 {
                let length = min + random.next((max - min).min(40) + 1);
                let token = format!("{}{}", rule.literal, random.of(&alphabet, length));
                let hits = found(&format!("key: {token}; next"));
                let expected = if inner { &token[rule.literal.len()..] } else { &token };
                assert!(hits.contains(&(rule.name, expected.to_owned())), "{}: {token}: {hits:?}", rule.name);
                let short = &token[..rule.literal.len() + min - 1];
                assert!(found(short).iter().all(|(_, it)| !it.contains(rule.literal)), "{}: {short}", rule.name);
                if rule.at_word {
                    let within = format!("x{token}");
                    assert!(!found(&within).contains(&(rule.name, token.clone())), "{}: {within}", rule.name);
                }
            }
        }
    }

    /// Where two kinds begin with the same letters, or one with more of them, each is found.
    #[test]
    fn kinds_that_begin_alike_are_told_apart() {
        let hex = "0123456789abcdef0123456789abcdef";
        let long = "UonbRygqskeSDggXqn9pT3BlbkFJQfOe98GSYHWtUCIo0jsO";
        assert_eq!(found(&format!("sk-{hex}")), [("deepseek", format!("sk-{hex}"))]);
        assert_eq!(found(&format!("sk-{long} ")), [("openai", format!("sk-{long}"))]);
        // What is cut within the longer beginning may still be the other.
        for cut in 0..long.len() + 3 {
            let text = format!("sk-{long} ");
            let (mut hits, mut first) = (Vec::new(), Vec::new());
            let safe = ALL.scan(&text.as_bytes()[..cut], None, false, &mut first);
            ALL.scan(&text.as_bytes()[safe..], text.as_bytes()[..safe].last().copied(), true, &mut hits);
            assert!(first.is_empty() && hits.len() == 1 && safe == 0, "{cut}: {safe}, {hits:?}");
        }
        for rule in RULES {
            let same = RULES.iter().filter(|it| it.literal.eq_ignore_ascii_case(rule.literal));
            let exact = same.clone().all(|it| it.exact) || same.count() == 1;
            assert!(exact, "{}: `{}` in either case hides others", rule.name, rule.literal);
        }
    }

    #[test]
    fn secrets_behind_names_are_found_and_stand_ins_are_not() {
        let mut random = Random(2);
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        for name in ["aws_secret_access_key = ", "AWS_SECRET_ACCESS_KEY=", "\"SecretAccessKey\": \"", "secret_key: '"] {
            let secret = format!("a0Z{}", random.of(alphabet, 37));
            assert_eq!(found(&format!("{name}{secret}\"\n")), [("aws-secret-access-key", secret.clone())], "{name}");
            assert!(found(&format!("{name}{secret}x")).is_empty());
            assert!(found(&format!("{name}{}", &secret[..39])).is_empty());
        }
        for (text, secret) in [
            ("postgres://app:hunter2!@db.internal:5432/x", "hunter2!"),
            ("mongodb+srv://root:p/w?1@cluster0.mongodb.net", "p/w?1"),
            ("Server=db;User Id=sa;Password=S3cure!;Encrypt=yes", "S3cure!"),
            ("Endpoint=sb://x/;SharedAccessKeyName=n;SharedAccessKey=abc123=", "abc123="),
        ] {
            assert_eq!(found(text), [("connection-string", secret.to_owned())], "{text}");
        }
        for clean in [
            "https://example.com:443/@scope/package",
            "postgres://app:${PASSWORD}@db/x",
            "postgres://app:<password>@db/x",
            "https://user:@host/",
            "git@github.com:a/b https://a.b/c?d=e@f",
            "Password=;x ;Password=changeme;",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
            "-----BEGIN PRIVATE KEY----- is how they begin",
            "eyJhbGciOiJIUzI1NiJ9 eyJ.eyJ.x eyJxeXJhbGciOiJIUzI1Ni.aaaaaaaaaaaa.b",
            "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "an expression: `[a-z]+://[^/?#]+:/?#@` and ://u:/?#@",
            "sk-learn is a library, xoxb- begins a token, AKIAIOSFODNN is short",
        ] {
            assert_eq!(found(clean), [], "{clean}");
        }
        let key = "-----BEGIN PRIVATE KEY-----\\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\\n-----END PRIVATE KEY-----";
        assert_eq!(found(key)[0].0, "private-key");
    }
}
