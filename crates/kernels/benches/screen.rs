//! Speed of guessing all logits in a few bits and computing some of them, against computing all in the same run, on one
//! thread: `cargo bench --package firecrest-kernels --bench screen`.
//!
//! The shape is SmolLM2-135M's output matrix in Q8_0. Each round reads other memory before everything it times, as the layers of
//! a token would; the table has the fastest round. Rows are picked at random, which is the worst case for memory.

use std::hint::black_box;
use std::time::Instant;

use firecrest_kernels::format::Format;
use firecrest_kernels::isa::IsaKind;
use firecrest_kernels::ops::*;
use firecrest_testkit::Random;

const ROUNDS: usize = 15;
const VOCAB: usize = 49152;
const DIM: usize = 576;
const FINE: usize = 128;
/// Logits that are computed.
const CANDIDATES: [usize; 4] = [512, 1536, 3072, 6144];
/// Bytes that push all others out of the caches.
const OTHER: usize = 96 << 20;

fn main() {
    let isa = std::env::var("FIRECREST_ISA").ok().and_then(|name| IsaKind::from_name(&name));
    let isa = isa.unwrap_or(IsaKind::best());
    let mut random = Random::new(1);
    // Small numbers: 0x2a2a is a small half.
    let output = vec![0x2a; VOCAB * Format::Q8_0.row_bytes(DIM).unwrap()];
    let output = Weights::new(Format::Q8_0, &output, VOCAB, DIM).unwrap();
    let layout = CoarseLayout::new(FINE, DIM - FINE).unwrap();
    let panels = vec![0x2a; layout.bytes(VOCAB).unwrap()];
    let (x, bias, other) = (random.floats(DIM), random.floats(VOCAB), vec![1u8; OTHER]);
    let mut codes = vec![QuantizedChunk::ZERO; chunks(DIM)];
    quantize(isa, &x, &mut codes);
    let mut coarse = vec![0; DIM];
    let scales = layout.quantize(&x, &mut coarse);
    let (mut logits, mut panel) = (vec![0.0; VOCAB], vec![PanelRun::ZERO; panel_runs(DIM)]);
    let mut timed = |best: &mut f64, f: &mut dyn FnMut(&mut [f32])| {
        black_box(other.iter().step_by(64).map(|&x| u64::from(x)).sum::<u64>());
        let start = Instant::now();
        f(black_box(&mut logits));
        *best = best.min(start.elapsed().as_secs_f64());
    };
    let [mut all, mut guess] = [f64::INFINITY; 2];
    let mut rows = [f64::INFINITY; CANDIDATES.len()];
    for _ in 0..ROUNDS {
        timed(&mut all, &mut |out| matmul(isa, output, &codes, MatrixMut::new(out, VOCAB), &mut panel));
        timed(&mut guess, &mut |out| coarse_product(isa, layout, &panels, (&coarse, scales), &bias, out));
        for (best, count) in rows.iter_mut().zip(CANDIDATES) {
            let mut chosen: Vec<u32> = (0..count).map(|_| random.below(VOCAB) as u32).collect();
            chosen.sort_unstable();
            timed(best, &mut |out| matmul_rows(isa, output, &chosen, &codes, &mut out[..count]));
        }
    }
    println!("{isa}, one thread");
    let speed = |bytes: usize, time: f64| bytes as f64 / time / 1e9;
    println!("all logits      {:6.3} ms, {:5.1} GB/s", 1e3 * all, speed(VOCAB * DIM / 32 * 34, all));
    println!("guess of all    {:6.3} ms, {:5.1} GB/s", 1e3 * guess, speed(panels.len(), guess));
    for (time, count) in rows.iter().zip(CANDIDATES) {
        let ratio = all / (guess + time);
        println!("{count:5} of them   {:6.3} ms; with the guess {ratio:.2} times as fast as all", 1e3 * time);
    }
}
