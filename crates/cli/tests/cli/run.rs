//! `run`: the text, where it goes, and how it ends.

use std::io::Read;

use firecrest::{GenerationConfig, Model};

use crate::support::{Folder, command, firecrest, on_tiny, tiny, wait, with_input};

const PROMPT: &str = "the cat sat on the red mat!";

fn expected(tokens: usize) -> String {
    let config = GenerationConfig::greedy().with_max_tokens(tokens);
    Model::from_gguf_file(tiny()).unwrap().generate(PROMPT, &config).unwrap().text
}

#[test]
fn stdout_is_the_text_alone_and_stderr_one_line_of_speeds() {
    let ran = firecrest(on_tiny(&["run", "--temperature", "0", "--max-tokens", "12", PROMPT]));
    assert_eq!(ran.ok(), expected(12));
    assert!(!ran.stdout.is_empty());
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.starts_with("prompt: 9 tokens, ") && ran.stderr.contains("answer: 12 tokens, "));
}

#[test]
fn the_prompt_comes_from_arguments_a_file_or_stdin() {
    let greedy = |rest: &[&str]| on_tiny(&[&["run", "--temperature", "0", "-n", "6"], rest].concat());
    let folder = Folder::new();
    let file = folder.file("prompt.txt", format!("{PROMPT}\n"));
    let words: Vec<_> = PROMPT.split(' ').collect();
    assert_eq!(firecrest(greedy(&words)).ok(), expected(6));
    assert_eq!(firecrest(greedy(&["--file", file.to_str().unwrap()])).ok(), expected(6));
    assert_eq!(with_input(command(greedy(&[])), PROMPT).ok(), expected(6));
    assert_eq!(with_input(command(greedy(&["-f", "-"])), PROMPT).ok(), expected(6));
}

#[test]
fn a_seed_makes_the_text_repeat() {
    let text = |seed: &str| {
        firecrest(on_tiny(&["run", "-n", "16", "--temperature", "3", "--seed", seed, PROMPT])).ok().to_owned()
    };
    assert_eq!(text("1"), text("1"));
    assert_ne!(text("1"), text("2"));
}

#[test]
fn chat_templates_make_messages_of_prompts() {
    let folder = Folder::new();
    let template =
        folder.file("plain.jinja", "{% for m in messages %}{{ m.content }} sat on {% endfor %}the red mat!");
    let ran = firecrest(on_tiny(&[
        "run",
        "--temperature",
        "0",
        "-n",
        "4",
        "--chat-template",
        template.to_str().unwrap(),
        "the cat",
    ]));
    // The template writes no beginning of sequence, which a plain text gets.
    let tokens = firecrest(on_tiny(&["tokenize", "--ids", PROMPT])).ok().trim().split(',').count();
    assert!(ran.stderr.starts_with(&format!("prompt: {tokens} tokens")), "{}", ran.stderr);
    let broken = folder.file("broken.jinja", "{% for %}");
    let ran = firecrest(on_tiny(&["run", "--chat-template", broken.to_str().unwrap(), "hi"]));
    assert!(ran.failed(1).contains("broken.jinja, line 1"), "{}", ran.stderr);
}

#[test]
fn log_probabilities_are_lines_of_json() {
    let ran = firecrest(on_tiny(&["run", "--temperature", "0", "-n", "3", "--logprobs", "2", PROMPT]));
    assert_eq!(ran.ok(), expected(3));
    let lines: Vec<serde_json::Value> =
        ran.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    for line in &lines {
        crate::support::assert_fields(line, &["token", "text", "logprob", "top"]);
        assert_eq!(line["top"].as_array().unwrap().len(), 2);
        assert_eq!(line["top"][0][0], line["token"], "greedy takes the likeliest");
        assert!(line["logprob"].as_f64().unwrap() <= 0.0);
    }
}

#[test]
fn stats_tell_more() {
    let ran =
        firecrest(on_tiny(&["run", "--temperature", "0", "-n", "3", "--stats", "--threads", "1", PROMPT]));
    assert_eq!(ran.ok(), expected(3));
    for part in ["ended by: length", "loading: ", "context: 11 of 256", "threads: 1, ", "read per token: "] {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
}

#[test]
fn a_prompt_longer_than_the_context_is_an_error_or_shifts() {
    let args =
        |rest: &[&str]| on_tiny(&[&["run", "--temperature", "0", "-n", "20", "--ctx", "8"], rest].concat());
    let ran = firecrest(args(&[PROMPT]));
    let message = ran.failed(1);
    assert!(
        message.contains("9 tokens") && message.contains("holds 8") && message.contains("--ctx"),
        "{message}"
    );
    assert_eq!(message.lines().count(), 1);
    let ran = firecrest(args(&["--context-overflow", "shift", PROMPT]));
    assert!(ran.ok().len() > 1 && ran.stderr.contains("answer: 20 tokens"), "{ran:?}");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let endless = ["run", "--temperature", "0", "--context-overflow", "shift", "--ctx", "32", PROMPT];
    let mut child = command(on_tiny(&endless)).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 4]).unwrap();
    drop(stdout);
    let ran = wait(child);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_answer_cleanly() {
    let endless = ["run", "--temperature", "0", "--context-overflow", "shift", "--ctx", "32", PROMPT];
    let mut child = command(on_tiny(&endless)).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 4]).unwrap();
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let ran = wait(child);
    assert_eq!(ran.code, Some(130));
    assert!(ran.stderr.starts_with("prompt: 9 tokens"), "the speeds come all the same: {}", ran.stderr);
}
