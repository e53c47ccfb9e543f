//! The memory map of a file.
#![allow(unsafe_code)]

use std::{fs::File, io, path::Path};

/// Maps the file at `path` for reading.
pub(super) fn map(path: &Path) -> io::Result<memmap2::Mmap> {
    let file = File::open(path)?;
    // What is parsed from a map is copied and checked once, so a later change can alter the values of weights but not
    // lengths, offsets or strings; a file cut short raises SIGBUS instead of reading other memory.
    // SAFETY: the map is private and read-only, and nothing in this process writes to the file through it. That nobody
    // else changes the bytes, no program can enforce: `Bytes::open` passes that duty on to the caller.
    unsafe { memmap2::Mmap::map(&file) }
}
