//! What the files of this module share: a magic, a version, numbers in little-endian order, a checksum at the end.

use std::path::Path;

use super::error::{FormatFault, SparseError};

/// FNV-1a, 64 bits: enough to notice a file that was cut or mixed up.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    checksum_on(CHECKSUM_OF_NOTHING, bytes)
}

/// What [`checksum`] begins with.
pub(crate) const CHECKSUM_OF_NOTHING: u64 = 0xcbf2_9ce4_8422_2325;

/// The checksum of what `sum` is that of, and then `bytes`.
pub(crate) fn checksum_on(sum: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(sum, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Reads a whole file.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, SparseError> {
    std::fs::read(path).map_err(|source| SparseError::Io { path: path.to_owned(), source })
}

/// Writes a file whole or not at all: under another name first, then by a rename.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), SparseError> {
    let io = |source| SparseError::Io { path: path.to_owned(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    let partial = path.with_file_name(name);
    let written = std::fs::write(&partial, bytes).and_then(|()| std::fs::rename(&partial, path));
    if written.is_err() {
        // Best effort: the error that matters is the one above.
        let _ = std::fs::remove_file(&partial);
    }
    written.map_err(io)
}

/// Puts a file together.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new(magic: [u8; 4], version: u32) -> Self {
        let mut out = Self(magic.to_vec());
        out.u32(version);
        out
    }

    pub(crate) fn u32(&mut self, n: u32) {
        self.0.extend(n.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, n: u64) {
        self.0.extend(n.to_le_bytes());
    }

    pub(crate) fn floats(&mut self, values: &[f32]) {
        self.0.extend(values.iter().flat_map(|x| x.to_le_bytes()));
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.u64(bytes.len() as u64);
        self.0.extend(bytes);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        let sum = checksum(&self.0);
        self.u64(sum);
        self.0
    }
}

/// Takes a file apart.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Checks magic, version and checksum.
    pub(crate) fn new(
        bytes: &'a [u8],
        what: &'static str,
        magic: [u8; 4],
        version: u32,
    ) -> Result<Self, SparseError> {
        let fault = |fault| SparseError::Format { what, fault };
        if !bytes.starts_with(&magic) {
            return Err(fault(FormatFault::Magic));
        }
        let (body, sum) = bytes.split_last_chunk::<8>().ok_or(fault(FormatFault::Truncated))?;
        let mut read = Self { rest: body.get(4..).unwrap_or_default(), what };
        let found = read.u32()?;
        if found != version {
            return Err(fault(FormatFault::Version(found)));
        }
        if checksum(body) != u64::from_le_bytes(*sum) {
            return Err(fault(FormatFault::Checksum));
        }
        Ok(read)
    }

    fn fault(&self, fault: FormatFault) -> SparseError {
        SparseError::Format { what: self.what, fault }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], SparseError> {
        let (taken, rest) =
            self.rest.split_at_checked(len).ok_or_else(|| self.fault(FormatFault::Truncated))?;
        self.rest = rest;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], SparseError> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| self.fault(FormatFault::Truncated))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, SparseError> {
        self.number().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, SparseError> {
        self.number().map(u64::from_le_bytes)
    }

    pub(crate) fn f32(&mut self) -> Result<f32, SparseError> {
        self.number().map(f32::from_le_bytes)
    }

    /// `count` floats; nothing is allocated before they are known to be there.
    pub(crate) fn floats(&mut self, count: usize) -> Result<Vec<f32>, SparseError> {
        let len = count.checked_mul(4).ok_or_else(|| self.fault(FormatFault::Truncated))?;
        Ok(self.take(len)?.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], SparseError> {
        let len = usize::try_from(self.u64()?).map_err(|_| self.fault(FormatFault::Truncated))?;
        self.take(len)
    }

    /// Fails where something is left.
    pub(crate) fn finish(self) -> Result<(), SparseError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.fault(FormatFault::TrailingBytes(self.rest.len())))
        }
    }
}
