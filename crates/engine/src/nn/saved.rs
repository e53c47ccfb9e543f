//! A context in a file: the tokens that a decoder has seen, and its caches of them.
//!
//! | bytes | |
//! |---|---|
//! | 4 | `FCKV` |
//! | 4 | version, 1; all numbers are little-endian |
//! | 8 | fingerprint of the model and of its rotary embeddings, which may depend on the capacity |
//! | 4 | [`KvFormat`]: 0 F32, 1 F16, 2 Q8_0 |
//! | 8 | number of tokens |
//! | 4 each | tokens |
//! | … | what the caches hold of them, layer by layer |
//! | 8 | FNV-1a of all before |

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::{error, fmt};

use super::network::{Network, Sequence};
use crate::backend::{KvCache, KvFormat};
use crate::sparse::{CHECKSUM_OF_NOTHING, checksum_on};

const MAGIC: [u8; 4] = *b"FCKV";
const VERSION: u32 = 1;

/// Why a context was not saved or loaded.
#[derive(Debug)]
#[non_exhaustive]
pub enum SavedContextError {
    /// The file cannot be read or written.
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is no saved context, ends early, or was changed.
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// Another model's.
    OtherModel {
        /// The file.
        path: PathBuf,
    },
    /// Keys and values are kept in another format here.
    OtherFormat {
        /// The file's format.
        found: KvFormat,
        /// That of the decoder.
        expected: KvFormat,
    },
    /// More tokens than the decoder has room for.
    TooLong {
        /// Tokens in the file.
        tokens: u64,
        /// Positions of the decoder.
        capacity: usize,
    },
}

impl fmt::Display for SavedContextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, .. } => write!(f, "{}", path.display()),
            Self::Broken { path, fault } => {
                write!(f, "{} is no whole saved context: {fault}", path.display())
            }
            Self::OtherModel { path } => write!(f, "{} is a saved context of another model", path.display()),
            Self::OtherFormat { found, expected } => {
                write!(f, "the saved context has keys and values in {found:?}, not {expected:?}")
            }
            Self::TooLong { tokens, capacity } => {
                write!(f, "the saved context has {tokens} tokens; there is room for {capacity}")
            }
        }
    }
}

impl error::Error for SavedContextError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// FNV-1a, 64 bits, of what passes through.
#[derive(Debug)]
struct Summed<T> {
    inner: T,
    sum: u64,
}

impl<T> Summed<T> {
    fn new(inner: T) -> Self {
        Self { inner, sum: CHECKSUM_OF_NOTHING }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.sum = checksum_on(self.sum, bytes);
    }
}

impl<T: Write> Write for Summed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.add(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Summed<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.add(&bytes[..read]);
        Ok(read)
    }
}

fn number(format: KvFormat) -> u32 {
    match format {
        KvFormat::F32 => 0,
        KvFormat::F16 => 1,
        KvFormat::Q8_0 => 2,
    }
}

/// Writes a file whole, or not at all.
pub(super) fn save(
    path: &Path,
    model: u64,
    tokens: &[u32],
    kv: &KvCache,
    sequence: &Sequence,
) -> Result<(), SavedContextError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let write = || -> io::Result<()> {
        let mut out = Summed::new(BufWriter::with_capacity(1 << 16, File::create(&part)?));
        out.write_all(&MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        out.write_all(&model.to_le_bytes())?;
        out.write_all(&number(kv.format()).to_le_bytes())?;
        out.write_all(&(tokens.len() as u64).to_le_bytes())?;
        for token in tokens {
            out.write_all(&token.to_le_bytes())?;
        }
        sequence.save(kv, tokens.len(), &mut out)?;
        let sum = out.sum;
        out.write_all(&sum.to_le_bytes())?;
        let file = out.inner.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().map_err(|source| {
        // The error that matters is this one.
        let _ = fs::remove_file(&part);
        SavedContextError::Io { path: path.to_owned(), source }
    })
}

/// Reads a file into an empty sequence and returns its tokens, all of them in the vocabulary. After an error the sequence
/// holds nothing that can be used.
pub(super) fn load(
    path: &Path,
    model: u64,
    network: &mut Network,
    sequence: &mut Sequence,
) -> Result<Vec<u32>, SavedContextError> {
    let (capacity, vocab) = (network.capacity, network.spec.vocab);
    let broken = |fault| SavedContextError::Broken { path: path.to_owned(), fault };
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::UnexpectedEof => broken("it ends early"),
        _ => SavedContextError::Io { path: path.to_owned(), source },
    };
    let mut file = Summed::new(BufReader::with_capacity(1 << 16, File::open(path).map_err(failed)?));
    let mut word = [0; 4];
    let mut long = [0; 8];
    file.read_exact(&mut word).map_err(failed)?;
    if word != MAGIC {
        return Err(broken("it does not begin like one"));
    }
    file.read_exact(&mut word).map_err(failed)?;
    if u32::from_le_bytes(word) != VERSION {
        return Err(broken("it is of another version"));
    }
    file.read_exact(&mut long).map_err(failed)?;
    if u64::from_le_bytes(long) != model {
        return Err(SavedContextError::OtherModel { path: path.to_owned() });
    }
    file.read_exact(&mut word).map_err(failed)?;
    let expected = network.kv.format();
    let formats = [KvFormat::F32, KvFormat::F16, KvFormat::Q8_0];
    match formats.into_iter().find(|&format| number(format) == u32::from_le_bytes(word)) {
        Some(found) if found == expected => {}
        Some(found) => return Err(SavedContextError::OtherFormat { found, expected }),
        None => return Err(broken("keys and values are in an unknown format")),
    }
    file.read_exact(&mut long).map_err(failed)?;
    let count = u64::from_le_bytes(long);
    let len = usize::try_from(count).ok().filter(|&len| len <= capacity);
    let Some(len) = len else { return Err(SavedContextError::TooLong { tokens: count, capacity }) };
    let mut tokens = Vec::with_capacity(len);
    for _ in 0..len {
        file.read_exact(&mut word).map_err(failed)?;
        tokens.push(u32::from_le_bytes(word));
    }
    if tokens.iter().any(|&token| token as usize >= vocab) {
        return Err(broken("it has tokens that the vocabulary has not"));
    }
    sequence.load(&mut network.kv, len, &mut file).map_err(failed)?;
    let sum = file.sum;
    file.read_exact(&mut long).map_err(failed)?;
    if u64::from_le_bytes(long) != sum {
        return Err(broken("its checksum is wrong"));
    }
    Ok(tokens)
}
