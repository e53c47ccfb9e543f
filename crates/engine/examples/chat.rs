//! Asks a chat model one question: its own chat template makes the prompt.
//!
//! ```text
//! cargo run --release --example chat -- model.gguf "Why is the sky blue?"
//! ```

use std::error::Error;

use firecrest::chat::{ChatInput, Message};
use firecrest::tokenizer::EncodeOptions;
use firecrest::{ContextOptions, GenerationConfig, Model};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: chat MODEL.gguf [QUESTION]")?;
    let question = args.next().unwrap_or_else(|| "Why is the sky blue?".to_owned());

    let model = Model::from_gguf_file(path)?;
    let template = model.chat_template()?.ok_or("the model has no chat template")?;
    let messages = [Message::system("Answer in one sentence."), Message::user(question)];
    let prompt = template.render(&ChatInput::new(&messages))?;
    // Only what the template wrote may hold control tokens; what the user wrote is text, whatever it looks like.
    let tokens = prompt.encode(|text, parse_special| {
        model.tokenizer().encode(text, EncodeOptions { add_special: false, parse_special })
    });

    let mut session = model.session(&ContextOptions::default())?;
    let answer = session.generate(&tokens, &GenerationConfig::default().with_max_tokens(128))?;
    println!("{}", answer.text);
    Ok(())
}
