//! How one head's keys and values lie in memory.

use crate::isa::{Isa, IsaKind, LANES, Op};

/// Cached values that share a scale, in [`KvFormat::Q8_0`].
pub(super) const GROUP: usize = 32;

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvFormat {
    /// 32-bit floats.
    F32,
    /// Half-precision floats.
    #[default]
    F16,
    /// Signed bytes with an f16 scale for each 32.
    Q8_0,
}

/// How many lines of 16 elements the cache of one head has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// Values in a key, and in a value.
    pub head_dim: usize,
    /// Positions.
    pub capacity: usize,
}

impl HeadShape {
    /// Lines of keys: for each 16 positions one a dimension.
    pub const fn key_lines(self) -> usize {
        self.capacity.div_ceil(LANES) * self.head_dim
    }

    /// Lines of values: for each position the dimensions, 16 a line.
    pub const fn value_lines(self) -> usize {
        self.capacity * self.head_dim.div_ceil(LANES)
    }

    /// Lines of key scales, in [`KvFormat::Q8_0`]: for each 16 positions one a group of 32 dimensions.
    pub const fn key_scale_lines(self) -> usize {
        self.capacity.div_ceil(LANES) * self.head_dim.div_ceil(GROUP)
    }

    /// Value scales, in [`KvFormat::Q8_0`]: for each position one a group of 32 dimensions.
    pub const fn value_scales(self) -> usize {
        self.capacity * self.head_dim.div_ceil(GROUP)
    }
}

/// The cache of one head, with element type `T`.
///
/// Keys stand in blocks of 16 positions, dimension by dimension: line `b * head_dim + d` holds dimension `d` of
/// positions `16 b ..`. So the scores of 16 keys are sums of lines, with nothing to add up across lanes. Values stand
/// position by position. Scales stand likewise; both are empty where the format has none.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Lines<'a, T> {
    pub keys: &'a [[T; LANES]],
    pub values: &'a [[T; LANES]],
    pub key_scales: &'a [[u16; LANES]],
    pub value_scales: &'a [u16],
}

/// As [`Lines`], to be written.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct LinesMut<'a, T> {
    pub keys: &'a mut [[T; LANES]],
    pub values: &'a mut [[T; LANES]],
    pub key_scales: &'a mut [[u16; LANES]],
    pub value_scales: &'a mut [u16],
}

/// The cache of one head.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum HeadCache<'a> {
    F32(Lines<'a, f32>),
    F16(Lines<'a, u16>),
    Q8_0(Lines<'a, i8>),
}

/// The cache of one head, to be written.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum HeadCacheMut<'a> {
    F32(LinesMut<'a, f32>),
    F16(LinesMut<'a, u16>),
    Q8_0(LinesMut<'a, i8>),
}

/// Writes the key and the value of `position`. Panics if it is past the end of the cache.
pub fn store_kv(isa: IsaKind, cache: HeadCacheMut<'_>, position: usize, key: &[f32], value: &[f32]) {
    match cache {
        HeadCacheMut::F32(cache) => isa.run(Store { cache, position, key, value }),
        HeadCacheMut::F16(cache) => isa.run(Store { cache, position, key, value }),
        HeadCacheMut::Q8_0(cache) => isa.run(Store { cache, position, key, value }),
    }
}

/// Reads back the key of `position`.
pub fn load_key(isa: IsaKind, cache: HeadCache<'_>, position: usize, key: &mut [f32]) {
    match cache {
        HeadCache::F32(cache) => isa.run(LoadKey { cache, position, key }),
        HeadCache::F16(cache) => isa.run(LoadKey { cache, position, key }),
        HeadCache::Q8_0(cache) => isa.run(LoadKey { cache, position, key }),
    }
}

/// Moves the values of positions `from ..` down to `to ..`, `count` of them.
pub fn move_values(cache: HeadCacheMut<'_>, head_dim: usize, from: usize, to: usize, count: usize) {
    fn lines<T: Copy>(cache: LinesMut<'_, T>, head_dim: usize, from: usize, to: usize, count: usize) {
        let lines = head_dim.div_ceil(LANES);
        cache.values.copy_within(from * lines..(from + count) * lines, to * lines);
        if !cache.value_scales.is_empty() {
            let groups = head_dim.div_ceil(GROUP);
            cache.value_scales.copy_within(from * groups..(from + count) * groups, to * groups);
        }
    }
    match cache {
        HeadCacheMut::F32(cache) => lines(cache, head_dim, from, to, count),
        HeadCacheMut::F16(cache) => lines(cache, head_dim, from, to, count),
        HeadCacheMut::Q8_0(cache) => lines(cache, head_dim, from, to, count),
    }
}

/// Writes the key of `position`, leaving the value.
pub fn store_key(isa: IsaKind, cache: HeadCacheMut<'_>, position: usize, key: &[f32]) {
    store_kv(isa, cache, position, key, &[]);
}

/// What a cached element is in memory.
pub(super) trait Element: Copy + Default + Send + Sync {
    /// Whether each [`GROUP`] elements have a scale.
    const SCALED: bool;
    fn load<I: Isa>(isa: I, line: &[Self; LANES]) -> I::F32;
    fn store<I: Isa>(isa: I, v: I::F32, line: &mut [Self; LANES]);
}

macro_rules! element {
    ($ty:ty, $scaled:literal, $load:ident, $store:ident) => {
        impl Element for $ty {
            const SCALED: bool = $scaled;
            #[inline(always)]
            fn load<I: Isa>(isa: I, line: &[Self; LANES]) -> I::F32 {
                isa.$load(line)
            }
            #[inline(always)]
            fn store<I: Isa>(isa: I, v: I::F32, line: &mut [Self; LANES]) {
                isa.$store(v, line);
            }
        }
    };
}
element!(f32, false, load_f32, store_f32);
element!(u16, false, load_finite_f16, store_f16);
element!(i8, true, load_i8, store_i8);

struct Store<'a, T> {
    cache: LinesMut<'a, T>,
    position: usize,
    key: &'a [f32],
    value: &'a [f32],
}

impl<T: Element> Op for Store<'_, T> {
    const DOTS: bool = false;

    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { cache, position, key, value } = self;
        let (block, lane) = (position / LANES, position % LANES);
        let (head_dim, groups) = (key.len(), key.len().div_ceil(GROUP));
        for (g, part) in key.chunks(GROUP).enumerate() {
            let scale = scale_of::<I, T>(isa, part);
            if T::SCALED {
                cache.key_scales[block * groups + g][lane] = scale.0;
            }
            for (i, part) in part.chunks(LANES).enumerate() {
                let line = encode::<I, T>(isa, part, scale.1);
                let d = g * GROUP + i * LANES;
                let column = &mut cache.keys[block * head_dim + d..][..part.len()];
                for (out, element) in column.iter_mut().zip(line) {
                    out[lane] = element;
                }
            }
        }
        let (lines, groups) = (value.len().div_ceil(LANES), value.len().div_ceil(GROUP));
        for (g, part) in value.chunks(GROUP).enumerate() {
            let scale = scale_of::<I, T>(isa, part);
            if T::SCALED {
                cache.value_scales[position * groups + g] = scale.0;
            }
            for (i, part) in part.chunks(LANES).enumerate() {
                cache.values[position * lines + g * (GROUP / LANES) + i] = encode::<I, T>(isa, part, scale.1);
            }
        }
    }
}

/// The scale of a group as f16 bits, and the factor that takes values to codes.
#[inline(always)]
fn scale_of<I: Isa, T: Element>(isa: I, group: &[f32]) -> (u16, f32) {
    if !T::SCALED {
        return (0, 1.0);
    }
    let largest = group.iter().fold(0.0_f32, |a, x| a.max(x.abs()));
    let mut bits = [0; LANES];
    isa.store_f16(isa.splat(largest / 127.0), &mut bits);
    // The stored scale is rounded; codes are relative to what will be read back, and must not pass 127.
    let mut scale = [0.0; LANES];
    isa.store_f32(isa.load_f16(&bits), &mut scale);
    (bits[0], if scale[0] > 0.0 && scale[0].is_finite() { 1.0 / scale[0] } else { 0.0 })
}

#[inline(always)]
fn encode<I: Isa, T: Element>(isa: I, part: &[f32], factor: f32) -> [T; LANES] {
    // Heads are whole lines, but for few models.
    let mut v = isa.load_f32(&part.first_chunk().copied().unwrap_or_else(|| {
        let mut line = [0.0; LANES];
        line[..part.len()].copy_from_slice(part);
        line
    }));
    if T::SCALED {
        v = isa.mul(v, isa.splat(factor));
        v = isa.max(isa.min(v, isa.splat(127.0)), isa.splat(-127.0));
    }
    let mut out = [T::default(); LANES];
    T::store(isa, v, &mut out);
    out
}

struct LoadKey<'a, T> {
    cache: Lines<'a, T>,
    position: usize,
    key: &'a mut [f32],
}

impl<T: Element> Op for LoadKey<'_, T> {
    const DOTS: bool = false;

    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { cache, position, key } = self;
        let (block, lane) = (position / LANES, position % LANES);
        let (head_dim, groups) = (key.len(), key.len().div_ceil(GROUP));
        for (d, out) in key.iter_mut().enumerate() {
            let mut line = [0.0; LANES];
            let mut v = T::load(isa, &cache.keys[block * head_dim + d]);
            if T::SCALED {
                v = isa.mul(v, isa.load_f16(&cache.key_scales[block * groups + d / GROUP]));
            }
            isa.store_f32(v, &mut line);
            *out = line[lane];
        }
    }
}
