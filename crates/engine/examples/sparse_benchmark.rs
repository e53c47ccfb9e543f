//! Times a layer with some of its neurons against the layer with all of them, in turns.
//!
//! ```text
//! cargo run --release --example sparse_benchmark -- [INPUT HIDDEN]
//! ```

use std::error::Error;
use std::time::{Duration, Instant};

use firecrest::sparse::{ActivationType, SparseFfn};

const ROUNDS: usize = 20;

fn main() -> Result<(), Box<dyn Error>> {
    let sizes = std::env::args().skip(1).map(|arg| arg.parse()).collect::<Result<Vec<usize>, _>>()?;
    let (input, hidden) = match sizes[..] {
        [input, hidden] => (input, hidden),
        _ => (512, 2048),
    };
    let ffn = SparseFfn::new(input, hidden, input, ActivationType::Relu)?;
    let x: Vec<f32> = (0..input).map(|i| (i as f32 * 0.37).sin()).collect();
    println!("{input} to {hidden} and back");
    for percent in [10, 30, 50, 70, 100] {
        // Spread over the layer, which is the worst case for memory.
        let active: Vec<usize> = (0..hidden).filter(|n| n * 7919 % 100 < percent).collect();
        let mut best = [Duration::MAX; 2];
        for _ in 0..ROUNDS {
            let started = Instant::now();
            ffn.forward_dense(&x)?;
            best[0] = best[0].min(started.elapsed());
            let started = Instant::now();
            ffn.forward_sparse(&x, &active)?;
            best[1] = best[1].min(started.elapsed());
        }
        let [dense, sparse] = best;
        println!(
            "{percent:3} % of the neurons: {sparse:9.1?}, all {dense:9.1?}, {:.2} times as fast",
            dense.as_secs_f64() / sparse.as_secs_f64()
        );
    }
    Ok(())
}
