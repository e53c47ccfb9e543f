//! Fits a predictor to a layer, tells how good it is on inputs that it has not seen, and keeps it in a file.
//!
//! ```text
//! cargo run --release --example sparse_calibration -- [model.gguf LAYER]
//! ```

use std::error::Error;

use firecrest::gguf::Gguf;
use firecrest::sparse::{LowRankPredictor, NeuronPredictor, SparseInferenceEngine};

/// Inputs that lie near a few directions, as those of real models do.
fn inputs(count: usize, dim: usize) -> Vec<Vec<f32>> {
    let value = |i: usize, j: usize| {
        let phases = [(i * 7 % 31, 0.11), (i * 13 % 37, 0.07), (i * 5 % 29, 0.19)];
        phases.iter().map(|&(amount, step)| amount as f32 / 30.0 * (j as f32 * step).sin()).sum()
    };
    (0..count).map(|i| (0..dim).map(|j| value(i, j)).collect()).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mut engine = match (args.next(), args.next()) {
        (Some(path), Some(layer)) => {
            SparseInferenceEngine::from_gguf(&Gguf::open(path)?, layer.parse()?, 0.7)?
        }
        _ => SparseInferenceEngine::new_sparse(256, 1024, 0.7)?,
    };
    let samples = inputs(400, engine.ffn().input_dim());
    let (fit, unseen) = samples.split_at(300);
    println!("on what it has seen:     {:?}", engine.calibrate(fit)?);

    let activations = unseen.iter().map(|x| engine.ffn().activations(x)).collect::<Result<Vec<_>, _>>()?;
    let predictor = engine.predictor().ok_or("no predictor")?;
    println!("on what it has not seen: {:?}", predictor.evaluate(unseen, &activations)?);

    let path = std::env::temp_dir().join("layer.predictor");
    predictor.save(&path)?;
    assert_eq!(&LowRankPredictor::load(&path)?, predictor);
    println!("kept in {}", path.display());

    for input in unseen {
        engine.infer(input)?;
    }
    println!("{:?}", engine.sparsity_stats());
    Ok(())
}
