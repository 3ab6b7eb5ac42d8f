//! Printing: JSON, or columns for people. What agents sent is shown with control characters made visible, so that no
//! recorded byte can move the reader's cursor.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use chaperone_model::{misleads, visible};
use serde::Serialize;

/// One value as JSON on one line.
pub fn json_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string(value)?;
    if !text.contains(misleads) {
        return writeln!(out, "{text}");
    }
    // Within strings alone can such characters be; there they are written as RFC 8259, 7, has it.
    let mut shown = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        if misleads(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(c);
        }
    }
    writeln!(out, "{shown}")
}

/// The text with control characters, and what turns or hides text, shown as escapes.
pub fn clean(text: &str) -> String {
    visible(text).into_owned()
}

/// The same, line by line.
pub fn clean_lines(text: &str) -> String {
    text.split('\n').map(|line| clean(line.strip_suffix('\r').unwrap_or(line))).collect::<Vec<_>>().join("\n")
}

/// The text cut to `width` characters.
pub fn cut(text: &str, width: usize) -> String {
    let text = clean(text);
    if text.chars().count() <= width {
        return text;
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// A table with columns as wide as their widest cell.
pub fn table(out: &mut impl Write, heads: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let mut widths: Vec<usize> = heads.iter().map(|head| head.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    for row in std::iter::once(&heads).chain(rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Bytes in the unit that people read.
#[allow(clippy::cast_precision_loss)] // shown with one digit
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_bytes_can_not_move_the_cursor() {
        assert_eq!(clean("a\u{1b}[2Jb\u{202e}"), "a\\u{1b}[2Jb\\u{202e}");
        assert_eq!(cut("abcdef", 4), "abc…");
        for c in [
            '\0',
            '\u{7f}',
            '\u{85}',
            '\u{9b}',
            '\u{200e}',
            '\u{200f}',
            '\u{2028}',
            '\u{202e}',
            '\u{2069}',
            '\u{feff}',
            '\u{e0041}',
        ] {
            let text = format!("a{c}b");
            assert_eq!(clean(&text), format!("a{}b", c.escape_unicode()));
            let mut out = Vec::new();
            json_line(&mut out, &text).unwrap();
            let line = String::from_utf8(out).unwrap();
            assert!(line.trim_end_matches('\n').chars().all(|c| !misleads(c)), "{}", line.escape_debug());
            assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
        }
        assert_eq!(clean("ü 日本 é"), "ü 日本 é");
    }
}
