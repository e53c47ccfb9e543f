//! One feed-forward layer with fewer and fewer of its neurons: how fast, and how far from the whole.
//!
//! ```text
//! cargo run --release --example sparse_layer
//! ```

use std::error::Error;
use std::time::Instant;

use firecrest::sparse::{ActivationType, SparseFfn, SparsityConfig};

fn main() -> Result<(), Box<dyn Error>> {
    let ffn = SparseFfn::new(1024, 4096, 1024, ActivationType::Silu)?;
    let input: Vec<f32> = (0..1024).map(|i| (i as f32 * 0.37).sin()).collect();
    let dense = ffn.forward_dense(&input)?;
    // Knowing the activations already, the best choice there is.
    let magnitudes: Vec<f32> = ffn.activations(&input)?.iter().map(|h| h.abs()).collect();

    println!("neurons  microseconds  error");
    for sparsity in [0.0, 0.3, 0.5, 0.7, 0.9] {
        let active = SparsityConfig::with_target_sparsity(sparsity).select(&magnitudes);
        let started = Instant::now();
        let output = ffn.forward_sparse(&input, &active)?;
        let time = started.elapsed();
        let error: f32 = output.iter().zip(&dense).map(|(a, b)| (a - b).powi(2)).sum();
        let size: f32 = dense.iter().map(|x| x * x).sum();
        println!("{:7}  {:12}  {:.4}", active.len(), time.as_micros(), (error / size).sqrt());
    }
    Ok(())
}
