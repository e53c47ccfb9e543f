//! Speed of a feed-forward layer with some of its neurons, against the layer with all of them in the same run, on one
//! thread: `cargo bench --package firecrest-kernels --bench neurons`.
//!
//! Dense is what dense models run: three products with matrices as they lie in the file. Each round times everything once;
//! the table has the fastest round. Neurons are picked at random, which is the worst case for memory.

use std::time::Instant;

use firecrest_kernels::format::Format;
use firecrest_kernels::isa::IsaKind;
use firecrest_kernels::ops::*;
use firecrest_testkit::Random;

const ROUNDS: usize = 15;
const SHARES: [usize; 4] = [10, 30, 50, 70];

/// The second matrix by neuron.
enum Down {
    Packed(NeuronLayout, Vec<u8>),
    Rows(Vec<u8>),
}

struct Layer {
    isa: IsaKind,
    format: Format,
    dim: usize,
    hidden: usize,
    gate: Vec<u8>,
    up: Vec<u8>,
    down: Vec<u8>,
    by_neuron: Down,
    x: Vec<f32>,
    codes: Vec<QuantizedChunk>,
    h: Vec<f32>,
    h_codes: Vec<QuantizedChunk>,
}

impl Layer {
    fn new(isa: IsaKind, format: Format, dim: usize, hidden: usize) -> Self {
        let mut random = Random::new(1);
        // Small numbers in every format: 0x2a2a is a small half.
        let mut bytes = || -> Vec<u8> {
            let len = hidden * format.row_bytes(dim).unwrap();
            match format {
                Format::F32 => random.floats(dim * hidden).iter().flat_map(|x| x.to_le_bytes()).collect(),
                _ => vec![0x2a; len],
            }
        };
        let (gate, up, down) = (bytes(), bytes(), bytes());
        let by_neuron = match NeuronLayout::new(format, dim, hidden) {
            Some(layout) => {
                let mut packed = vec![0; layout.bytes().unwrap()];
                let weights = Weights::new(format, &down, dim, hidden).unwrap();
                for (s, section) in packed.chunks_mut(layout.section_bytes()).enumerate() {
                    layout.pack(weights, s, section);
                }
                Down::Packed(layout, packed)
            }
            None => Down::Rows(down.clone()),
        };
        let quantized = |x: &[f32]| {
            let mut codes = vec![QuantizedChunk::ZERO; chunks(x.len())];
            quantize(isa, x, &mut codes);
            codes
        };
        let (x, h) = (random.floats(dim), random.floats(hidden));
        let (codes, h_codes) = (quantized(&x), quantized(&h));
        Self { isa, format, dim, hidden, gate, up, down, by_neuron, x, codes, h, h_codes }
    }

    fn product(&self, bytes: &[u8], rows: usize, columns: usize) -> f64 {
        let weights = Weights::new(self.format, bytes, rows, columns).unwrap();
        let mut out = vec![0.0; rows];
        let mut panel = vec![PanelRun::ZERO; panel_runs(columns)];
        let mut floats = vec![FloatPanel::ZERO; FLOAT_PANELS];
        let (x, codes) = if columns == self.dim { (&self.x, &self.codes) } else { (&self.h, &self.h_codes) };
        let start = Instant::now();
        let view = MatrixMut::new(&mut out, rows);
        match self.format.is_quantized() {
            true => matmul(self.isa, weights, codes, view, &mut panel),
            false => matmul_f32(self.isa, weights, x, view, &mut floats),
        }
        start.elapsed().as_secs_f64()
    }

    /// Seconds of the two halves of a dense layer.
    fn dense(&self) -> [f64; 2] {
        let first =
            self.product(&self.gate, self.hidden, self.dim) + self.product(&self.up, self.hidden, self.dim);
        [first, self.product(&self.down, self.dim, self.hidden)]
    }

    /// Seconds of the two halves with these neurons.
    fn sparse(&self, active: &[u32]) -> [f64; 2] {
        let mut out = vec![0.0; active.len()];
        let start = Instant::now();
        for bytes in [&self.gate, &self.up] {
            let weights = Weights::new(self.format, bytes, self.hidden, self.dim).unwrap();
            match self.format.is_quantized() {
                true => matmul_rows(self.isa, weights, active, &self.codes, &mut out),
                false => matmul_rows_f32(self.isa, weights, active, &self.x, &mut out),
            }
        }
        let first = start.elapsed().as_secs_f64();
        let start = Instant::now();
        match &self.by_neuron {
            Down::Packed(layout, packed) => {
                let mut out = vec![0.0; layout.padded_outputs()];
                add_neurons(self.isa, layout, packed, active, &self.h_codes, &mut out);
            }
            Down::Rows(bytes) => {
                let mut out = vec![0.0; self.dim];
                let weights = Weights::new(self.format, bytes, self.hidden, self.dim).unwrap();
                let h: Vec<f32> = active.iter().map(|&n| self.h[n as usize]).collect();
                add_neurons_f32(self.isa, weights, active, &h, &mut out);
            }
        }
        [first, start.elapsed().as_secs_f64()]
    }
}

fn main() {
    let isa = std::env::var("FIRECREST_ISA").ok().and_then(|name| IsaKind::from_name(&name));
    let isa = isa.unwrap_or(IsaKind::best());
    println!("{isa}, one thread; times as fast as the layer with all neurons: gated, without a gate");
    for (format, dim, hidden) in
        [(Format::Q4_K, 4096, 11008), (Format::Q8_0, 4096, 11008), (Format::F32, 512, 2048)]
    {
        let layer = Layer::new(isa, format, dim, hidden);
        let mut random = Random::new(2);
        let active = SHARES
            .map(|share| -> Vec<u32> { (0..hidden as u32).filter(|_| random.below(100) < share).collect() });
        let mut dense = [f64::INFINITY; 2];
        let mut sparse = [[f64::INFINITY; 2]; SHARES.len()];
        let keep = |best: &mut [f64; 2], times: [f64; 2]| {
            best.iter_mut().zip(times).for_each(|(best, time)| *best = best.min(time));
        };
        for _ in 0..ROUNDS {
            keep(&mut dense, layer.dense());
            for (best, active) in sparse.iter_mut().zip(&active) {
                keep(best, layer.sparse(active));
            }
        }
        let rate = 3.0 * layer.down.len() as f64 / (dense[0] + dense[1]) / 1e9;
        println!(
            "{format} {dim} to {hidden}: all neurons {:.2} ms, {rate:.1} GB/s",
            (dense[0] + dense[1]) * 1e3
        );
        for (share, times) in SHARES.iter().zip(sparse) {
            let gated = (dense[0] + dense[1]) / (times[0] + times[1]);
            let plain = (dense[0] / 2.0 + dense[1]) / (times[0] / 2.0 + times[1]);
            println!(
                "  {share} % of the neurons: {gated:5.2}x, {plain:5.2}x; gate and up {:.2} of {:.2} ms, down {:.2} of {:.2}",
                times[0] * 1e3,
                dense[0] * 1e3,
                times[1] * 1e3,
                dense[1] * 1e3
            );
        }
    }
}
