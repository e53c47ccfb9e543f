//! Where texts come from, one at a time: arguments, lines, a column of a JSONL, CSV or Parquet file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use serde_json::Value;

use super::parquet::TextColumn;
use crate::failure::{Failure, OrFail, Outcome};

/// The longest line that is read: a file without line ends must not fill the memory.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// What a file of texts looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InputFormat {
    /// Each line is a text.
    Lines,
    /// Each line is an object with a column, or a text in quotes.
    Jsonl,
    /// Rows with a header, as RFC 4180 has it.
    Csv,
    /// A table with a column of texts.
    Parquet,
}

impl InputFormat {
    /// By the end of a file's name.
    pub(super) fn of(path: &Path) -> Self {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        match extension.as_str() {
            "jsonl" | "ndjson" => Self::Jsonl,
            "csv" => Self::Csv,
            "parquet" | "pq" => Self::Parquet,
            _ => Self::Lines,
        }
    }
}

/// Texts, in order.
pub(super) struct Source {
    name: String,
    texts: Texts,
    /// Records read so far.
    count: u64,
}

enum Texts {
    Given(std::vec::IntoIter<String>),
    Lines { input: Input, format: InputFormat, column: String, line: Vec<u8>, number: u64 },
    Csv { reader: Box<csv::Reader<Input>>, column: usize, record: csv::StringRecord },
    Parquet(Box<TextColumn>),
}

/// Something to read, which counts its bytes.
pub(super) struct Input {
    reader: Box<dyn BufRead>,
    bytes: u64,
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

impl Source {
    /// Texts that are at hand.
    pub(super) fn given(texts: Vec<String>) -> Self {
        Self { name: "arguments".into(), texts: Texts::Given(texts.into_iter()), count: 0 }
    }

    /// The texts of a file, or of standard input for `-`.
    pub(super) fn open(path: &Path, format: InputFormat, column: &str) -> Outcome<Self> {
        if format == InputFormat::Parquet {
            if path == Path::new("-") {
                return Err(Failure::Usage("a Parquet file cannot come from standard input: name it".into()));
            }
            let texts = Texts::Parquet(Box::new(TextColumn::open(path, column)?));
            return Ok(Self { name: path.display().to_string(), texts, count: 0 });
        }
        let (name, reader): (String, Box<dyn BufRead>) = if path == Path::new("-") {
            ("standard input".into(), Box::new(BufReader::with_capacity(1 << 16, io::stdin())))
        } else {
            let name = path.display().to_string();
            let file = File::open(path).or_fail(|| format!("can't read {name}"))?;
            (name, Box::new(BufReader::with_capacity(1 << 16, file)))
        };
        let input = Input { reader, bytes: 0 };
        let texts = match format {
            InputFormat::Csv => {
                let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(input);
                let headers = reader.headers().or_fail(|| format!("can't read {name}"))?;
                let known: Vec<_> = headers.iter().map(str::to_owned).collect();
                let column = known.iter().position(|header| header == column).ok_or_else(|| {
                    Failure::new(format!("{name} has no column {column:?}; it has {}", known.join(", ")))
                })?;
                Texts::Csv { reader: Box::new(reader), column, record: csv::StringRecord::new() }
            }
            format => Texts::Lines { input, format, column: column.to_owned(), line: Vec::new(), number: 0 },
        };
        Ok(Self { name, texts, count: 0 })
    }

    /// Bytes read so far.
    pub(super) fn bytes(&self) -> u64 {
        match &self.texts {
            Texts::Given(_) => 0,
            Texts::Lines { input, .. } => input.bytes,
            Texts::Csv { reader, .. } => reader.position().byte(),
            Texts::Parquet(column) => column.bytes(),
        }
    }

    /// Passes over texts that are done.
    pub(super) fn skip(&mut self, count: u64) -> Outcome {
        for _ in 0..count {
            if self.next()?.is_none() {
                return Err(Failure::new(format!(
                    "{} ends after {} texts, of which {count} are done: it is not the input that the job began with",
                    self.name, self.count
                )));
            }
        }
        Ok(())
    }

    /// The next text; nothing at the end.
    pub(super) fn next(&mut self) -> Outcome<Option<String>> {
        let text = match &mut self.texts {
            Texts::Given(texts) => texts.next(),
            Texts::Parquet(column) => {
                let (name, row) = (&self.name, self.count + 1);
                column.next(|| format!("row {row} of {name}"))?
            }
            Texts::Csv { reader, column, record } => {
                let name = &self.name;
                let place = || format!("{name}, record {}", self.count + 1);
                if reader.read_record(record).or_fail(place)? {
                    let text = record.get(*column);
                    Some(text.ok_or_else(|| Failure::new(format!("{} is too short", place())))?.to_owned())
                } else {
                    None
                }
            }
            Texts::Lines { input, format, column, line, number } => loop {
                *number += 1;
                let place = || format!("line {number} of {}", self.name);
                if !read_line(input, line).or_fail(place)? {
                    break None;
                }
                let text = std::str::from_utf8(line).or_fail(place)?;
                if *format == InputFormat::Lines {
                    break Some(text.to_owned());
                }
                if text.trim().is_empty() {
                    continue;
                }
                break Some(column_of(text, column, place)?);
            },
        };
        self.count += u64::from(text.is_some());
        Ok(text)
    }
}

/// Reads a line without its end; returns whether there was one.
fn read_line(input: &mut Input, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let read = (&mut input.reader).take(MAX_LINE_BYTES).read_until(b'\n', line)?;
    input.bytes += read as u64;
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    } else if read as u64 == MAX_LINE_BYTES {
        return Err(io::Error::other(format!("longer than {MAX_LINE_BYTES} bytes")));
    }
    Ok(read > 0)
}

/// The text in a line of JSON.
fn column_of(line: &str, column: &str, place: impl Fn() -> String) -> Outcome<String> {
    match serde_json::from_str(line).or_fail(&place)? {
        Value::String(text) => Ok(text),
        Value::Object(mut object) => match object.remove(column) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(Failure::new(format!("{}: {column:?} is no text", place()))),
            None => Err(Failure::new(format!("{} has no {column:?}", place()))),
        },
        _ => Err(Failure::new(format!("{} is no object", place()))),
    }
}
