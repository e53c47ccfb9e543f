//! Standard output: results, and nothing else.

use std::borrow::Cow;
use std::io::{self, BufWriter, StdoutLock, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

use crate::failure::Outcome;

/// Standard output, in large pieces.
pub(crate) fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(1 << 16, io::stdout().lock())
}

/// Writes one JSON value and a newline to standard output.
pub(crate) fn json(value: &impl Serialize) -> Outcome {
    let mut out = stdout();
    json_line(&mut out, value)?;
    Ok(out.flush()?)
}

/// Writes one JSON value and a newline.
pub(crate) fn json_line(out: &mut impl Write, value: &impl Serialize) -> Outcome {
    value.serialize(&mut Serializer::with_formatter(&mut *out, OneLine))?;
    Ok(out.write_all(b"\n")?)
}

/// Compact JSON that is one line to whoever reads it: characters that some languages take for line ends, as Python's
/// `splitlines` does, are escaped, and with them all that could steer a terminal.
struct OneLine;

impl Formatter for OneLine {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|&(_, c)| ends_line(c)) {
            write!(out, "{}\\u{:04x}", &rest[..at], u32::from(c))?;
            rest = &rest[at + c.len_utf8()..];
        }
        out.write_all(rest.as_bytes())
    }
}

fn ends_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Text from a file or a server without what could steer a terminal: control characters are escaped, but for newlines.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && c != '\n';
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Writes rows of cells in columns; the columns in `right` are aligned to the right.
pub(crate) fn table(out: &mut impl Write, rows: &[Vec<String>], right: &[usize]) -> io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| {
        rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (i, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let space = " ".repeat(width - cell.chars().count());
            let (before, after) =
                if right.contains(&i) { (space, String::new()) } else { (String::new(), space) };
            line += &format!("{}{before}{cell}{after}", if i == 0 { "" } else { "  " });
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_not_steered_by_files() {
        assert_eq!(printable("a\nb é"), "a\nb é");
        assert_eq!(printable("\x1b[2Jx\u{9b}"), "\\u{1b}[2Jx\\u{9b}");
    }

    #[test]
    fn json_is_one_line_and_keeps_its_text() {
        let text = "a\u{2028}b\u{85}c\nd\u{7f}é\u{2029}";
        let mut out = Vec::new();
        json_line(&mut out, &text).unwrap();
        let line = String::from_utf8(out).unwrap();
        assert_eq!(line, "\"a\\u2028b\\u0085c\\nd\\u007fé\\u2029\"\n");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".into(), "10".into(), "x".into()], vec!["bcd".into(), "9".into()]];
        let mut out = Vec::new();
        table(&mut out, &rows, &[1]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a    10  x\nbcd   9\n");
    }
}
