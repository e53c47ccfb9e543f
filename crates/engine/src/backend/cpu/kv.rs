//! Cached keys and values of all layers.

use std::io::{self, Read, Write};

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
    format: KvFormat,
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

/// An element of a cache, as bytes.
trait Element: Copy {
    fn write(line: &[Self], out: &mut impl Write) -> io::Result<()>;
    fn read(line: &mut [Self], from: &mut impl Read) -> io::Result<()>;
}

macro_rules! element {
    ($($type:ty)+) => {
        $(impl Element for $type {
            fn write(line: &[Self], out: &mut impl Write) -> io::Result<()> {
                line.iter().try_for_each(|x| out.write_all(&x.to_le_bytes()))
            }

            fn read(line: &mut [Self], from: &mut impl Read) -> io::Result<()> {
                line.iter_mut().try_for_each(|x| {
                    let mut bytes = [0; size_of::<$type>()];
                    from.read_exact(&mut bytes)?;
                    *x = Self::from_le_bytes(bytes);
                    Ok(())
                })
            }
        })+
    };
}
element!(f32 u16 i8);

impl<T: Element + Default> Store<T> {
    /// The parts of one head that the first `len` positions fill: keys, values, and the scales of both.
    fn used(shape: HeadShape, len: usize) -> [usize; 4] {
        let used = HeadShape { capacity: len, ..shape };
        [used.key_lines(), used.value_lines(), used.key_scale_lines(), used.value_scales()]
    }

    fn save(&self, shape: HeadShape, head: usize, len: usize, out: &mut impl Write) -> io::Result<()> {
        let lines = self.head(shape, head);
        let [keys, values, key_scales, value_scales] = Self::used(shape, len);
        T::write(lines.keys[..keys].as_flattened(), out)?;
        T::write(lines.values[..values].as_flattened(), out)?;
        if !lines.key_scales.is_empty() {
            u16::write(lines.key_scales[..key_scales].as_flattened(), out)?;
            u16::write(&lines.value_scales[..value_scales], out)?;
        }
        Ok(())
    }

    fn load(&mut self, shape: HeadShape, head: usize, len: usize, from: &mut impl Read) -> io::Result<()> {
        let lines = self.head_mut(shape, head);
        let [keys, values, key_scales, value_scales] = Self::used(shape, len);
        T::read(lines.keys[..keys].as_flattened_mut(), from)?;
        T::read(lines.values[..values].as_flattened_mut(), from)?;
        if !lines.key_scales.is_empty() {
            u16::read(lines.key_scales[..key_scales].as_flattened_mut(), from)?;
            u16::read(&mut lines.value_scales[..value_scales], from)?;
        }
        Ok(())
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
        Some(Self { format, layers: layers.collect::<Option<_>>()? })
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

    pub(crate) fn format(&self) -> KvFormat {
        self.format
    }

    /// Writes the first `len` positions.
    pub(crate) fn save(&self, len: usize, out: &mut impl Write) -> io::Result<()> {
        for Layer { heads, shape, data } in &self.layers {
            (0..*heads).try_for_each(|head| match data {
                Data::F32(store) => store.save(*shape, head, len, out),
                Data::F16(store) => store.save(*shape, head, len, out),
                Data::Q8_0(store) => store.save(*shape, head, len, out),
            })?;
        }
        Ok(())
    }

    /// Reads the first `len` positions, as [`KvCache::save`] has written them. There must be as many.
    pub(crate) fn load(&mut self, len: usize, from: &mut impl Read) -> io::Result<()> {
        for Layer { heads, shape, data } in &mut self.layers {
            (0..*heads).try_for_each(|head| match data {
                Data::F32(store) => store.load(*shape, head, len, from),
                Data::F16(store) => store.load(*shape, head, len, from),
                Data::Q8_0(store) => store.load(*shape, head, len, from),
            })?;
        }
        Ok(())
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
