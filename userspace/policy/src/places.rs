//! Where in a policy file's text something stands: entities by their names, and annotations.
//!
//! Cedar tells the place of what it finds wrong itself. What is checked here besides needs places of its own, also in
//! files that don't parse.

/// What was found in a text, in its order.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// Such as `Action::"s3:GetObject"`.
    pub(crate) entities: Vec<Named>,
    /// Such as `@id("x")`.
    pub(crate) annotations: Vec<Named>,
}

/// A type or an annotation, with its text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// The type's or the annotation's name.
    pub(crate) name: String,
    /// The text in quotes; empty for an annotation without one.
    pub(crate) text: String,
    /// Where the name begins, in bytes.
    pub(crate) at: usize,
}

#[derive(Debug, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Colons,
    Symbol(char),
}

impl Places {
    pub(crate) fn of(text: &str) -> Self {
        let tokens = tokens(text);
        let mut places = Self::default();
        let mut rest = &tokens[..];
        while !rest.is_empty() {
            rest = match rest {
                [(_, Token::Symbol('@')), (at, Token::Name(name)), after @ ..] => {
                    let value = match after {
                        [(_, Token::Symbol('(')), (_, Token::Text(text)), ..] => text.clone(),
                        _ => String::new(),
                    };
                    places.annotations.push(Named { name: name.clone(), text: value, at: *at });
                    after
                }
                [(at, Token::Name(first)), after @ ..] => {
                    let (mut name, mut after) = (first.clone(), after);
                    while let [(_, Token::Colons), (_, Token::Name(part)), more @ ..] = after {
                        name.push_str("::");
                        name.push_str(part);
                        after = more;
                    }
                    if let [(_, Token::Colons), (_, Token::Text(text)), more @ ..] = after {
                        places.entities.push(Named { name, text: text.clone(), at: *at });
                        after = more;
                    }
                    after
                }
                [_, after @ ..] => after,
                [] => rest,
            };
        }
        places
    }

    /// Where the policy with this `@id` says so; else the beginning.
    pub(crate) fn of_id(&self, id: &str) -> usize {
        self.annotation("id", id).unwrap_or(0)
    }

    /// Where the last annotation of this name and text is.
    pub(crate) fn annotation(&self, name: &str, text: &str) -> Option<usize> {
        self.annotations.iter().rev().find(|it| it.name == name && it.text == text).map(|it| it.at.saturating_sub(1))
    }
}

/// Line and column, both from 1, of a place in a text.
pub(crate) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = String::from_utf8_lossy(&text.as_bytes()[..at.min(text.len())]);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

fn tokens(text: &str) -> Vec<(usize, Token)> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    let run = |from: usize, wanted: fn(u8) -> bool| {
        bytes[from..].iter().position(|byte| !wanted(*byte)).map_or(bytes.len(), |length| from + length)
    };
    while let Some(byte) = bytes.get(at) {
        let end = match byte {
            b'/' if bytes.get(at + 1) == Some(&b'/') => run(at, |byte| byte != b'\n'),
            b'"' => {
                let mut end = at + 1;
                while bytes.get(end).is_some_and(|byte| *byte != b'"') {
                    end += if bytes[end] == b'\\' { 2 } else { 1 };
                }
                let inside = text.get(at + 1..end.min(text.len())).unwrap_or_default();
                tokens.push((at, Token::Text(unescaped(inside))));
                end + 1
            }
            b':' if bytes.get(at + 1) == Some(&b':') => {
                tokens.push((at, Token::Colons));
                at + 2
            }
            byte if byte.is_ascii_alphabetic() || *byte == b'_' => {
                let end = run(at, |byte| byte.is_ascii_alphanumeric() || byte == b'_');
                tokens.push((at, Token::Name(text[at..end].to_owned())));
                end
            }
            byte if byte.is_ascii_whitespace() => at + 1,
            byte => {
                tokens.push((at, Token::Symbol(char::from(*byte))));
                at + 1
            }
        };
        at = end;
    }
    tokens
}

/// A string's text: Cedar escapes as Rust does.
fn unescaped(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let code = |digits: &str| u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
        match rest.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('0') => out.push('\0'),
            Some('x') => {
                let digits: String = rest.by_ref().take(2).collect();
                out.extend(code(&digits));
            }
            Some('u') => {
                let digits: String = rest.by_ref().skip(1).take_while(|c| *c != '}').collect();
                out.extend(code(&digits));
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entities_and_annotations_are_found_wherever_they_may_stand() {
        let text = "// Action::\"no\"\n@id(\"a // b\")\n@ note permit(principal, action == Action :: \"s3\\u{3a}x\",\n\
                    resource == Resource::\"arn://x\") when { context.x == \"Action::\\\"no\\\"\" };\nA::B::\"c\"";
        let places = Places::of(text);
        let named = |all: &[Named]| all.iter().map(|it| format!("{} {}", it.name, it.text)).collect::<Vec<_>>();
        assert_eq!(named(&places.entities), ["Action s3:x", "Resource arn://x", "A::B c"]);
        assert_eq!(named(&places.annotations), ["id a // b", "note "]);
        assert_eq!(line_and_column(text, places.entities[0].at), (3, 36));
        assert_eq!(line_and_column(text, places.of_id("a // b")), (2, 1));
    }

    #[test]
    fn texts_that_do_not_parse_are_read_to_their_end() {
        for text in ["\"", "\"\\", "Action::\"", "@", "Action::", "é\"ü\\é", "//", "\u{1}::::\"\\u{", "\"\\x\"é"] {
            Places::of(text);
            Places::of(&text.repeat(1000));
        }
        assert_eq!(line_and_column("é\nü", 99), (2, 2));
    }
}
