//! Text that is known only in part: literals, and `*` for any run of characters.
//!
//! The two questions that incomplete calls raise of it are both answered so that an error would deny: whether some text
//! can fit two patterns at once, and whether all text that fits one fits the other.

/// A pattern. Two stars never stand side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Token>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// Any run of characters, or none.
    Any,
    /// This character.
    Is(char),
}

/// Longer patterns than this are taken for `*`: the comparison's cost is the product of two lengths.
const MAX_TOKENS: usize = 2048;

impl Pattern {
    /// Reads what a resource looks like, in which every `*` is a wildcard. What is very long becomes `*`.
    pub(crate) fn parse(text: &str) -> Self {
        let pattern: Self = text.chars().map(|c| if c == '*' { Token::Any } else { Token::Is(c) }).collect();
        if pattern.0.len() > MAX_TOKENS { Self::any() } else { pattern }
    }

    /// Text that is known.
    pub(crate) fn literal(text: &str) -> Self {
        text.chars().map(Token::Is).collect()
    }

    /// Anything at all.
    pub(crate) fn any() -> Self {
        Self(vec![Token::Any])
    }

    pub(crate) fn tokens(&self) -> impl Iterator<Item = Token> {
        self.0.iter().copied()
    }

    fn is_any(&self) -> bool {
        self.0 == [Token::Any]
    }

    /// Whether some text fits both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        if self.is_any() || other.is_any() {
            return true;
        }
        // Which prefixes of `other` can be reached together with the prefix of `self` that was read so far.
        let mut reached = vec![false; other.0.len() + 1];
        reached[0] = true;
        skip_stars(&mut reached, &other.0);
        for token in &self.0 {
            let mut next = vec![false; other.0.len() + 1];
            for (at, _) in reached.iter().enumerate().filter(|(_, reached)| **reached) {
                match token {
                    // Stands for nothing, or for whatever comes next in `other`, as often as it likes.
                    Token::Any => next[at..].fill(true),
                    Token::Is(c) => match other.0.get(at) {
                        Some(Token::Any) => next[at] = true,
                        Some(Token::Is(o)) if o == c => next[at + 1] = true,
                        _ => {}
                    },
                }
            }
            skip_stars(&mut next, &other.0);
            reached = next;
        }
        reached[other.0.len()]
    }

    /// Whether all text that fits this one fits `other`.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        if other.is_any() {
            return true;
        }
        // `self` is read as text, in which its own stars are characters that only a star fits.
        let mut reached = vec![false; other.0.len() + 1];
        reached[0] = true;
        skip_stars(&mut reached, &other.0);
        for token in &self.0 {
            let mut next = vec![false; other.0.len() + 1];
            for (at, _) in reached.iter().enumerate().filter(|(_, reached)| **reached) {
                match (token, other.0.get(at)) {
                    (_, Some(Token::Any)) => next[at] = true,
                    (Token::Is(c), Some(Token::Is(o))) if o == c => next[at + 1] = true,
                    _ => {}
                }
            }
            skip_stars(&mut next, &other.0);
            reached = next;
        }
        reached[other.0.len()]
    }
}

/// A star may stand for nothing.
fn skip_stars(reached: &mut [bool], tokens: &[Token]) {
    for (at, token) in tokens.iter().enumerate() {
        reached[at + 1] |= reached[at] && *token == Token::Any;
    }
}

impl FromIterator<Token> for Pattern {
    fn from_iter<I: IntoIterator<Item = Token>>(tokens: I) -> Self {
        let mut all = Vec::new();
        for token in tokens {
            if token == Token::Any && all.last() == Some(&Token::Any) {
                continue;
            }
            all.push(token);
        }
        Self(all)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn overlap(a: &str, b: &str) -> bool {
        let (a, b) = (Pattern::parse(a), Pattern::parse(b));
        assert_eq!(a.overlaps(&b), b.overlaps(&a));
        a.overlaps(&b)
    }

    fn within(a: &str, b: &str) -> bool {
        Pattern::parse(a).is_within(&Pattern::parse(b))
    }

    #[test]
    fn patterns_overlap_where_some_text_fits_both() {
        assert!(overlap("instance/*", "*prod*"));
        assert!(overlap("*", ""));
        assert!(overlap("a*c", "ab*"));
        assert!(!overlap("arn:aws:ec2:*", "arn:aws:s3:*"));
        assert!(!overlap("a*b", "a*c"));
        assert!(!overlap("abc", "ab"));
        assert!(overlap("abc", "a*c"));
    }

    #[test]
    fn a_pattern_is_within_another_that_all_of_it_fits() {
        assert!(within("arn:aws:ec2:*:instance/*", "arn:aws:*"));
        assert!(within("a*b*c", "a*c"));
        assert!(!within("a*", "ab*"));
        assert!(!within("*", "a*"));
        assert!(within("ab", "a*b*"));
        assert!(!within("a*", "a"));
    }

    proptest! {
        /// What is within another overlaps it, and text that fits the one fits the other.
        #[test]
        fn a_text_that_fits_is_found(text in "[ab]{0,6}", one in "[ab*]{0,6}", other in "[ab*]{0,6}") {
            let (one, other, text) = (Pattern::parse(&one), Pattern::parse(&other), Pattern::literal(&text));
            let (in_one, in_other) = (text.is_within(&one), text.is_within(&other));
            prop_assert_eq!(in_one, text.overlaps(&one));
            if in_one && in_other {
                prop_assert!(one.overlaps(&other));
            }
            if in_one && one.is_within(&other) {
                prop_assert!(in_other);
            }
        }
    }
}
