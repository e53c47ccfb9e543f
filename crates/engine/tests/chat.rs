//! Chat templates render as in Hugging Face Transformers: `data/chat/golden.py` made the expectations with Jinja 2 itself.

use std::path::Path;

use firecrest::chat::{ChatInput, ChatTemplate, Message, Origin};
use serde_json::Value;

/// Control tokens of all the families.
const CONTROLS: [&str; 30] = [
    "<s>",
    "</s>",
    "<bos>",
    "<eos>",
    "[INST]",
    "[/INST]",
    "[TOOL_CALLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "<|im_start|>",
    "<|im_end|>",
    "<|begin_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "<BOS_TOKEN>",
    "<|START_OF_TURN_TOKEN|>",
    "<｜User｜>",
    "<｜Assistant｜>",
    "<｜end▁of▁sentence｜>",
];

/// The time in the expectations.
const NOW: i64 = 1_709_219_045;

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/chat").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn array(case: &Value, field: &str) -> Option<Vec<Value>> {
    case[field].as_array().cloned()
}

#[test]
fn templates_render_as_in_transformers() {
    let cases: Vec<Value> = serde_json::from_str(&read("golden.json")).expect("JSON");
    assert!(cases.len() > 50);
    let mut wrong = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let name = case["template"].as_str().expect("a name");
        let template = ChatTemplate::new(name, read(&format!("{name}.jinja"))).expect(name);
        let template = template.with_control_tokens(CONTROLS);
        let messages = array(case, "messages").expect("messages");
        let messages: Vec<Message> = messages.into_iter().map(|m| m.try_into().expect("a message")).collect();
        let (tools, documents) = (array(case, "tools"), array(case, "documents"));
        let mut input = ChatInput::new(&messages).with_now(NOW);
        input.tools = tools.as_deref();
        input.documents = documents.as_deref();
        input.add_generation_prompt = case["add_generation_prompt"] == true;
        input.variables = case["variables"].as_object().expect("variables").clone();

        match (template.render(&input), case["text"].as_str()) {
            (Ok(prompt), Some(expected)) => {
                if prompt.text() != expected {
                    wrong.push(format!("{index} {name}\n got {:?}\nwant {expected:?}", prompt.text()));
                }
                // Honest messages cost the template none of its control tokens.
                assert!(
                    prompt.segments().iter().all(|segment| segment.origin == Origin::Template),
                    "{index} {name}"
                );
            }
            (Err(_), None) => {}
            (got, want) => wrong.push(format!("{index} {name}\n got {got:?}\nwant {want:?}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
