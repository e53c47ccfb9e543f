//! Cached keys and values of all layers.

use std::io::{self, Read, Write};
use std::ops::Range;

use firecrest_kernels::ops::{HeadCache, HeadCacheMut, HeadShape, Lines, LinesMut, PAGE};

pub use firecrest_kernels::ops::KvFormat;

use super::pages::{PageTable, Pages};

/// The heads of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KvHeads {
    /// Number of key-value heads.
    pub(crate) heads: usize,
    /// Values in a key, and in a value.
    pub(crate) head_dim: usize,
}

/// Keys and values of some number of positions in every layer, which sequences share out among them by pages.
///
/// A head's pages lie one after another, whoever uses them. So a sequence alone has each head in one piece; and with
/// several, attention steps from page to page by a table, at the end of the spans of keys that it takes at a time anyway.
#[derive(Debug)]
pub(crate) struct KvCache {
    format: KvFormat,
    layers: Vec<Layer>,
    pages: Pages,
    page_bytes: usize,
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
    fn new(heads: usize, shape: HeadShape, scaled: bool, zero: T) -> Self {
        let scales = if scaled { heads } else { 0 };
        Self {
            keys: vec![[zero; 16]; heads * shape.key_lines()],
            values: vec![[zero; 16]; heads * shape.value_lines()],
            key_scales: vec![[0; 16]; scales * shape.key_scale_lines()],
            value_scales: vec![0; scales * shape.value_scales()],
        }
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
    /// Where `len` positions from `place` on, where a page begins, lie in a head's keys, values, and the scales of both.
    fn ranges(shape: HeadShape, (place, len): (usize, usize)) -> [Range<usize>; 4] {
        let count = |capacity| {
            let part = HeadShape { capacity, ..shape };
            [part.key_lines(), part.value_lines(), part.key_scale_lines(), part.value_scales()]
        };
        let (start, len) = (count(place), count(len));
        std::array::from_fn(|i| start[i]..start[i] + len[i])
    }

    /// Copies `len` positions from one place to another; pages begin at both.
    fn copy(&mut self, heads: usize, shape: HeadShape, [from, to]: [usize; 2], len: usize) {
        let [from, to] = [from, to].map(|place| Self::ranges(shape, (place, len)));
        for head in 0..heads {
            let lines = self.head_mut(shape, head);
            lines.keys.copy_within(from[0].clone(), to[0].start);
            lines.values.copy_within(from[1].clone(), to[1].start);
            if !lines.key_scales.is_empty() {
                lines.key_scales.copy_within(from[2].clone(), to[2].start);
                lines.value_scales.copy_within(from[3].clone(), to[3].start);
            }
        }
    }

    fn save(
        &self,
        shape: HeadShape,
        head: usize,
        runs: &[(usize, usize)],
        out: &mut impl Write,
    ) -> io::Result<()> {
        let lines = self.head(shape, head);
        let ranges = |part: usize| runs.iter().map(move |&run| Self::ranges(shape, run)[part].clone());
        ranges(0).try_for_each(|range| T::write(lines.keys[range].as_flattened(), out))?;
        ranges(1).try_for_each(|range| T::write(lines.values[range].as_flattened(), out))?;
        if !lines.key_scales.is_empty() {
            ranges(2).try_for_each(|range| u16::write(lines.key_scales[range].as_flattened(), out))?;
            ranges(3).try_for_each(|range| u16::write(&lines.value_scales[range], out))?;
        }
        Ok(())
    }

    fn load(
        &mut self,
        shape: HeadShape,
        head: usize,
        runs: &[(usize, usize)],
        from: &mut impl Read,
    ) -> io::Result<()> {
        let lines = self.head_mut(shape, head);
        let ranges = |part: usize| runs.iter().map(move |&run| Self::ranges(shape, run)[part].clone());
        ranges(0).try_for_each(|range| T::read(lines.keys[range].as_flattened_mut(), from))?;
        ranges(1).try_for_each(|range| T::read(lines.values[range].as_flattened_mut(), from))?;
        if !lines.key_scales.is_empty() {
            ranges(2).try_for_each(|range| u16::read(lines.key_scales[range].as_flattened_mut(), from))?;
            ranges(3).try_for_each(|range| u16::read(&mut lines.value_scales[range], from))?;
        }
        Ok(())
    }
}

/// Part `i` of `len` elements; empty where the format has no such data.
fn part<T>(all: &[T], len: usize, i: usize) -> &[T] {
    if all.is_empty() { all } else { &all[i * len..(i + 1) * len] }
}

fn part_mut<T>(all: &mut [T], len: usize, i: usize) -> &mut [T] {
    if all.is_empty() { all } else { &mut all[i * len..(i + 1) * len] }
}

impl KvCache {
    /// Of at least `positions`, in whole pages. `None` where the memory cannot be had.
    pub(crate) fn new(
        format: KvFormat,
        positions: usize,
        layers: impl IntoIterator<Item = KvHeads> + Clone,
    ) -> Option<Self> {
        let page_bytes = Self::bytes(format, PAGE, layers.clone())?;
        let pages = positions.div_ceil(PAGE);
        u32::try_from(pages).ok()?;
        // `vec!` of zeros gets pages that the system fills in on first use, but aborts where there is no room: ask first,
        // for all at once, since an allocator that has had a piece back may fill it with zeros itself.
        Vec::<u8>::new().try_reserve_exact(page_bytes.checked_mul(pages)?).ok()?;
        let layers = layers.into_iter().map(|KvHeads { heads, head_dim }| {
            let shape = HeadShape { head_dim, capacity: pages * PAGE };
            let data = match format {
                KvFormat::F32 => Data::F32(Store::new(heads, shape, false, 0.0)),
                KvFormat::F16 => Data::F16(Store::new(heads, shape, false, 0)),
                KvFormat::Q8_0 => Data::Q8_0(Store::new(heads, shape, true, 0)),
            };
            Layer { heads, shape, data }
        });
        Some(Self { format, layers: layers.collect(), pages: Pages::new(pages), page_bytes })
    }

    /// Bytes that a cache of these layers takes; `None` where that overflows.
    pub(crate) fn bytes(
        format: KvFormat,
        positions: usize,
        layers: impl IntoIterator<Item = KvHeads>,
    ) -> Option<usize> {
        let element: usize = match format {
            KvFormat::F32 => 4,
            KvFormat::F16 => 2,
            KvFormat::Q8_0 => 1,
        };
        let mut position: usize = 0;
        for KvHeads { heads, head_dim } in layers {
            // Values round up to whole lines; scales are two bytes for each 32 keys and values.
            let values = head_dim.checked_next_multiple_of(16)?;
            let scales = if format == KvFormat::Q8_0 { 4 * head_dim.div_ceil(32) } else { 0 };
            let head = head_dim.checked_add(values)?.checked_mul(element)?.checked_add(scales)?;
            position = position.checked_add(head.checked_mul(heads)?)?;
        }
        Self::whole_pages(positions)?.checked_mul(position)
    }

    /// So many positions rounded up to pages; `None` where that overflows.
    pub(crate) fn whole_pages(positions: usize) -> Option<usize> {
        positions.checked_next_multiple_of(PAGE)
    }

    pub(crate) fn format(&self) -> KvFormat {
        self.format
    }

    /// Bytes of the pages that sequences use; what several share counts once.
    pub(crate) fn used_bytes(&self) -> usize {
        self.pages.used() * self.page_bytes
    }

    /// Positions in pages that no sequence uses.
    pub(crate) fn free_positions(&self) -> usize {
        self.positions() - self.pages.used() * PAGE
    }

    /// All positions.
    pub(crate) fn positions(&self) -> usize {
        self.pages.len() * PAGE
    }

    /// Gives a sequence of `len` positions room for `more`, of which it then is the only user. `false` where there is not
    /// so much room; [`KvCache::truncate`] gives back what was found.
    #[must_use]
    pub(crate) fn reserve(&mut self, table: &mut PageTable, len: usize, more: usize) -> bool {
        let Some(copy) = self.pages.reserve(table, len, more) else { return false };
        if let Some(pages) = copy {
            let places = pages.map(|page| page as usize * PAGE);
            for Layer { heads, shape, data } in &mut self.layers {
                match data {
                    Data::F32(store) => store.copy(*heads, *shape, places, len % PAGE),
                    Data::F16(store) => store.copy(*heads, *shape, places, len % PAGE),
                    Data::Q8_0(store) => store.copy(*heads, *shape, places, len % PAGE),
                }
            }
        }
        true
    }

    /// The first `len` positions for another sequence: nothing is copied until one of the two writes.
    pub(crate) fn fork(&mut self, table: &PageTable, len: usize) -> PageTable {
        self.pages.fork(table, len)
    }

    /// Gives back what a sequence does not need for `len` positions.
    pub(crate) fn truncate(&mut self, table: &mut PageTable, len: usize) {
        self.pages.truncate(table, len);
    }

    /// Writes the first `len` positions of a sequence.
    pub(crate) fn save(&self, table: &PageTable, len: usize, out: &mut impl Write) -> io::Result<()> {
        let runs: Vec<_> = table.runs(len).collect();
        for Layer { heads, shape, data } in &self.layers {
            (0..*heads).try_for_each(|head| match data {
                Data::F32(store) => store.save(*shape, head, &runs, out),
                Data::F16(store) => store.save(*shape, head, &runs, out),
                Data::Q8_0(store) => store.save(*shape, head, &runs, out),
            })?;
        }
        Ok(())
    }

    /// Reads the first `len` positions, as [`KvCache::save`] has written them. They must have been reserved.
    pub(crate) fn load(&mut self, table: &PageTable, len: usize, from: &mut impl Read) -> io::Result<()> {
        let runs: Vec<_> = table.runs(len).collect();
        for Layer { heads, shape, data } in &mut self.layers {
            (0..*heads).try_for_each(|head| match data {
                Data::F32(store) => store.load(*shape, head, &runs, from),
                Data::F16(store) => store.load(*shape, head, &runs, from),
                Data::Q8_0(store) => store.load(*shape, head, &runs, from),
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
