//! `chat` with messages from a pipe.

use serde_json::{Value, json};

use crate::support::{Folder, Ran, command, on_tiny, with_input};

fn chat(args: &[&str], input: &str) -> Ran {
    let args = [&["chat", "--temperature", "0", "-n", "4", "--chat-template", "chatml"], args].concat();
    with_input(command(on_tiny(&args)), input)
}

#[test]
fn each_line_gets_an_answer_and_the_conversation_is_kept() {
    let folder = Folder::new();
    let saved = folder.path().join("saved.json");
    let save = saved.display();
    let ran = chat(&["--system", "Be kind."], &format!("the cat\n\n//usr \\\nsat\n/save {save}\n"));
    assert_eq!(ran.stderr, "");
    let messages: Value = serde_json::from_str(&std::fs::read_to_string(&saved).unwrap()).unwrap();
    let part = |i: usize, field: &str| messages[i][field].as_str().unwrap().to_owned();
    let roles: Vec<_> = (0..5).map(|i| part(i, "role")).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    assert_eq!(messages.as_array().unwrap().len(), 5);
    assert_eq!(
        [part(0, "content"), part(1, "content"), part(3, "content")],
        ["Be kind.", "the cat", "/usr \nsat"]
    );
    let line = |text: String| if text.ends_with('\n') { text } else { text + "\n" };
    assert_eq!(ran.ok(), line(part(2, "content")) + &line(part(4, "content")));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing but the saved file");
}

#[test]
fn conversations_are_loaded_and_reset() {
    let folder = Folder::new();
    let said = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
    ]);
    let before = folder.file("before.json", said.to_string());
    let (all, none) = (folder.path().join("all.json"), folder.path().join("none.json"));
    let input = format!(
        "/load {}\n/system\n/save {}\n/reset\n/system Be long.\n/save {}\n/quit\nnot answered\n",
        before.display(),
        all.display(),
        none.display()
    );
    assert_eq!(chat(&[], &input).ok(), "Be brief.\n");
    let read = |path| serde_json::from_str::<Value>(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(read(&all), said);
    assert_eq!(read(&none), json!([{"role": "system", "content": "Be long."}]));
    let ran = chat(&["--load", all.to_str().unwrap()], "/system\n");
    assert_eq!(ran.ok(), "Be brief.\n");
}

#[test]
fn later_turns_reuse_the_cache() {
    let ran = chat(&["--stats"], "the cat\nthe mat\n/stats\n");
    let lines: Vec<_> = ran.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{ran:?}");
    assert!(!lines[0].contains("reused") && lines[1].contains("reused"), "{lines:?}");
    assert!(ran.ok().contains("ended by: length"));
}

#[test]
fn what_is_wrong_is_told() {
    assert!(chat(&[], "/help\n").ok().contains("/system TEXT"));
    assert!(chat(&[], "/dance\n").failed(1).contains("no command /dance"));
    assert!(chat(&[], "/load /no/such/file\n").failed(1).contains("can't read /no/such/file"));
    let folder = Folder::new();
    let wrong = folder.file("wrong.json", r#"[{"content": "who?"}]"#);
    assert!(
        chat(&["--load", wrong.to_str().unwrap()], "").failed(1).contains("wrong.json is not a conversation")
    );
    let ran = with_input(command(on_tiny(&["chat"])), "hi\n");
    assert!(ran.failed(2).contains("no chat template") && ran.stderr.contains("chatml"), "{}", ran.stderr);
}
