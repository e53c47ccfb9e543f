//! Talks with a chat model: answers appear as they are generated, and each turn computes only what is new.
//!
//! ```text
//! cargo run --release --example chat_streaming -- model.gguf
//! ```

use std::error::Error;
use std::io::{self, BufRead, Write};

use firecrest::chat::{ChatInput, Message};
use firecrest::tokenizer::EncodeOptions;
use firecrest::{ContextOptions, GenerationConfig, Model};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: chat_streaming MODEL.gguf < QUESTIONS")?;
    let model = Model::from_gguf_file(path)?;
    let template = model.chat_template()?.ok_or("the model has no chat template")?;
    let config = GenerationConfig::default().with_max_tokens(256);

    // The session keeps the KV cache, and with it all that the last prompt and answer have in common with the next.
    let mut session = model.session(&ContextOptions::default())?;
    let mut messages = Vec::new();
    for line in io::stdin().lock().lines() {
        messages.push(Message::user(line?));
        let prompt = template.render(&ChatInput::new(&messages))?;
        let tokens = prompt.encode(|text, parse_special| {
            model.tokenizer().encode(text, EncodeOptions { add_special: false, parse_special })
        });
        let answer = session.generate_stream(&tokens, &config, |piece| {
            print!("{}", piece.text);
            io::stdout().flush().is_ok() // false ends the answer
        })?;
        println!();
        eprintln!("({} of {} prompt tokens reused)", answer.stats.reused_tokens, answer.stats.prompt_tokens);
        messages.push(Message::assistant(answer.text));
    }
    Ok(())
}
