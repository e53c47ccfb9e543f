//! Weights in fewer bits, and a layer made of them.
//!
//! ```text
//! cargo run --release --example sparse_quantized
//! ```

use std::error::Error;

use firecrest::gguf::Format;
use firecrest::memory::QuantizedWeights;
use firecrest::sparse::{ActivationType, SparseFfn, WeightMatrix};

fn main() -> Result<(), Box<dyn Error>> {
    let (dim, hidden) = (256, 1024);
    let weights: Vec<f32> =
        (0..dim * hidden).map(|i| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) * 0.1).collect();

    for (name, form) in [
        ("F16", QuantizedWeights::quantize_f16(&weights)),
        ("Int8", QuantizedWeights::quantize_int8(&weights)),
        ("Int4 in groups of 32", QuantizedWeights::quantize_int4(&weights, 32)),
    ] {
        let back = form.dequantize_row(0);
        let error = weights.iter().zip(&back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{name}: {} bytes, largest error {error:.5}", form.size_bytes());
    }

    let input: Vec<f32> = (0..dim).map(|i| (i as f32 * 0.1).cos()).collect();
    let layer = |format| -> Result<Vec<f32>, Box<dyn Error>> {
        let first = WeightMatrix::quantize(format, &weights, hidden, dim)?;
        let second = WeightMatrix::quantize(format, &weights, dim, hidden)?;
        let ffn = SparseFfn::from_weights(None, first, second, ActivationType::Relu)?;
        Ok(ffn.forward_dense(&input)?)
    };
    let exact = layer(Format::F32)?;
    for format in [Format::F16, Format::Q8_0, Format::Q4_1, Format::Q4_0] {
        let output = layer(format)?;
        let error: f32 = output.iter().zip(&exact).map(|(a, b)| (a - b).powi(2)).sum();
        let size: f32 = exact.iter().map(|x| x * x).sum();
        println!("a layer in {format}: error {:.4}", (error / size).sqrt());
    }
    Ok(())
}
