//! The words of a shell script, so far as it takes to find the secrets in it.

use std::ops::Range;

/// A word, as it stands in the script, quotes and all.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) place: Range<usize>,
    /// Whether it begins a command.
    pub(super) begins: bool,
}

/// The words. Whatever separates commands ends one; quotes and `$(…)` hold one together, unless they are never closed:
/// then what they open goes on to the end, if it looks like a value, and is nothing otherwise. Takes time linear in the text.
pub(super) fn words(script: &str) -> Vec<Word> {
    let bytes = script.as_bytes();
    let (mut words, mut at, mut begins, mut unclosed) = (Vec::new(), 0, true, Unclosed::default());
    while at < bytes.len() {
        if bytes[at].is_ascii_whitespace() {
            begins |= bytes[at] == b'\n';
            at += 1;
            continue;
        }
        let start = at;
        while at < bytes.len() && !bytes[at].is_ascii_whitespace() {
            at = after(bytes, start, at, &mut unclosed);
        }
        let word = &script[start..at];
        if word.bytes().all(|byte| b"&|;(){}!".contains(&byte)) || ["do", "then", "else", "exec"].contains(&word) {
            begins = true;
            continue;
        }
        words.push(Word { place: start..at, begins });
        begins = word.ends_with([';', '|', '&']);
    }
    words
}

/// What was looked for to the end of the script in vain, and so isn't behind any later place either.
#[derive(Default)]
struct Unclosed {
    single: bool,
    double: bool,
    parenthesis: bool,
}

/// Where what begins at this place of a word ends: a character, or all that is held together.
fn after(bytes: &[u8], start: usize, at: usize, unclosed: &mut Unclosed) -> usize {
    let (closed, was_unclosed) = match bytes[at] {
        b'\\' => return bytes.len().min(at + 2),
        b'\'' => (bytes[at + 1..].iter().position(|byte| *byte == b'\'').map(|n| at + n + 2), &mut unclosed.single),
        b'"' if unclosed.double => (None, &mut unclosed.double),
        b'"' => (closing(bytes, at + 1), &mut unclosed.double),
        b'$' if bytes.get(at + 1) == Some(&b'(') && !unclosed.parenthesis => {
            (parenthesis(bytes, at + 2), &mut unclosed.parenthesis)
        }
        _ => return at + 1,
    };
    if let Some(end) = closed {
        return end;
    }
    *was_unclosed = true;
    let is_value = at == start || matches!(bytes[at - 1], b'=' | b':');
    if is_value && bytes[at] != b'$' { bytes.len() } else { at + 1 }
}

fn closing(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn parenthesis(bytes: &[u8], from: usize) -> Option<usize> {
    let mut depth = 1_usize;
    for (at, byte) in bytes.iter().enumerate().skip(from) {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

/// What stands before, in and behind the quotes around all of a word.
pub(super) fn unquoted(word: &str) -> (&str, &str, &str) {
    for quote in ["'", "\""] {
        if let Some(rest) = word.strip_prefix(quote) {
            return match rest.strip_suffix(quote) {
                Some(inner) => (quote, inner, quote),
                None if !rest.contains(quote) => (quote, rest, ""),
                None => ("", word, ""),
            };
        }
    }
    ("", word, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_shell() {
        for (script, wanted) in [
            ("a 'b c' \"d \\\" e\" f\\ g", &["a", "'b c'", "\"d \\\" e\"", "f\\ g"][..]),
            ("a=\"b c\"'d e'f g", &["a=\"b c\"'d e'f", "g"]),
            ("don't do that", &["don't", "do", "that"]),
            ("a=\"b c", &["a=\"b c"]),
            ("x=$(cat a b) c", &["x=$(cat a b)", "c"]),
            ("x=$(cat a b", &["x=$(cat", "a", "b"]),
            ("a;b", &["a;b"]),
            ("a\\", &["a\\"]),
        ] {
            let found: Vec<_> = words(script).into_iter().map(|word| &script[word.place]).collect();
            assert_eq!(found, wanted.iter().copied().filter(|word| *word != "do").collect::<Vec<_>>(), "{script}");
        }
        let begins: Vec<_> = words("a b; c d | e && f\ng h").into_iter().map(|word| word.begins).collect();
        assert_eq!(begins, [true, false, true, false, true, true, true, false]);
    }

    #[test]
    fn hostile_scripts_take_linear_time() {
        // A quadratic search would look at 10^10 places.
        for unit in ["a'b\"", "\"", "$(", "'", "\\", "a'"] {
            let script = unit.repeat(100_000);
            assert!(words(&script).iter().all(|word| word.place.end <= script.len()));
        }
    }
}
