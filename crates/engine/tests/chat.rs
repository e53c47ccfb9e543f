//! Chat templates render as in Hugging Face Transformers: `data/chat/golden.py` made the expectations with Jinja 2 itself.

use std::path::Path;

use firecrest::chat::{ChatInput, ChatTemplate, Message, Origin};
use serde_json::Value;

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
                assert!(prompt.segments().iter().all(|segment| segment.origin == Origin::Template));
            }
            (Err(_), None) => {}
            (got, want) => wrong.push(format!("{index} {name}\n got {got:?}\nwant {want:?}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
