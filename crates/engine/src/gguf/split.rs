//! Models split into several files, `name-00001-of-00003.gguf` and so on.
//!
//! The first shard holds the metadata. Each says which it is and how many there are, and which names they have follows
//! from that.

use std::io;
use std::path::{Path, PathBuf};

use super::{Gguf, GgufError, Metadata, MetadataError, Shard, SplitFault, read};
use crate::weights::Bytes;

/// A file that is parsed, and which shard it says it is.
pub(super) struct File {
    path: Option<PathBuf>,
    bytes: Bytes,
    header: read::Header,
    place: Place,
}

impl File {
    /// Maps and parses the file at `path`.
    fn open(path: PathBuf) -> Result<File, GgufError> {
        match Bytes::open(&path) {
            Ok(bytes) => File::parse(Some(path), bytes),
            Err(source) => Err(GgufError::Io { path, source }),
        }
    }

    /// Parses `bytes`, which came from `path` if that is known.
    pub(super) fn parse(path: Option<PathBuf>, bytes: Bytes) -> Result<File, GgufError> {
        let header = match read::parse(&bytes) {
            Ok(header) => header,
            Err(error) => return Err(GgufError::Malformed { path, source: Box::new(error) }),
        };
        match Place::of(&header.metadata) {
            Ok(place) => Ok(File { path, bytes, header, place }),
            Err(error) => Err(GgufError::Split { path, fault: SplitFault::Metadata(error) }),
        }
    }

    fn error(&self, fault: SplitFault) -> GgufError {
        GgufError::Split { path: self.path.clone(), fault }
    }
}

/// Opens the file at `path` and whatever shards belong to it.
pub(super) fn open(path: &Path) -> Result<Gguf, GgufError> {
    let opened = File::open(path.to_owned())?;
    let place = opened.place;
    if place.count == 1 {
        return join(vec![opened]);
    }
    let stem = stem(path, place).map_err(|fault| opened.error(fault))?;
    let mut opened = Some(opened);
    let mut files = Vec::new();
    for number in 0..place.count {
        if let Some(opened) = opened.take_if(|_| number == place.number) {
            files.push(opened);
            continue;
        }
        let shard = path.with_file_name(format!("{stem}{}", Place { number, ..place }.suffix()));
        files.push(File::open(shard).map_err(|error| match error {
            GgufError::Io { path, source } if source.kind() == io::ErrorKind::NotFound => {
                GgufError::Split { path: Some(path), fault: SplitFault::Missing }
            }
            error => error,
        })?);
    }
    join(files)
}

/// Makes a model of its files, which must be all of them and in order.
pub(super) fn join(files: Vec<File>) -> Result<Gguf, GgufError> {
    let count = files.len();
    for (number, file) in files.iter().enumerate() {
        if file.place.count != count {
            return Err(file.error(SplitFault::Count { expected: count, found: file.place.count }));
        }
        if file.place.number != number {
            return Err(file.error(SplitFault::Number { expected: number, found: file.place.number }));
        }
    }
    let mut gguf =
        Gguf { metadata: Metadata::new(), tensors: Vec::new(), by_name: Vec::new(), shards: Vec::new() };
    for (number, file) in files.into_iter().enumerate() {
        let read::Header { powerinfer, version, order, alignment, metadata, mut tensors } = file.header;
        tensors.iter_mut().for_each(|tensor| tensor.shard = number);
        gguf.tensors.append(&mut tensors);
        gguf.shards.push(Shard { path: file.path, bytes: file.bytes, powerinfer, version, order, alignment });
        if number == 0 {
            gguf.metadata = metadata;
        }
    }
    check(&mut gguf)?;
    Ok(gguf)
}

/// Indexes the tensors of all shards by name, and checks that none is missing or there twice.
fn check(gguf: &mut Gguf) -> Result<(), GgufError> {
    let Gguf { metadata, tensors, by_name, shards } = gguf;
    let error = |shard: usize, fault| {
        let path = shards.get(shard).and_then(|shard| shard.path.clone());
        GgufError::Split { path, fault }
    };
    if shards.is_empty() {
        return Err(error(0, SplitFault::Missing));
    }
    if shards.len() > 1 {
        let expected = metadata.usize(TENSORS).map_err(|fault| error(0, SplitFault::Metadata(fault)))?;
        if expected != tensors.len() {
            return Err(error(0, SplitFault::Tensors { expected, found: tensors.len() }));
        }
    }
    by_name.extend(0..tensors.len());
    by_name.sort_by(|&a, &b| tensors[a].name.cmp(&tensors[b].name));
    for pair in by_name.windows(2) {
        let [first, second] = [&tensors[pair[0]], &tensors[pair[1]]];
        if first.name == second.name {
            return Err(error(second.shard, SplitFault::DuplicateTensor(second.name.clone())));
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
    fn of(metadata: &Metadata) -> Result<Place, MetadataError> {
        let count = metadata.opt_usize(COUNT)?.unwrap_or(1).max(1);
        let number = if count > 1 { metadata.usize(NUMBER)? } else { 0 };
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
