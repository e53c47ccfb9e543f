//! Cached keys and values of all layers.

use firecrest_kernels::ops::{HeadCache, HeadCacheMut, HeadShape, Lines, LinesMut};

pub use firecrest_kernels::ops::KvFormat;

/// The heads of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KvHeads {
    /// Number of key-value heads.
    pub(crate) heads: usize,
    /// Values in a key, and in a value.
    pub(crate) head_dim: usize,
}

/// Keys and values of up to `capacity` positions in every layer.
#[derive(Debug)]
pub(crate) struct KvCache {
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    heads: usize,
    shape: HeadShape,
    data: Data,
}

#[derive(Debug)]
enum Data {
    F32(Store<f32>),
    F16(Store<u16>),
    Q8_0(Store<i8>),
}

/// All heads of a layer, one after another, as the kernels want each.
#[derive(Debug)]
struct Store<T> {
    keys: Vec<[T; 16]>,
    values: Vec<[T; 16]>,
    key_scales: Vec<[u16; 16]>,
    value_scales: Vec<u16>,
}

impl<T: Copy + Default> Store<T> {
    fn new(heads: usize, shape: HeadShape, scaled: bool, zero: T) -> Option<Self> {
        let scales = if scaled { heads } else { 0 };
        Some(Self {
            keys: filled([zero; 16], heads * shape.key_lines())?,
            values: filled([zero; 16], heads * shape.value_lines())?,
            key_scales: filled([0; 16], scales * shape.key_scale_lines())?,
            value_scales: filled(0, scales * shape.value_scales())?,
        })
    }

    fn head(&self, shape: HeadShape, head: usize) -> Lines<'_, T> {
        Lines {
            keys: part(&self.keys, shape.key_lines(), head),
            values: part(&self.values, shape.value_lines(), head),
            key_scales: part(&self.key_scales, shape.key_scale_lines(), head),
            value_scales: part(&self.value_scales, shape.value_scales(), head),
        }
    }

    fn head_mut(&mut self, shape: HeadShape, head: usize) -> LinesMut<'_, T> {
        LinesMut {
            keys: part_mut(&mut self.keys, shape.key_lines(), head),
            values: part_mut(&mut self.values, shape.value_lines(), head),
            key_scales: part_mut(&mut self.key_scales, shape.key_scale_lines(), head),
            value_scales: part_mut(&mut self.value_scales, shape.value_scales(), head),
        }
    }
}

/// `len` times `zero`, or `None` where the memory cannot be had.
pub(super) fn filled<T: Clone>(zero: T, len: usize) -> Option<Vec<T>> {
    // `vec!` of zeros gets pages that the system fills in on first use, but aborts where there is no room: ask first.
    Vec::<T>::new().try_reserve_exact(len).ok()?;
    Some(vec![zero; len])
}

/// Part `i` of `len` elements; empty where the format has no such data.
fn part<T>(all: &[T], len: usize, i: usize) -> &[T] {
    if all.is_empty() { all } else { &all[i * len..(i + 1) * len] }
}

fn part_mut<T>(all: &mut [T], len: usize, i: usize) -> &mut [T] {
    if all.is_empty() { all } else { &mut all[i * len..(i + 1) * len] }
}

impl KvCache {
    /// `None` where the memory cannot be had.
    pub(crate) fn new(
        format: KvFormat,
        capacity: usize,
        layers: impl IntoIterator<Item = KvHeads>,
    ) -> Option<Self> {
        let layers = layers.into_iter().map(|KvHeads { heads, head_dim }| {
            let shape = HeadShape { head_dim, capacity };
            let data = match format {
                KvFormat::F32 => Data::F32(Store::new(heads, shape, false, 0.0)?),
                KvFormat::F16 => Data::F16(Store::new(heads, shape, false, 0)?),
                KvFormat::Q8_0 => Data::Q8_0(Store::new(heads, shape, true, 0)?),
            };
            Some(Layer { heads, shape, data })
        });
        Some(Self { layers: layers.collect::<Option<_>>()? })
    }

    /// Bytes that a cache of these layers takes; `None` where that overflows.
    pub(crate) fn bytes(
        format: KvFormat,
        capacity: usize,
        layers: impl IntoIterator<Item = KvHeads>,
    ) -> Option<usize> {
        let element: usize = match format {
            KvFormat::F32 => 4,
            KvFormat::F16 => 2,
            KvFormat::Q8_0 => 1,
        };
        let mut total: usize = 0;
        for KvHeads { heads, head_dim } in layers {
            // Capacity and dimension round up to whole lines; scales are two bytes for each 32 values.
            let values =
                capacity.checked_next_multiple_of(16)?.checked_mul(head_dim.checked_next_multiple_of(32)?)?;
            let values = values.checked_mul(2)?.checked_mul(heads)?;
            let scales = if format == KvFormat::Q8_0 { values / 16 } else { 0 };
            total = total.checked_add(values.checked_mul(element)?)?.checked_add(scales)?;
        }
        Some(total)
    }

    pub(crate) fn heads(&self, layer: usize) -> KvHeads {
        let layer = &self.layers[layer];
        KvHeads { heads: layer.heads, head_dim: layer.shape.head_dim }
    }

    pub(super) fn head(&self, layer: usize, head: usize) -> HeadCache<'_> {
        let Layer { shape, data, .. } = &self.layers[layer];
        match data {
            Data::F32(store) => HeadCache::F32(store.head(*shape, head)),
            Data::F16(store) => HeadCache::F16(store.head(*shape, head)),
            Data::Q8_0(store) => HeadCache::Q8_0(store.head(*shape, head)),
        }
    }

    pub(super) fn head_mut(&mut self, layer: usize, head: usize) -> HeadCacheMut<'_> {
        let Layer { shape, data, .. } = &mut self.layers[layer];
        match data {
            Data::F32(store) => HeadCacheMut::F32(store.head_mut(*shape, head)),
            Data::F16(store) => HeadCacheMut::F16(store.head_mut(*shape, head)),
            Data::Q8_0(store) => HeadCacheMut::Q8_0(store.head_mut(*shape, head)),
        }
    }
}
