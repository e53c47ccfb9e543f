//! Models split into several files, `name-00001-of-00003.gguf` and so on.
//!
//! The first shard holds the metadata. Each says which it is and how many there are, and which names they have follows
//! from that.

use std::path::{Path, PathBuf};

use super::{Gguf, GgufError, MetadataError, Shard, SplitFault, read};
use crate::weights::Bytes;

/// A file that is not parsed yet.
pub(super) struct Source {
    pub(super) path: Option<PathBuf>,
    pub(super) bytes: Bytes,
}

/// Opens the file at `path` and whatever shards belong to it.
pub(super) fn open(path: &Path) -> Result<Gguf, GgufError> {
    let source = map(path)?;
    let header = parse(&source, 0)?;
    let fault = |fault| GgufError::Split { path: Some(path.to_owned()), fault };
    let place = Place::of(&header).map_err(|error| fault(SplitFault::Metadata(error)))?;
    if place.count <= 1 {
        return join(vec![source]);
    }
    let stem = stem(path, place).map_err(fault)?;
    let mut sources = Vec::new();
    for number in 0..place.count {
        let shard = path.with_file_name(format!("{stem}{}", Place { number, ..place }.suffix()));
        match map(&shard) {
            Ok(source) => sources.push(source),
            Err(GgufError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(GgufError::Split { path: Some(shard), fault: SplitFault::Missing });
            }
            Err(error) => return Err(error),
        }
    }
    join(sources)
}

/// Makes a model of its files, which must be all of them and in order.
pub(super) fn join(sources: Vec<Source>) -> Result<Gguf, GgufError> {
    let count = sources.len();
    let mut gguf: Option<Gguf> = None;
    let mut expected_tensors = None;
    for (number, source) in sources.into_iter().enumerate() {
        let header = parse(&source, number)?;
        let fault = |fault| GgufError::Split { path: source.path.clone(), fault };
        let metadata_fault = |error| fault(SplitFault::Metadata(error));
        let place = Place::of(&header).map_err(metadata_fault)?;
        if place.count != count {
            return Err(fault(SplitFault::Count { expected: count, found: place.count }));
        }
        if place.number != number {
            return Err(fault(SplitFault::Number { expected: number, found: place.number }));
        }
        let shard = Shard {
            version: header.version,
            order: header.order,
            alignment: header.alignment,
            path: source.path.clone(),
            bytes: source.bytes.clone(),
        };
        match &mut gguf {
            Some(gguf) => {
                gguf.tensors.extend(header.tensors);
                gguf.shards.push(shard);
            }
            None => {
                if count > 1 {
                    expected_tensors = header.metadata.opt_usize(TENSORS).map_err(metadata_fault)?;
                }
                gguf = Some(Gguf {
                    metadata: header.metadata,
                    tensors: header.tensors,
                    by_name: Vec::new(),
                    shards: vec![shard],
                });
            }
        }
    }
    let Some(mut gguf) = gguf else {
        return Err(GgufError::Split { path: None, fault: SplitFault::Missing });
    };
    finish(&mut gguf, expected_tensors)?;
    Ok(gguf)
}

/// Indexes the tensors of all shards by name and checks that none is missing or there twice.
fn finish(gguf: &mut Gguf, expected: Option<usize>) -> Result<(), GgufError> {
    let Gguf { tensors, by_name, shards, .. } = gguf;
    let fault = |shard: usize, fault| GgufError::Split { path: shards[shard].path.clone(), fault };
    if let Some(expected) = expected.filter(|&expected| expected != tensors.len()) {
        return Err(fault(0, SplitFault::Tensors { expected, found: tensors.len() }));
    }
    by_name.extend(0..tensors.len());
    by_name.sort_by(|&a, &b| tensors[a].name.cmp(&tensors[b].name));
    for pair in by_name.windows(2) {
        let [first, second] = [&tensors[pair[0]], &tensors[pair[1]]];
        if first.name == second.name {
            return Err(fault(second.shard, SplitFault::DuplicateTensor(second.name.clone())));
        }
    }
    Ok(())
}

const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// Which shard a file is.
#[derive(Clone, Copy)]
struct Place {
    /// From 0.
    number: usize,
    count: usize,
}

impl Place {
    /// A file that says nothing is the only one.
    fn of(header: &read::Header) -> Result<Place, MetadataError> {
        let count = header.metadata.opt_usize(COUNT)?.unwrap_or(1).max(1);
        let number = if count > 1 { header.metadata.usize(NUMBER)? } else { 0 };
        Ok(Place { number, count })
    }

    /// How the file's name must end.
    fn suffix(self) -> String {
        format!("-{:05}-of-{:05}.gguf", self.number.saturating_add(1), self.count)
    }
}

/// What the names of all shards begin with.
fn stem(path: &Path, place: Place) -> Result<String, SplitFault> {
    let suffix = place.suffix();
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match name.strip_suffix(&suffix) {
        Some(stem) => Ok(stem.to_owned()),
        None => Err(SplitFault::Name { suffix }),
    }
}

fn map(path: &Path) -> Result<Source, GgufError> {
    let bytes = Bytes::open(path).map_err(|source| GgufError::Io { path: path.to_owned(), source })?;
    Ok(Source { path: Some(path.to_owned()), bytes })
}

fn parse(source: &Source, shard: usize) -> Result<read::Header, GgufError> {
    read::parse(&source.bytes, shard)
        .map_err(|error| GgufError::Malformed { path: source.path.clone(), source: Box::new(error) })
}
