//! Neurons of a model that is larger than memory.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::HashMap;

/// Where a neuron's weights come from: a file, a network, another memory.
pub trait NeuronSource {
    /// Number of neurons.
    fn neurons(&self) -> usize;
    /// Bytes of each.
    fn neuron_bytes(&self) -> usize;
    /// Fills `out` with a neuron's bytes.
    fn read(&mut self, neuron: usize, out: &mut [u8]) -> io::Result<()>;
}

/// Neurons that stand one behind the other in a file.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    path: PathBuf,
    start: u64,
    neurons: usize,
    neuron_bytes: usize,
}

impl FileSource {
    /// `neurons` times `neuron_bytes` from byte `start` of the file on. Fails if the file is not there or too short.
    pub fn open(path: &Path, start: u64, neurons: usize, neuron_bytes: usize) -> io::Result<Self> {
        let file = File::open(path)?;
        let end =
            (neurons as u64).checked_mul(neuron_bytes as u64).and_then(|bytes| bytes.checked_add(start));
        if end.is_none_or(|end| file.metadata().is_ok_and(|meta| meta.len() < end)) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Self { file, path: path.to_owned(), start, neurons, neuron_bytes })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl NeuronSource for FileSource {
    fn neurons(&self) -> usize {
        self.neurons
    }

    fn neuron_bytes(&self) -> usize {
        self.neuron_bytes
    }

    fn read(&mut self, neuron: usize, out: &mut [u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.start + neuron as u64 * self.neuron_bytes as u64))?;
        self.file.read_exact(out)
    }
}

/// Which neuron makes room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CachePolicy {
    /// The one whose last use is longest ago.
    #[default]
    Lru,
    /// The one with the fewest uses since it came; of several, as [`CachePolicy::Lru`].
    Lfu,
}

/// What a cache has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Neurons that were in memory, the hot ones included.
    pub hits: u64,
    /// Neurons that had to be read.
    pub misses: u64,
    /// Neurons that had to make room.
    pub evictions: u64,
    /// Bytes read from the source, the hot set included.
    pub bytes_read: u64,
    /// Bytes of weights in memory now.
    pub resident_bytes: usize,
}

/// Why a neuron could not be had.
#[derive(Debug)]
#[non_exhaustive]
pub enum CacheError {
    /// There is no such neuron.
    Neuron {
        /// The neuron asked for.
        neuron: usize,
        /// How many there are.
        neurons: usize,
    },
    /// The frequencies are not one for each neuron.
    Frequencies {
        /// How many neurons there are.
        expected: usize,
        /// How many frequencies there are.
        found: usize,
    },
    /// The share of hot neurons is not from 0 to 1.
    HotShare(f32),
    /// The hot set, and one more neuron, do not fit the budget.
    Budget {
        /// Bytes that would fit.
        needed: usize,
        /// Bytes allowed.
        budget: usize,
    },
    /// The source failed.
    Read {
        /// The neuron.
        neuron: usize,
        /// What went wrong.
        source: io::Error,
    },
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Neuron { neuron, neurons } => write!(f, "neuron {neuron} of {neurons}"),
            Self::Frequencies { expected, found } => write!(f, "{found} frequencies of {expected} neurons"),
            Self::HotShare(share) => write!(f, "a share of {share} hot neurons, expected 0 to 1"),
            Self::Budget { needed, budget } => {
                write!(f, "the hot neurons and one more take {needed} bytes, the budget is {budget}")
            }
            Self::Read { neuron, .. } => write!(f, "neuron {neuron} can't be read"),
        }
    }
}

impl std::error::Error for CacheError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// A neuron in memory.
#[derive(Debug)]
struct Resident {
    bytes: Arc<[u8]>,
    /// Hot neurons never leave.
    hot: bool,
    last_use: u64,
    uses: u64,
}

/// Neurons within a budget of bytes: the hot ones, by measured frequency, stay; the others come when they are asked for
/// and leave by [`CachePolicy`].
///
/// ```
/// use std::io;
/// use firecrest::memory::{CachePolicy, NeuronCache, NeuronSource};
///
/// struct Squares;
/// impl NeuronSource for Squares {
///     fn neurons(&self) -> usize { 100 }
///     fn neuron_bytes(&self) -> usize { 2 }
///     fn read(&mut self, neuron: usize, out: &mut [u8]) -> io::Result<()> {
///         Ok(out.copy_from_slice(&(neuron as u16 * neuron as u16).to_le_bytes()))
///     }
/// }
///
/// // Neuron 7 fires often; room for it and three more.
/// let mut frequencies = vec![0.0; 100];
/// frequencies[7] = 0.9;
/// let mut cache = NeuronCache::new(Squares, 8, CachePolicy::Lru, &frequencies, 0.01)?;
/// for neuron in [7, 1, 2, 3, 4, 7] {
///     assert_eq!(*cache.get(neuron)?, (neuron as u16 * neuron as u16).to_le_bytes());
/// }
/// let stats = cache.stats();
/// assert_eq!((stats.hits, stats.misses, stats.evictions), (2, 4, 1));
/// # Ok::<(), firecrest::memory::CacheError>(())
/// ```
#[derive(Debug)]
pub struct NeuronCache<S> {
    source: S,
    budget: usize,
    policy: CachePolicy,
    resident: HashMap<usize, Resident>,
    clock: u64,
    stats: CacheStats,
}

impl<S: NeuronSource> NeuronCache<S> {
    /// A cache of at most `budget` bytes of weights. The share `hot` of neurons with the highest `frequencies` is read
    /// now and stays; an empty `frequencies` has no hot ones.
    pub fn new(
        source: S,
        budget: usize,
        policy: CachePolicy,
        frequencies: &[f32],
        hot: f32,
    ) -> Result<Self, CacheError> {
        let neurons = source.neurons();
        if !(0.0..=1.0).contains(&hot) {
            return Err(CacheError::HotShare(hot));
        }
        if !frequencies.is_empty() && frequencies.len() != neurons {
            return Err(CacheError::Frequencies { expected: neurons, found: frequencies.len() });
        }
        let mut order: Vec<usize> = (0..frequencies.len()).collect();
        order.sort_by(|&a, &b| frequencies[b].total_cmp(&frequencies[a]));
        order.truncate((hot * neurons as f32).round() as usize);
        let extra = usize::from(order.len() < neurons);
        let needed = (order.len() + extra).saturating_mul(source.neuron_bytes());
        if needed > budget {
            return Err(CacheError::Budget { needed, budget });
        }
        let mut cache =
            Self { source, budget, policy, resident: HashMap::new(), clock: 0, stats: CacheStats::default() };
        for neuron in order {
            cache.load(neuron, true)?;
        }
        Ok(cache)
    }

    /// A neuron's bytes. They stay valid after the neuron has left the cache.
    pub fn get(&mut self, neuron: usize) -> Result<Arc<[u8]>, CacheError> {
        if neuron >= self.source.neurons() {
            return Err(CacheError::Neuron { neuron, neurons: self.source.neurons() });
        }
        self.clock += 1;
        if let Some(resident) = self.resident.get_mut(&neuron) {
            resident.last_use = self.clock;
            resident.uses += 1;
            self.stats.hits += 1;
            return Ok(Arc::clone(&resident.bytes));
        }
        self.stats.misses += 1;
        while self.stats.resident_bytes + self.source.neuron_bytes() > self.budget && self.evict() {}
        self.load(neuron, false)
    }

    /// Whether a neuron is in memory; this is no use of it.
    pub fn contains(&self, neuron: usize) -> bool {
        self.resident.contains_key(&neuron)
    }

    /// What the cache has done so far.
    pub fn stats(&self) -> CacheStats {
        self.stats
    }

    fn evict(&mut self) -> bool {
        let cold = self.resident.iter().filter(|(_, resident)| !resident.hot);
        let victim = cold.min_by_key(|(_, resident)| match self.policy {
            CachePolicy::Lru => (0, resident.last_use),
            CachePolicy::Lfu => (resident.uses, resident.last_use),
        });
        let Some((&victim, _)) = victim else { return false };
        self.resident.remove(&victim);
        self.stats.evictions += 1;
        self.stats.resident_bytes -= self.source.neuron_bytes();
        true
    }

    fn load(&mut self, neuron: usize, hot: bool) -> Result<Arc<[u8]>, CacheError> {
        let mut bytes = vec![0; self.source.neuron_bytes()];
        self.source.read(neuron, &mut bytes).map_err(|source| CacheError::Read { neuron, source })?;
        self.stats.bytes_read += bytes.len() as u64;
        self.stats.resident_bytes += bytes.len();
        let bytes: Arc<[u8]> = bytes.into();
        let resident = Resident { bytes: Arc::clone(&bytes), hot, last_use: self.clock, uses: 1 };
        self.resident.insert(neuron, resident);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("firecrest-{name}-{}", std::process::id()));
        // Three bytes before, then neurons of 4 bytes.
        let bytes: Vec<u8> = [9; 3].into_iter().chain((0..50u8).flat_map(|n| [n; 4])).collect();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn neurons_come_from_a_file_within_the_budget() {
        let path = file("neurons");
        let source = FileSource::open(&path, 3, 50, 4).unwrap();
        let frequencies: Vec<f32> = (0..50).map(|n| if n % 10 == 0 { 1.0 } else { 0.0 }).collect();
        let mut cache = NeuronCache::new(source, 28, CachePolicy::Lru, &frequencies, 0.1).unwrap();
        assert_eq!(cache.stats().resident_bytes, 20);
        for neuron in [1, 2, 1, 3, 10, 20, 1, 2] {
            assert_eq!(*cache.get(neuron).unwrap(), [neuron as u8; 4]);
            assert!(cache.stats().resident_bytes <= 28);
        }
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses, stats.evictions, stats.bytes_read), (4, 4, 2, 36));
        assert!(cache.contains(40) && cache.contains(1) && !cache.contains(3));
        assert!(matches!(cache.get(50), Err(CacheError::Neuron { neuron: 50, neurons: 50 })));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn the_least_used_leaves_where_use_is_counted() {
        let path = file("lfu");
        for (policy, kept) in [(CachePolicy::Lru, 2), (CachePolicy::Lfu, 1)] {
            let source = FileSource::open(&path, 3, 50, 4).unwrap();
            let mut cache = NeuronCache::new(source, 8, policy, &[], 0.0).unwrap();
            for neuron in [1, 1, 1, 2, 3] {
                cache.get(neuron).unwrap();
            }
            assert!(cache.contains(kept) && cache.contains(3), "{policy:?}");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let path = file("refused");
        assert_eq!(FileSource::open(&path, 3, 51, 4).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(FileSource::open(&path, 3, usize::MAX, 4).is_err());
        let open = || FileSource::open(&path, 3, 50, 4).unwrap();
        let new = |budget, frequencies: &[f32], hot| {
            NeuronCache::new(open(), budget, CachePolicy::Lru, frequencies, hot).err()
        };
        assert!(matches!(new(3, &[], 0.0), Some(CacheError::Budget { needed: 4, budget: 3 })));
        assert!(matches!(new(99, &[1.0], 0.1), Some(CacheError::Frequencies { expected: 50, found: 1 })));
        assert!(matches!(new(99, &[1.0; 50], f32::NAN), Some(CacheError::HotShare(_))));
        std::fs::remove_file(path).unwrap();
    }
}
