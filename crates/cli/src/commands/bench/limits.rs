//! `bench --limits`: what the machine can do at best, and how close the kernels and the whole model come.

use std::hint::black_box;
use std::io::{self, Write};
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use firecrest::Model;
use firecrest::backend::{Activations, IsaKind};
use firecrest_kernels::ops::{
    FLOAT_PANELS, FloatPanel, MatrixMut, PanelRun, QuantizedChunk, Weights, chunks, matmul, matmul_f32,
    panel_runs, probe_f32, probe_int8, probe_read, quantize,
};
use serde::Serialize;

use super::{Measured, Test, random_tokens};
use crate::kernels::Kernels;
use crate::output;

/// Memory that is read to measure its bandwidth, by all threads together: more than caches hold.
const MEMORY: usize = 512 << 20;

/// Memory that each thread reads to measure the shared cache: more than its own caches hold.
const CACHED: usize = 4 << 20;

/// The fastest of so many runs counts.
const ROUNDS: usize = 7;

/// Rows of the matrices that kernels are measured with; with their columns they stay in a core's own cache.
const ROWS: usize = 192;

/// Tokens of a prefill that kernels are measured with.
const TOKENS: usize = 128;

#[derive(Debug, Serialize)]
pub(super) struct Limits {
    machine: Vec<Peak>,
    kernels: Vec<Kernel>,
    /// Bytes of weights that a token reads.
    bytes_per_token: u64,
    /// Multiply-adds of a token of a prompt, without the logits; and of the logits of one.
    macs_per_token: u64,
    macs_of_logits: u64,
    model: Vec<Floor>,
}

/// What the machine can do with so many threads, in G bytes and G multiply-adds a second.
#[derive(Debug, Serialize)]
struct Peak {
    threads: usize,
    memory_read: f64,
    cache_read: f64,
    int8: f64,
    f32: f64,
}

/// A product with one thread, from cache.
#[derive(Debug, Serialize)]
struct Kernel {
    format: String,
    columns: usize,
    /// One token: G bytes of weights a second.
    decode_bytes: f64,
    /// Many tokens: G multiply-adds a second, and their share of what the machine can do.
    prefill_macs: f64,
    prefill_share: f64,
}

/// A test of the whole model beside what memory or arithmetic alone would take.
#[derive(Debug, Serialize)]
struct Floor {
    test: Test,
    threads: usize,
    depth: usize,
    batch: usize,
    floor_ms_per_token: f64,
    ms_per_token: f64,
    share: f64,
}

impl Limits {
    /// Measures machine and kernels; `results` are the tests of the whole model.
    pub(super) fn measure(model: &Model, isa: IsaKind, results: &[Measured]) -> Self {
        let mut threads: Vec<usize> = results.iter().map(|result| result.threads).chain([1]).collect();
        threads.sort_unstable();
        threads.dedup();
        let machine: Vec<Peak> = threads.into_iter().map(|threads| Peak::measure(isa, threads)).collect();
        let (shapes, [macs_per_token, macs_of_logits], bytes_per_token) = products(model);
        let kernels = shapes.into_iter().map(|shape| Kernel::measure(isa, shape, &machine)).collect();
        let floor = |result: &Measured| {
            let peak = machine.iter().find(|peak| peak.threads == result.threads)?;
            let ns = match result.test {
                Test::Embed => return None,
                // What one reading of the weights serves takes at least its own multiply-adds.
                Test::Decode => {
                    let memory = bytes_per_token as f64 / peak.memory_read / result.batch as f64;
                    memory.max((macs_per_token + macs_of_logits) as f64 / peak.int8)
                }
                // Only the last token of a prompt has logits.
                Test::Prefill => {
                    let macs = macs_per_token as f64 + macs_of_logits as f64 / result.tokens as f64;
                    macs / peak.int8
                }
            };
            let (floor, took) = (ns / 1e6, 1e3 / result.tokens_per_second.median);
            Some(Floor {
                test: result.test,
                threads: result.threads,
                depth: result.depth,
                batch: result.batch,
                floor_ms_per_token: floor,
                ms_per_token: took,
                share: floor / took,
            })
        };
        let model = results.iter().filter_map(floor).collect();
        Self { machine, kernels, bytes_per_token, macs_per_token, macs_of_logits, model }
    }

    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let head = |names: &[&str]| vec![names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()];
        let one = |x: f64| format!("{x:.1}");
        let percent = |x: f64| format!("{:.0} %", 100.0 * x);

        writeln!(out, "\nThe machine at best, in GB/s and G multiply-adds/s")?;
        let mut rows = head(&["threads", "memory", "cache", "int8", "f32"]);
        for Peak { threads, memory_read, cache_read, int8, f32 } in &self.machine {
            let numbers = [*memory_read, *cache_read, *int8, *f32].map(one);
            rows.push([threads.to_string()].into_iter().chain(numbers).collect());
        }
        output::table(out, &rows, &[0, 1, 2, 3, 4])?;

        writeln!(
            out,
            "\nProducts from cache, one thread: of one token in GB/s of weights, of {TOKENS} in G multiply-adds/s"
        )?;
        let mut rows = head(&["format", "columns", "decode", "prefill", "of int8"]);
        for Kernel { format, columns, decode_bytes, prefill_macs, prefill_share } in &self.kernels {
            rows.push(vec![
                format.clone(),
                columns.to_string(),
                one(*decode_bytes),
                one(*prefill_macs),
                percent(*prefill_share),
            ]);
        }
        output::table(out, &rows, &[1, 2, 3, 4])?;

        let [bytes, macs, logits] =
            [self.bytes_per_token, self.macs_per_token, self.macs_of_logits].map(|n| n as f64 / 1e6);
        writeln!(
            out,
            "\nThe model, in ms per token: {bytes:.1} MB are read, {macs:.1} M multiply-adds and {logits:.1} M for logits"
        )?;
        let mut rows = head(&["test", "threads", "depth", "batch", "floor", "took", "reached"]);
        for Floor { test, threads, depth, batch, floor_ms_per_token, ms_per_token, share } in &self.model {
            let [floor, took] = [floor_ms_per_token, ms_per_token].map(|ms| format!("{ms:.3}"));
            let test = test.name().to_owned();
            let counts = [threads, depth, batch].map(|n| n.to_string());
            rows.push([test].into_iter().chain(counts).chain([floor, took, percent(*share)]).collect());
        }
        output::table(out, &rows, &[1, 2, 3, 4, 5, 6])
    }
}

impl Peak {
    fn measure(isa: IsaKind, threads: usize) -> Self {
        let memory: Vec<Vec<u8>> = (0..threads).map(|_| vec![1; MEMORY / threads]).collect();
        let read = |len: usize, times: usize| {
            fastest(threads, |thread| {
                for _ in 0..times {
                    black_box(probe_read(isa, &memory[thread][..len]));
                }
                (len * times) as f64
            })
        };
        Self {
            threads,
            memory_read: read(MEMORY / threads, 1),
            cache_read: read(CACHED, 8),
            int8: fastest(threads, |_| black_box(probe_int8(isa, 500_000)).0 as f64),
            f32: fastest(threads, |_| black_box(probe_f32(isa, 500_000)).0 as f64),
        }
    }
}

/// The most that all threads together got done in a nanosecond; `work` says how much one did.
fn fastest(threads: usize, work: impl Fn(usize) -> f64 + Sync) -> f64 {
    let barrier = Barrier::new(threads);
    let run = |thread: usize| {
        let mut runs = [(0.0, 0.0); ROUNDS];
        for run in &mut runs {
            barrier.wait();
            let start = Instant::now();
            let done = work(thread);
            barrier.wait();
            *run = (done, start.elapsed().as_nanos() as f64);
        }
        runs
    };
    let all: Vec<_> = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        let mine = run(0);
        // A thread that panicked takes the program with it.
        [mine]
            .into_iter()
            .chain(others.into_iter().map(|other| other.join().expect("probes do not panic")))
            .collect()
    });
    let speed = |round: usize| {
        let done: f64 = all.iter().map(|runs| runs[round].0).sum();
        done / all.iter().map(|runs| runs[round].1).fold(1.0, f64::max)
    };
    (0..ROUNDS).map(speed).fold(0.0, f64::max)
}

/// A kind of matrix: its format by name, and its columns.
type Shape = (firecrest::gguf::Format, usize);

/// The kinds of matrices of a model, multiply-adds of a token and of its logits, and bytes that a token reads. Of
/// experts only those count that are used.
fn products(model: &Model) -> (Vec<Shape>, [u64; 2], u64) {
    let gguf = model.gguf();
    let number = |key: &str| {
        let architecture = gguf.metadata().architecture().ok()?;
        gguf.metadata().opt_u32(&format!("{architecture}.{key}")).ok().flatten().map(u64::from)
    };
    let used = number("expert_used_count").unwrap_or(1);
    let experts = number("expert_count").filter(|&count| count > 0).unwrap_or(1);
    let tied = gguf.tensor("output.weight").is_none();
    let (mut shapes, mut macs, mut bytes) = (Vec::new(), [0; 2], 0);
    for tensor in gguf.tensors() {
        // Which instruction set names the kernel does not matter for whether there is one.
        if Kernels::of(gguf, tensor, IsaKind::best(), Activations::default()).is_none() {
            continue;
        }
        let share = |n: u64| if tensor.name.contains("_exps.") { n * used / experts } else { n };
        let logits = tensor.name == "output.weight" || (tied && tensor.name == "token_embd.weight");
        macs[usize::from(logits)] += share(tensor.shape.iter().map(|&n| n as u64).product());
        bytes += share(tensor.data_bytes() as u64);
        let columns = tensor.shape.first().copied().unwrap_or(0);
        if !shapes.contains(&(tensor.format, columns)) {
            shapes.push((tensor.format, columns));
        }
    }
    shapes.sort_by_key(|&(format, columns)| (format.name(), columns));
    (shapes, macs, bytes)
}

impl Kernel {
    fn measure(isa: IsaKind, (format, columns): Shape, machine: &[Peak]) -> Self {
        let bytes = vec![0x2a; ROWS * format.row_bytes(columns).unwrap_or(0)];
        let mut product = Product::new(isa, format, columns, &bytes);
        let decode = product.nanoseconds(1);
        let prefill = product.nanoseconds(TOKENS);
        let macs = (ROWS * columns * TOKENS) as f64 / prefill;
        let peak = machine.iter().find(|peak| peak.threads == 1);
        let peak = peak.map_or(f64::NAN, |peak| if format.is_quantized() { peak.int8 } else { peak.f32 });
        Self {
            format: format.name().to_owned(),
            columns,
            decode_bytes: bytes.len() as f64 / decode,
            prefill_macs: macs,
            prefill_share: macs / peak,
        }
    }
}

/// A product of random activations with [`ROWS`] rows.
struct Product<'a> {
    isa: IsaKind,
    weights: Option<Weights<'a>>,
    columns: usize,
    x: Vec<f32>,
    codes: Vec<QuantizedChunk>,
    out: Vec<f32>,
    panel: Vec<PanelRun>,
    floats: Vec<FloatPanel>,
}

impl<'a> Product<'a> {
    fn new(isa: IsaKind, format: firecrest::gguf::Format, columns: usize, bytes: &'a [u8]) -> Self {
        let x: Vec<f32> =
            random_tokens(columns * TOKENS, 2001).iter().map(|&n| n as f32 / 1000.0 - 1.0).collect();
        let mut codes = vec![QuantizedChunk::ZERO; chunks(columns) * TOKENS];
        for (x, codes) in x.chunks(columns.max(1)).zip(codes.chunks_mut(chunks(columns).max(1))) {
            quantize(isa, x, codes);
        }
        let weights = Weights::new(format, bytes, ROWS, columns);
        let (out, panel) = (vec![0.0; ROWS * TOKENS], vec![PanelRun::ZERO; panel_runs(columns)]);
        let floats = vec![FloatPanel::ZERO; FLOAT_PANELS];
        Self { isa, weights, columns, x, codes, out, panel, floats }
    }

    /// What a product with so many tokens takes.
    fn nanoseconds(&mut self, tokens: usize) -> f64 {
        let Some(weights) = self.weights else { return f64::NAN };
        let repeat = 1 + 20_000_000 / (ROWS * self.columns * tokens).max(1);
        let mut best = f64::INFINITY;
        for _ in 0..ROUNDS {
            let start = Instant::now();
            for _ in 0..repeat {
                let out = MatrixMut::new(&mut self.out[..ROWS * tokens], ROWS);
                if weights.format().is_quantized() {
                    let x = &self.codes[..chunks(self.columns) * tokens];
                    matmul(self.isa, weights, x, out, &mut self.panel);
                } else {
                    matmul_f32(self.isa, weights, &self.x[..self.columns * tokens], out, &mut self.floats);
                }
                black_box(&mut self.out);
            }
            best = best.min(start.elapsed().as_nanos() as f64 / repeat as f64);
        }
        best
    }
}
