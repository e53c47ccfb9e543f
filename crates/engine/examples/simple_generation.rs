//! Continues a text.
//!
//! ```text
//! cargo run --release --example simple_generation -- model.gguf "Once upon a time"
//! ```

use std::error::Error;

use firecrest::{GenerationConfig, Model};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: simple_generation MODEL.gguf [PROMPT]")?;
    let prompt = args.next().unwrap_or_else(|| "Once upon a time".to_owned());

    let model = Model::from_gguf_file(path)?;
    let config = GenerationConfig::default().with_max_tokens(64).with_seed(42);
    let output = model.generate(&prompt, &config)?;
    println!("{prompt}{}", output.text);

    let speed = output.stats.decode_tokens_per_second().unwrap_or_default();
    eprintln!("{} tokens, {speed:.1} tokens/s, ended by {}", output.tokens.len(), output.finish_reason);
    Ok(())
}
