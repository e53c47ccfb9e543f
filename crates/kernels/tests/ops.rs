//! Every operation, for every format and shape, on every instruction set that this processor has, against the scalar
//! one; and the scalar one against sums in `f64`.

use firecrest_kernels::format::Format;
use firecrest_kernels::format::float::{f16_to_f32, f32_to_f16};
use firecrest_kernels::isa::IsaKind;
use firecrest_kernels::ops::*;
use firecrest_kernels::with_quant;
use firecrest_testkit::Random;

/// Random blocks whose weights are finite and of moderate size.
fn random_row(random: &mut Random, format: Format, columns: usize) -> Vec<u8> {
    let mut row = Vec::new();
    let mut values = vec![0.0; format.block_len()];
    while row.len() < format.row_bytes(columns).unwrap() {
        let mut block = random.bytes(format.block_bytes());
        if matches!(format, Format::I16 | Format::I32 | Format::I64) {
            block[1..].fill(0);
        }
        format.dequantize(&block, &mut values);
        if values.iter().all(|v| v.is_finite() && v.abs() < 1e4) {
            row.extend(block);
        }
    }
    row
}

struct Case {
    format: Format,
    rows: usize,
    columns: usize,
    bytes: Vec<u8>,
    x: Vec<f32>,
    tokens: usize,
}

impl Case {
    fn random(seed: u64, format: Format, rows: usize, columns: usize, tokens: usize) -> Self {
        let mut random = Random::new(seed);
        let bytes = (0..rows).flat_map(|_| random_row(&mut random, format, columns)).collect();
        Self { format, rows, columns, bytes, x: random.floats(tokens * columns), tokens }
    }

    fn weights(&self) -> Weights<'_> {
        Weights::new(self.format, &self.bytes, self.rows, self.columns).unwrap()
    }

    /// `(Σ w x, Σ |w x|)` of each output.
    fn exact(&self) -> Vec<(f64, f64)> {
        let mut row = vec![0.0; self.columns];
        let mut out = vec![(0.0, 0.0); self.tokens * self.rows];
        for r in 0..self.rows {
            self.weights().dequantize_row(r, &mut row);
            for (t, x) in self.x.chunks(self.columns).enumerate() {
                let products = row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
                out[t * self.rows + r] = (products.clone().sum(), products.map(f64::abs).sum());
            }
        }
        out
    }

    fn quantized(&self, isa: IsaKind) -> Vec<f32> {
        let stride = chunks(self.columns);
        let mut x = vec![QuantizedChunk::ZERO; self.tokens * stride];
        for (x, out) in self.x.chunks(self.columns).zip(x.chunks_mut(stride)) {
            quantize(isa, x, out);
        }
        let mut out = vec![f32::NAN; self.tokens * self.rows];
        let mut panel = vec![PanelRun::ZERO; panel_runs(self.columns)];
        matmul(isa, self.weights(), &x, MatrixMut::new(&mut out, self.rows), &mut panel);
        out
    }

    fn float(&self, isa: IsaKind) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.tokens * self.rows];
        let panels = &mut [FloatPanel::ZERO; FLOAT_PANELS];
        matmul_f32(isa, self.weights(), &self.x, MatrixMut::new(&mut out, self.rows), panels);
        out
    }

    fn fixed(&self, isa: IsaKind) -> Vec<f32> {
        let stride = chunks(self.columns);
        let mut x = vec![I16Chunk::ZERO; self.tokens * stride];
        for (x, out) in self.x.chunks(self.columns).zip(x.chunks_mut(stride)) {
            quantize_i16(isa, x, out);
        }
        let mut out = vec![f32::NAN; self.tokens * self.rows];
        let panels = &mut [FloatPanel::ZERO; FLOAT_PANELS];
        matmul_i16(isa, self.weights(), &x, MatrixMut::new(&mut out, self.rows), panels);
        out
    }

    #[track_caller]
    fn check(&self, what: &str, got: &[f32], want: &[f64], tolerance: f64) {
        for (i, ((got, want), (_, size))) in got.iter().zip(want).zip(self.exact()).enumerate() {
            let error = (f64::from(*got) - want).abs();
            assert!(
                error <= tolerance * size.max(1e-20),
                "{what} {} {}x{} tokens {}: output {i} is {got}, not {want} (of {size})",
                self.format,
                self.rows,
                self.columns,
                self.tokens
            );
        }
    }
}

fn cases() -> impl Iterator<Item = Case> {
    let formats = Format::ALL.iter().copied();
    formats.enumerate().flat_map(|(f, format)| {
        let unit = format.block_len().max(8);
        // One block, blocks that do not fill a vector or a chunk, whole chunks, and more than one.
        let columns = [unit, 3 * unit, 256, 256 + unit, 576].into_iter().filter(move |c| c % unit == 0);
        let shapes = [(1, 1), (5, 1), (16, 3), (18, 4), (17, 21)];
        columns.zip(shapes.into_iter().cycle().skip(f % 5)).enumerate().map(
            move |(i, (columns, (rows, tokens)))| {
                Case::random((f * 100 + i) as u64, format, rows, columns, tokens)
            },
        )
    })
}

fn is_quantized(format: Format) -> bool {
    with_quant!(format, Q => { let _ = size_of::<Q>(); }).is_some()
}

/// What others are compared with: scalar code, but where a module has SIMD everywhere.
fn plainest() -> IsaKind {
    IsaKind::available().next().expect("what this build is for")
}

fn f64s(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

#[test]
fn products_with_quantized_activations() {
    for case in cases().filter(|case| is_quantized(case.format)) {
        let want: Vec<f64> = case.exact().iter().map(|e| e.0).collect();
        let scalar = case.quantized(plainest());
        // Rounding an activation moves it by up to 1/254 of the largest of its 32, which is at most 1.
        case.check("scalar", &scalar, &want, 0.02);
        for isa in IsaKind::available() {
            case.check(isa.name(), &case.quantized(isa), &f64s(&scalar), 2e-6);
        }
    }
}

#[test]
fn products_with_exact_activations() {
    for case in cases() {
        let want: Vec<f64> = case.exact().iter().map(|e| e.0).collect();
        for isa in IsaKind::available() {
            case.check(isa.name(), &case.float(isa), &want, 2e-6);
        }
    }
}

#[test]
fn a_panel_gives_what_single_tokens_give() {
    for format in [Format::Q4_1, Format::Q6_K, Format::Q8_0, Format::IQ3_S] {
        let many = Case::random(7, format, 40, 768, 37);
        for isa in IsaKind::available() {
            let together = many.quantized(isa);
            for t in 0..many.tokens {
                let one = Case {
                    x: many.x[t * many.columns..][..many.columns].to_vec(),
                    bytes: many.bytes.clone(),
                    tokens: 1,
                    ..many
                };
                one.check(
                    isa.name(),
                    &together[t * many.rows..][..many.rows],
                    &f64s(&one.quantized(isa)),
                    2e-6,
                );
            }
        }
    }
}

#[test]
fn quantization_is_the_same_everywhere() {
    let mut random = Random::new(3);
    for len in [1, 31, 32, 33, 256, 300, 1000] {
        let mut x = random.floats(len);
        x[0] = 1000.0;
        if len > 100 {
            x[64..96].fill(0.0);
            x[97] = f32::MIN_POSITIVE;
        }
        let quantized = |isa| {
            let mut out = vec![QuantizedChunk::ZERO; chunks(len)];
            quantize(isa, &x, &mut out);
            format!("{out:?}")
        };
        let scalar = quantized(plainest());
        for isa in IsaKind::available() {
            assert_eq!(quantized(isa), scalar, "{isa} {len}");
        }
    }
}

#[test]
fn norms() {
    let mut random = Random::new(4);
    for len in [1, 15, 16, 64, 100] {
        let (x, weight, bias) = (random.floats(len), random.floats(len), random.floats(len));
        let n = len as f64;
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let rms = (x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n + 1e-5).sqrt();
        let deviation = (x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n + 1e-5).sqrt();
        for isa in IsaKind::available() {
            let mut out = vec![0.0; len];
            rms_norm(isa, &x, &weight, 1e-5, &mut out);
            for i in 0..len {
                let want = f64::from(x[i]) / rms * f64::from(weight[i]);
                assert!((f64::from(out[i]) - want).abs() < 1e-5, "{isa} {len}");
            }
            layer_norm(isa, &x, &weight, Some(&bias), 1e-5, &mut out);
            for i in 0..len {
                let want = (f64::from(x[i]) - mean) / deviation * f64::from(weight[i]) + f64::from(bias[i]);
                assert!((f64::from(out[i]) - want).abs() < 1e-5, "{isa} {len}: {} {want}", out[i]);
            }
        }
    }
}

#[test]
fn the_first_above() {
    let mut random = Random::new(6);
    for len in [0, 1, 15, 64, 65, 200, 300] {
        let mut values = random.floats(len);
        for place in [None, Some(len / 2), Some(len.saturating_sub(1))] {
            for found in [4.0, f32::INFINITY, f32::NAN] {
                // Masked values, which are smaller than all others, in many of its blocks.
                values.iter_mut().step_by(70).for_each(|x| *x = f32::NEG_INFINITY);
                let place = place.filter(|&place| place < len);
                place.into_iter().for_each(|place| values[place] = found);
                for isa in IsaKind::available() {
                    assert_eq!(first_above(isa, &values, 3.0), place, "{isa} {len} {found}");
                    let any = values.iter().position(|&x| x.is_nan() || x > f32::NEG_INFINITY);
                    assert_eq!(first_above(isa, &values, f32::NEG_INFINITY), any, "{isa} {len} {found}");
                }
                place.into_iter().for_each(|place| values[place] = 0.0);
            }
        }
    }
}

#[test]
fn activations() {
    let x: Vec<f32> = (-4000..4000).map(|i| i as f32 / 200.0).collect();
    let erf = |x: f64| {
        // The Taylor series, which converges everywhere; beyond 4 the rest is below 2e-8.
        if x.abs() > 4.0 {
            return x.signum();
        }
        let (mut term, mut sum) = (x, x);
        for n in 1..120 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    };
    let reference = |activation, x: f64| match activation {
        Activation::Relu => x.max(0.0),
        Activation::Relu2 => x.max(0.0).powi(2),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::GeluQuick => x / (1.0 + (-1.702 * x).exp()),
        _ => x,
    };
    use Activation::*;
    for activation in [Relu, Relu2, Silu, Gelu, GeluTanh, GeluQuick, Identity] {
        for isa in IsaKind::available() {
            let mut got = x.clone();
            activate(isa, activation, &mut got);
            let mut gated = x.clone();
            let up: Vec<f32> = x.iter().map(|x| 1.0 - x).collect();
            activate_gated(isa, activation, &mut gated, &up);
            let bias: Vec<f32> = (0..100).map(|i| i as f32 / 64.0).collect();
            let mut want: Vec<f32> = x.iter().zip(bias.iter().cycle()).map(|(x, bias)| x + bias).collect();
            activate(isa, activation, &mut want);
            let mut rows = x.clone();
            activate_rows(isa, activation, Some(&bias), MatrixMut::new(&mut rows, bias.len()));
            assert_eq!(rows, want, "{isa} {activation:?}");
            for i in 0..x.len() {
                let want = reference(activation, f64::from(x[i]));
                let error = (f64::from(got[i]) - want).abs();
                assert!(
                    error <= 5e-7 * (1.0 + want.abs()),
                    "{isa} {activation:?}({}) = {} not {want}",
                    x[i],
                    got[i]
                );
                assert!((gated[i] - got[i] * up[i]).abs() <= 1e-6 * gated[i].abs(), "{isa} {activation:?}");
            }
        }
    }
}

#[test]
fn rotation() {
    let turns = [(0.6, 0.8), (0.0, 1.0)];
    let mut head = [1.0, 2.0, 3.0, 4.0, 5.0];
    rotate(&mut head, &turns, RopeLayout::Interleaved);
    assert_eq!(head, [0.6 - 1.6, 0.8 + 1.2, -4.0, 3.0, 5.0]);
    let mut head = [1.0, 2.0, 3.0, 4.0, 5.0];
    rotate(&mut head, &turns, RopeLayout::Halves);
    assert_eq!(head, [0.6 - 3.0 * 0.8, -4.0, 0.8 + 3.0 * 0.6, 2.0, 5.0]);
}

/// One head's cache, in lines.
struct Cache<T> {
    keys: Vec<[T; 16]>,
    values: Vec<[T; 16]>,
    key_scales: Vec<[u16; 16]>,
    value_scales: Vec<u16>,
}

impl<T: Copy + Default> Cache<T> {
    fn new(shape: HeadShape) -> Self {
        Self {
            keys: vec![[T::default(); 16]; shape.key_lines()],
            values: vec![[T::default(); 16]; shape.value_lines()],
            key_scales: vec![[0; 16]; shape.key_scale_lines()],
            value_scales: vec![0; shape.value_scales()],
        }
    }

    fn lines(&self) -> Lines<'_, T> {
        Lines {
            keys: &self.keys,
            values: &self.values,
            key_scales: &self.key_scales,
            value_scales: &self.value_scales,
        }
    }

    fn lines_mut(&mut self) -> LinesMut<'_, T> {
        LinesMut {
            keys: &mut self.keys,
            values: &mut self.values,
            key_scales: &mut self.key_scales,
            value_scales: &mut self.value_scales,
        }
    }
}

/// Attention of `tokens` queries after `first` cached positions, in `f64`.
fn reference_attention(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    head_dim: usize,
    first: usize,
    group: usize,
    score: Score,
) -> Vec<f64> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let mut out = Vec::new();
    let tokens = q.len() / head_dim / group;
    for (t, q) in q.chunks(head_dim).enumerate() {
        let position = first + t / group;
        let begin = score.window.map_or(0, |w| (position + 1).saturating_sub(w));
        let last = if score.causal { position } else { first + tokens - 1 };
        let weights: Vec<f64> = (begin..=last)
            .map(|p| {
                let mut s = dot(q, &k[p * head_dim..][..head_dim]) * f64::from(score.scale);
                if let Some(cap) = score.soft_cap {
                    s = f64::from(cap) * (s / f64::from(cap)).tanh();
                }
                s + f64::from(score.slope) * p as f64
            })
            .collect();
        let largest = weights.iter().copied().fold(f64::MIN, f64::max);
        let total: f64 = weights.iter().map(|s| (s - largest).exp()).sum();
        for d in 0..head_dim {
            let sum: f64 = weights
                .iter()
                .zip(begin..)
                .map(|(s, p)| (s - largest).exp() * f64::from(v[p * head_dim + d]))
                .sum();
            out.push(sum / total);
        }
    }
    out
}

#[test]
fn attention() {
    let mut random = Random::new(5);
    let mut panels = vec![AttentionPanels::ZERO; 1].remove(0);
    for (head_dim, first, tokens, group, window, soft_cap, slope, causal) in [
        (64, 0, 1, 1, None, None, 0.0, true),
        (64, 0, 37, 1, None, None, 0.0, true),
        (64, 130, 1, 1, None, None, 0.0, true),
        (24, 100, 19, 1, None, None, 0.0, true),
        (80, 50, 9, 1, Some(8), None, 0.0, true),
        (16, 200, 3, 1, Some(70), None, 0.0, true),
        (128, 77, 12, 1, None, Some(5.0), 0.0, true),
        (32, 60, 11, 1, None, None, 0.0625, true),
        (32, 0, 1, 1, None, None, 0.0, false),
        (32, 0, 77, 1, None, None, 0.0, false),
        (64, 5, 16, 1, None, None, 0.0, false),
        (64, 130, 1, 3, None, None, 0.0, true),
        (64, 70, 1, 7, Some(60), None, 0.0, true),
        (32, 60, 3, 4, Some(40), None, 0.0, true),
        (48, 3, 530, 1, None, None, 0.0, true),
        (32, 40, 150, 1, Some(70), None, 0.0, true),
        (32, 0, 100, 1, Some(usize::MAX), None, 0.0, true),
        (96, 0, 70, 1, None, Some(5.0), 0.0625, true),
    ] {
        let positions = first + tokens;
        let score = Score { scale: 1.0 / (head_dim as f32).sqrt(), soft_cap, window, causal, slope };
        let q: Vec<f32> = random.floats(tokens * group * head_dim).iter().map(|x| 4.0 * x).collect();
        let (k, v) = (random.floats(positions * head_dim), random.floats(positions * head_dim));
        let want = reference_attention(&q, &k, &v, head_dim, first, group, score);
        // One after another, and in pages that lie in reverse.
        let count = positions.div_ceil(PAGE);
        let reversed: Vec<u32> = (1..=count as u32).rev().collect();
        for (isa, pages) in IsaKind::available().flat_map(|isa| [(isa, None), (isa, Some(&reversed[..]))]) {
            let capacity = if pages.is_some() { (count + 1) * PAGE } else { positions + 3 };
            let shape = HeadShape { head_dim, capacity };
            let mut f32s = Cache::<f32>::new(shape);
            let mut f16s = Cache::<u16>::new(shape);
            let mut q8s = Cache::<i8>::new(shape);
            let place = |p: usize| pages.map_or(p, |pages| pages[p / PAGE] as usize * PAGE + p % PAGE);
            for p in 0..positions {
                let (k, v) = (&k[p * head_dim..][..head_dim], &v[p * head_dim..][..head_dim]);
                store_kv(isa, HeadCacheMut::F32(f32s.lines_mut()), place(p), k, v);
                store_kv(isa, HeadCacheMut::F16(f16s.lines_mut()), place(p), k, v);
                store_kv(isa, HeadCacheMut::Q8_0(q8s.lines_mut()), place(p), k, v);
            }
            let caches = [
                (HeadCache::F32(f32s.lines()), 2e-6),
                (HeadCache::F16(f16s.lines()), 2e-3),
                (HeadCache::Q8_0(q8s.lines()), 2e-2),
            ];
            for (cache, tolerance) in caches {
                let mut out = vec![f32::NAN; q.len()];
                let mut scratch = vec![[f32::NAN; 16]; attention_lines(head_dim)];
                let view = MatrixMut::new(&mut out, head_dim);
                attend(isa, &q, head_dim, cache, pages, first, group, None, score, view, &mut scratch);
                let check = |out: &[f32], tolerance: f64, how: &str| {
                    for (i, (got, want)) in out.iter().zip(&want).enumerate() {
                        assert!(
                            (f64::from(*got) - want).abs() < tolerance,
                            "{isa}{how} head {head_dim}, {first} + {tokens}, window {window:?}, value {i}: {got}, not {want}"
                        );
                    }
                };
                check(&out, tolerance, "");
                if ATTENDS_TO_PARTS {
                    let (width, queries) = (head_dim + PART_TERMS, tokens * group);
                    let mut parts = vec![f32::NAN; positions.div_ceil(48) * queries * width];
                    for (start, part) in (0..).step_by(48).zip(parts.chunks_mut(queries * width)) {
                        let (view, part) = (MatrixMut::new(part, width), Some(start..start + 48));
                        attend(
                            isa,
                            &q,
                            head_dim,
                            cache,
                            pages,
                            first,
                            group,
                            part,
                            score,
                            view,
                            &mut scratch,
                        );
                    }
                    for (query, out) in out.chunks_mut(head_dim).enumerate() {
                        join_parts(isa, &parts[query * width..], queries * width, out);
                    }
                    check(&out, tolerance, " in parts,");
                }
                if group == 1 && attends_in_i16(isa, 1000, head_dim) {
                    out.fill(f32::NAN);
                    let view = MatrixMut::new(&mut out, head_dim);
                    attend_i16(isa, &q, head_dim, cache, pages, first, score, view, &mut panels);
                    check(&out, tolerance + 5e-4, " in 16 bits,");
                }
                let mut key = vec![0.0; head_dim];
                load_key(isa, cache, place(positions - 1), &mut key);
                for (got, want) in key.iter().zip(&k[(positions - 1) * head_dim..]) {
                    assert!((got - want).abs() < 5e-3);
                }
            }
        }
    }
}

#[test]
fn caches_round_to_half_precision_as_one_number_does() {
    // All exponents, and in each what is halfway between two results, next to it, and far from it.
    let fractions = [
        0, 1, 0xfff, 0x1000, 0x1001, 0x1fff, 0x2000, 0x2fff, 0x3000, 0x3001, 0x55_5555, 0x7f_f000, 0x7f_ffff,
    ];
    let bits = (0..512_u32).flat_map(|top| fractions.map(|fraction| top << 23 | fraction));
    let mut values: Vec<f32> = bits.map(f32::from_bits).collect();
    values.resize(values.len().next_multiple_of(16), 0.0);
    let shape = HeadShape { head_dim: values.len(), capacity: 1 };
    for isa in IsaKind::available() {
        let mut cache = Cache::<u16>::new(shape);
        store_kv(isa, HeadCacheMut::F16(cache.lines_mut()), 0, &values, &values);
        for (got, value) in cache.values.as_flattened().iter().zip(&values) {
            let same = if value.is_nan() { f16_to_f32(*got).is_nan() } else { *got == f32_to_f16(*value) };
            assert!(same, "{isa}: {value:e} ({:#x}) became {got:#x}", value.to_bits());
        }
    }
}

#[test]
fn matrices_split_both_ways() {
    let mut data: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let (left, right) = MatrixMut::new(&mut data, 4).split_columns(1);
    let (mut top, mut bottom) = right.split_rows(2);
    assert_eq!(top.row_mut(1), [5.0, 6.0, 7.0]);
    assert_eq!(bottom.row_mut(0), [9.0, 10.0, 11.0]);
    assert_eq!((left.rows(), left.columns(), top.rows(), bottom.rows()), (3, 1, 2, 1));
}

/// By how much each output may miss what it should be: a number is rounded by up to 1/64000 of the norm of its chunk.
fn rounding_to_16_bits(case: &Case) -> Vec<f64> {
    let norms = |x: &[f32]| {
        let squares = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        (squares.sqrt() / 64_000.0, x.iter().map(|&x| f64::from(x.abs())).sum::<f64>())
    };
    let mut row = vec![0.0; case.columns];
    let mut bounds = vec![0.0; case.tokens * case.rows];
    for r in 0..case.rows {
        case.weights().dequantize_row(r, &mut row);
        for (t, x) in case.x.chunks(case.columns).enumerate() {
            let chunks = row.chunks(256).zip(x.chunks(256)).map(|(w, x)| {
                let ((w_step, w_size), (x_step, x_size)) = (norms(w), norms(x));
                w_step * x_size + x_step * w_size + w_step * x_step * 256.0
            });
            bounds[t * case.rows + r] = chunks.sum::<f64>();
        }
    }
    // And as floats are rounded; what is below 1e-30 is as good as zero.
    for (bound, (_, size)) in bounds.iter_mut().zip(case.exact()) {
        *bound += 1e-6 * size + 1e-30 * case.columns as f64;
    }
    bounds
}

#[test]
fn products_in_16_bits() {
    let isas: Vec<_> = IsaKind::available().filter(|&isa| prefers_i16(isa)).collect();
    for case in cases().filter(|case| !is_quantized(case.format)) {
        let bounds = rounding_to_16_bits(&case);
        for &isa in &isas {
            for ((got, (want, _)), bound) in case.fixed(isa).iter().zip(case.exact()).zip(&bounds) {
                let error = (f64::from(*got) - want).abs();
                assert!(error <= *bound, "{isa} {}: {got}, not {want} (± {bound})", case.format);
            }
        }
    }
}

#[test]
fn a_token_gives_the_same_alone_in_16_bits() {
    let many = Case::random(7, Format::F32, 40, 600, 37);
    for isa in IsaKind::available().filter(|&isa| prefers_i16(isa)) {
        let together = many.fixed(isa);
        for (x, want) in many.x.chunks(many.columns).zip(together.chunks(many.rows)) {
            let one = Case { x: x.to_vec(), bytes: many.bytes.clone(), tokens: 1, ..many };
            assert_eq!(one.fixed(isa), want, "{isa}");
        }
    }
}

#[test]
fn numbers_far_from_one_in_16_bits() {
    let product = |isa, w: f32, x: f32| {
        let bytes: Vec<u8> = [w; 40].iter().flat_map(|w| w.to_le_bytes()).collect();
        let case = Case { format: Format::F32, rows: 1, columns: 40, bytes, x: vec![x; 40], tokens: 1 };
        case.fixed(isa)[0]
    };
    for isa in IsaKind::available().filter(|&isa| prefers_i16(isa)) {
        for (w, x) in [(1e-20, 1e20), (1e25, 1e-25), (3e35, 1e-10), (-2e-25, 3e30)] {
            let (got, want) = (product(isa, w, x), 40.0 * w * x);
            assert!((got - want).abs() <= 1e-3 * want.abs(), "{isa}: {got}, not {want}");
        }
        assert_eq!(product(isa, 0.0, 1.0), 0.0);
        assert_eq!(product(isa, 1e-38, 1.0), 0.0);
        assert!(product(isa, f32::NAN, 1.0).is_nan());
        assert!(product(isa, 1.0, f32::INFINITY).is_nan());
    }
}
