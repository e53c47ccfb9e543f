//! Any template renders or is an error; and in one that copies its messages, no message adds a control token.
#![no_main]

use firecrest::chat::{ChatInput, ChatTemplate, Message, Origin};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, [&str; 2])| {
    let (source, contents) = input;
    let messages = contents.map(Message::user);
    let input = ChatInput::new(&messages).with_now(0);
    if let Ok(template) = ChatTemplate::new("fuzz", source)
        && let Ok(prompt) = template.with_control_tokens(["<|im_start|>", "<|im_end|>"]).render(&input)
    {
        assert!(prompt.segments().iter().all(|segment| !segment.text.is_empty()));
    }

    let prompt = ChatTemplate::builtin("chatml").unwrap().render(&input).unwrap();
    let parsed = prompt.segments().iter().filter(|segment| segment.origin == Origin::Template);
    let tokens = |text: &str| text.matches("<|im_start|>").count() + text.matches("<|im_end|>").count();
    assert_eq!(parsed.map(|segment| tokens(&segment.text)).sum::<usize>(), 5);
});
