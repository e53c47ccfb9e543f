use std::{fmt, io, ops::Deref, ops::Range, path::Path, sync::Arc};

/// A shared, immutable range of bytes, which keeps its owner (a memory map or a buffer) alive.
///
/// A clone or a [slice](Bytes::slice) shares the owner and copies nothing.
///
/// ```
/// use firecrest::weights::Bytes;
///
/// let bytes = Bytes::from(vec![1, 2, 3, 4]);
/// assert_eq!(*bytes.slice(1..3), [2, 3]);
/// ```
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl Bytes {
    /// The contents of the file at `path`: memory-mapped, or read where the platform has no maps (WebAssembly).
    ///
    /// A mapped file must stay as it is while the view lives. Replacing it by a rename is safe, as the old file stays
    /// mapped. If it is changed in place, the bytes seen here change too, and if it is cut short, touching the lost
    /// part ends the process with a signal.
    pub fn open(path: &Path) -> io::Result<Bytes> {
        #[cfg(not(target_family = "wasm"))]
        let bytes = Bytes::of(super::map::map(path)?);
        #[cfg(target_family = "wasm")]
        let bytes = Bytes::from(std::fs::read(path)?);
        Ok(bytes)
    }

    /// That many bytes as `write` leaves them, which gets zeros.
    pub(crate) fn written(len: usize, write: impl FnOnce(&mut [u8])) -> Bytes {
        #[cfg(not(target_family = "wasm"))]
        if let Ok(mut map) = super::map::anonymous(len) {
            write(&mut map);
            return Bytes::of(map);
        }
        let mut buffer = vec![0; len];
        write(&mut buffer);
        Bytes::from(buffer)
    }

    /// The part of this view at `range`, counted from its start. Panics if `range` reaches past the end.
    pub fn slice(&self, range: Range<usize>) -> Bytes {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} of {} bytes", self.len());
        let start = self.range.start;
        Bytes { owner: Arc::clone(&self.owner), range: start + range.start..start + range.end }
    }

    /// All the bytes of an owner, which must always give the same ones.
    fn of(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Bytes {
        let len = owner.as_ref().len();
        Bytes { owner: Arc::new(owner), range: 0..len }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.range.clone()]
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(buffer: Vec<u8>) -> Bytes {
        Bytes::of(buffer)
    }
}

impl From<Arc<[u8]>> for Bytes {
    fn from(buffer: Arc<[u8]>) -> Bytes {
        Bytes::of(buffer)
    }
}

impl From<&'static [u8]> for Bytes {
    fn from(buffer: &'static [u8]) -> Bytes {
        Bytes::of(buffer)
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({})", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_of_slices_count_from_their_own_start() {
        let bytes = Bytes::from((0..100).collect::<Vec<u8>>());
        let part = bytes.slice(10..50).slice(5..8);
        drop(bytes);
        assert_eq!(*part, [15, 16, 17]);
        assert!(part.slice(3..3).is_empty());
    }

    #[test]
    #[should_panic(expected = "0..41 of 40 bytes")]
    fn a_slice_cannot_reach_into_what_its_parent_does_not_show() {
        Bytes::from(vec![0; 100]).slice(10..50).slice(0..41);
    }

    #[test]
    fn a_file_reads_as_its_contents() {
        let path = std::env::temp_dir().join(format!("firecrest-bytes-{}", std::process::id()));
        for contents in [&b""[..], b"weights"] {
            std::fs::write(&path, contents).unwrap();
            assert_eq!(*Bytes::open(&path).unwrap(), *contents);
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(Bytes::open(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
