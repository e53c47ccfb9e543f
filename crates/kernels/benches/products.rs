//! Speed of matrix products from cache, against the machine's peak in the same run:
//! `cargo bench --package firecrest-kernels -- [format ...]`.
//!
//! Each round times everything once, so that what other programs do to the machine spreads over all; the table has the
//! fastest round.

use std::hint::black_box;
use std::time::Instant;

use firecrest_kernels::format::Format;
use firecrest_kernels::isa::IsaKind;
use firecrest_kernels::ops::*;
use firecrest_testkit::Random;

const ROUNDS: usize = 40;
/// Tokens of a prefill.
const TOKENS: usize = 128;

/// One product, ready to run.
struct Case {
    format: Format,
    rows: usize,
    columns: usize,
    tokens: usize,
    bytes: Vec<u8>,
    x: Vec<QuantizedChunk>,
    out: Vec<f32>,
    panel: Vec<PanelRun>,
    /// Seconds of the fastest round.
    best: f64,
}

impl Case {
    fn new(isa: IsaKind, format: Format, rows: usize, columns: usize, tokens: usize) -> Self {
        let mut random = Random::new(1);
        let floats = random.floats(columns * tokens);
        let mut x = vec![QuantizedChunk::ZERO; chunks(columns) * tokens];
        for (x, q) in floats.chunks(columns).zip(x.chunks_mut(chunks(columns))) {
            quantize(isa, x, q);
        }
        // Any bytes do, but NaN scales may be slow somewhere: 0x2a2a is a small half.
        let bytes = vec![0x2a; rows * format.row_bytes(columns).unwrap()];
        let out = vec![0.0; rows * tokens];
        let panel = vec![PanelRun::ZERO; panel_runs(columns)];
        Self { format, rows, columns, tokens, bytes, x, out, panel, best: f64::INFINITY }
    }

    fn run(&mut self, isa: IsaKind) {
        let weights = Weights::new(self.format, &self.bytes, self.rows, self.columns).unwrap();
        // About a millisecond on a fast machine.
        let repeat = 1 + 30_000_000 / (self.rows * self.columns * self.tokens);
        let start = Instant::now();
        for _ in 0..repeat {
            matmul(isa, weights, &self.x, MatrixMut::new(&mut self.out, self.rows), &mut self.panel);
            black_box(&mut self.out);
        }
        self.best = self.best.min(start.elapsed().as_secs_f64() / repeat as f64);
    }
}

fn main() {
    let names: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let isa = std::env::var("FIRECREST_ISA").ok().and_then(|name| IsaKind::from_name(&name));
    let isa = isa.unwrap_or(IsaKind::best());
    let formats: Vec<Format> = Format::ALL.iter().copied().filter(|format| format.is_quantized()).collect();
    let wanted = |format: &Format| match names.is_empty() {
        true => !matches!(format, Format::Q8_1 | Format::Q8_K),
        false => names.iter().any(|name| name.eq_ignore_ascii_case(&format.to_string())),
    };
    let mut cases = Vec::new();
    for format in formats.into_iter().filter(wanted) {
        let columns: &[usize] = if format.block_len() == 32 { &[576, 1536] } else { &[1536] };
        for &columns in columns {
            cases.push(Case::new(isa, format, 192, columns, 1));
            cases.push(Case::new(isa, format, 192, columns, TOKENS));
        }
    }
    let mut peak: f64 = 0.0;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let (products, sum) = probe_int8(isa, 200_000);
        black_box(sum);
        peak = peak.max(products as f64 / start.elapsed().as_secs_f64());
        cases.iter_mut().for_each(|case| case.run(isa));
    }
    println!("{isa}: at best {:.0} G multiply-adds/s", peak / 1e9);
    println!("format   columns tokens   bytes/s  macs/s   of peak");
    for Case { format, rows, columns, tokens, bytes, best, .. } in &cases {
        let macs = (rows * columns * tokens) as f64 / best;
        println!(
            "{:8} {columns:7} {tokens:6} {:7.1} G {:5.0} G   {:5.1} %",
            format.to_string(),
            bytes.len() as f64 / best / 1e9,
            macs / 1e9,
            100.0 * macs / peak
        );
    }
}
