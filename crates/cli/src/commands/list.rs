//! `firecrest list`: what is on this machine.

use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use firecrest::hub::{self, CATALOGUE, CachedModel, HubOptions};
use serde::Serialize;

use crate::failure::Outcome;
use crate::interrupt::Interrupt;
use crate::output::{self, printable};
use crate::units;

/// Lists the models on this machine.
///
/// With --json: {"models": [{"name": …, "source": …, "bytes": n, "fetched": seconds since 1970, "files": [{"path": …,
/// "bytes": n, "sha256": …}, …]}, …]}.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  firecrest list
  firecrest list --catalogue
  firecrest list --json")]
pub(crate) struct ListArgs {
    /// List the models that can be downloaded by name instead.
    #[arg(long, conflicts_with = "json")]
    catalogue: bool,
    /// Write JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    models: Vec<ModelEntry>,
}

#[derive(Serialize)]
struct ModelEntry {
    name: String,
    source: String,
    bytes: u64,
    fetched: u64,
    files: Vec<FileEntry>,
}

#[derive(Serialize)]
struct FileEntry {
    path: PathBuf,
    bytes: u64,
    sha256: String,
}

impl ListArgs {
    pub(crate) fn run(self, _: &Interrupt) -> Outcome {
        if self.catalogue {
            return print_catalogue();
        }
        let models = hub::list(&HubOptions::from_env()?)?;
        if self.json {
            return output::json(&Report { models: models.into_iter().map(ModelEntry::from).collect() });
        }
        let row = |model: &CachedModel| {
            let path = model.path().display().to_string();
            vec![
                printable(&model.name).into_owned(),
                units::bytes(model.bytes()),
                printable(&path).into_owned(),
            ]
        };
        let mut out = output::stdout();
        output::table(&mut out, &models.iter().map(row).collect::<Vec<_>>(), &[1])?;
        Ok(out.flush()?)
    }
}

impl From<CachedModel> for ModelEntry {
    fn from(model: CachedModel) -> Self {
        let file = |file: &hub::CachedFile| FileEntry {
            path: file.path.clone(),
            bytes: file.bytes,
            sha256: file.sha256.to_string(),
        };
        Self {
            bytes: model.bytes(),
            fetched: SystemTime::duration_since(&model.fetched, UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            files: model.files.iter().map(file).collect(),
            name: model.name,
            source: model.source,
        }
    }
}

fn print_catalogue() -> Outcome {
    let rows: Vec<_> = CATALOGUE
        .iter()
        .map(|entry| {
            vec![entry.name.into(), units::bytes(entry.bytes), entry.licence.into(), entry.description.into()]
        })
        .collect();
    let mut out = output::stdout();
    output::table(&mut out, &rows, &[1])?;
    Ok(out.flush()?)
}
