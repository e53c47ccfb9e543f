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

/// Memory of its own for that many bytes, all zero, in large pages where the system has them for the asking: who reads
/// here and there then waits less for addresses.
pub(super) fn anonymous(len: usize) -> io::Result<memmap2::MmapMut> {
    let map = memmap2::MmapMut::map_anon(len)?;
    #[cfg(target_os = "linux")]
    // Small pages do as well.
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(map)
}
