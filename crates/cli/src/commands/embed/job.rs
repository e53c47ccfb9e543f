//! A file that is written over a long time: it can be left at any moment and gone on with.
//!
//! While a job runs, its output grows as `OUT.part`, and `OUT.job` says what the job is. How far it has come is not
//! written anywhere: it is the number of whole rows in `OUT.part`, so that nothing can disagree with it. A row that
//! was cut off by a crash is dropped and computed again. A rename ends the job.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use firecrest::embed::Embedding;
use serde_json::{Value, json};

use super::parquet;
use super::sink::{self, OutputFormat};
use crate::failure::{Failure, OrFail, Outcome};
use crate::files::write_whole;

/// An output file under way.
pub(super) struct Job {
    out: PathBuf,
    part: PathBuf,
    record: PathBuf,
    format: OutputFormat,
    file: BufWriter<File>,
    /// Values in a row.
    columns: usize,
    rows: u64,
    /// Held for its lock: two programs must not write one file.
    _lock: File,
}

/// What a job is: model, options and input. Two that differ in any of it do not go on with one another.
pub(super) fn describe(model: &Path, options: &str, input: Option<&Path>, format: OutputFormat) -> Value {
    let identity = |path: &Path| {
        let metadata = fs::metadata(path).ok();
        let modified = metadata.as_ref().and_then(|metadata| {
            Some(metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos().to_string())
        });
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        json!({"path": path.to_string_lossy(), "bytes": metadata.map(|m| m.len()), "modified": modified})
    };
    json!({
        "model": identity(model),
        "options": options,
        "input": input.map(identity),
        "format": format.name(),
    })
}

impl Job {
    /// Begins a job, or goes on with the one that was left; `restart` begins anew in any case.
    pub(super) fn open(
        out: &Path,
        description: &Value,
        format: OutputFormat,
        columns: usize,
        restart: bool,
    ) -> Outcome<Self> {
        let (part, record) = (beside(out, ".part"), beside(out, ".job"));
        let place = || format!("can't write {}", part.display());
        let mut options = OpenOptions::new();
        let file = options.create(true).read(true).write(true).truncate(false).open(&part).or_fail(place)?;
        match file.try_lock() {
            Ok(()) | Err(fs::TryLockError::Error(_)) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(Failure::new(format!("{} is being written by another process", part.display())));
            }
        }
        let known: Option<Value> = fs::read(&record).ok().and_then(|json| serde_json::from_slice(&json).ok());
        let (rows, end) = match known {
            Some(known) if !restart && known == *description => {
                whole_rows(&file, format, columns).or_fail(place)?
            }
            Some(_) if !restart && file.metadata().or_fail(place)?.len() > 0 => {
                return Err(Failure::new(format!(
                    "{} is of another job (other model, options or input); --restart begins anew",
                    part.display()
                )));
            }
            _ => (0, 0),
        };
        file.set_len(end).or_fail(place)?;
        write_whole(&record, format!("{description}\n").as_bytes())?;
        let lock = file.try_clone().or_fail(place)?;
        let mut file = BufWriter::with_capacity(1 << 16, file);
        file.seek(SeekFrom::Start(end)).or_fail(place)?;
        if end == 0 && format == OutputFormat::Npy {
            file.write_all(&sink::npy_header(0, columns)).or_fail(place)?;
        }
        Ok(Self { out: out.to_owned(), part, record, format, file, columns, rows, _lock: lock })
    }

    /// Rows that are done.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds rows, and gives them to the system: from then on only a crash of the machine can lose them.
    pub(super) fn write(&mut self, embeddings: &[Embedding], each: Option<usize>) -> Outcome {
        for embedding in embeddings {
            match self.format {
                OutputFormat::Jsonl => sink::json_line(&mut self.file, self.rows, embedding, each)?,
                OutputFormat::Npy => sink::npy_row(&mut self.file, embedding)
                    .or_fail(|| format!("can't write {}", self.part.display()))?,
                OutputFormat::Parquet => {
                    let Embedding { values, tokens, truncated, .. } = embedding;
                    parquet::write_row(&mut self.file, values, *tokens, *truncated)
                        .or_fail(|| format!("can't write {}", self.part.display()))?;
                }
            }
            self.rows += 1;
        }
        self.file.flush().or_fail(|| format!("can't write {}", self.part.display()))
    }

    /// Gives the file its name.
    pub(super) fn finish(mut self) -> Outcome {
        let place = || format!("can't write {}", self.out.display());
        if self.format == OutputFormat::Npy {
            self.file.seek(SeekFrom::Start(0)).or_fail(place)?;
            self.file.write_all(&sink::npy_header(self.rows, self.columns)).or_fail(place)?;
        }
        self.file.flush().or_fail(place)?;
        if self.format == OutputFormat::Parquet {
            // A table has its directory at the end, so it can only be made when all rows are there.
            let table = beside(&self.out, ".table");
            self.file.seek(SeekFrom::Start(0)).or_fail(place)?;
            let to = File::create(&table).or_fail(place)?;
            parquet::write(self.file.get_ref(), to, self.rows, self.columns).or_fail(place)?;
            fs::rename(&table, &self.out).or_fail(place)?;
            fs::remove_file(&self.part).or_fail(place)?;
        } else {
            self.file.get_ref().sync_all().or_fail(place)?;
            fs::rename(&self.part, &self.out).or_fail(place)?;
        }
        // The output is whole; a record that stays does no harm without its part.
        let _ = fs::remove_file(&self.record);
        Ok(())
    }
}

/// A file beside the output.
fn beside(out: &Path, suffix: &str) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whole rows in a part, and where the last one ends.
fn whole_rows(file: &File, format: OutputFormat, columns: usize) -> io::Result<(u64, u64)> {
    let len = file.metadata()?.len();
    match format.fixed(columns) {
        Some((header, row)) => {
            let rows = len.saturating_sub(header) / row;
            Ok((rows, if len < header { 0 } else { header + rows * row }))
        }
        None => {
            let mut reader = BufReader::with_capacity(1 << 16, file.try_clone()?);
            reader.seek(SeekFrom::Start(0))?;
            let (mut rows, mut end, mut at) = (0, 0, 0);
            loop {
                let buffer = reader.fill_buf()?;
                if buffer.is_empty() {
                    return Ok((rows, end));
                }
                for (i, _) in buffer.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
                    rows += 1;
                    end = at + i as u64 + 1;
                }
                let read = buffer.len();
                at += read as u64;
                reader.consume(read);
            }
        }
    }
}
