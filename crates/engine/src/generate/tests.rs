//! The loop and the session, against a scripted model.

use proptest::prelude::*;

use super::fake::{FakeModel, Letters};
use super::*;

fn greedy() -> GenerationConfig {
    GenerationConfig::greedy()
}

/// A session whose model continues the prompt to `text`.
fn session(capacity: usize, text: &str) -> Session<FakeModel, Letters> {
    Session::new(FakeModel::new(capacity, &Letters::tokens(text)), Letters)
}

fn answer(text: &str, prompt: &str, config: &GenerationConfig) -> Output {
    session(64, text).generate(&Letters::tokens(prompt), config).expect("an answer")
}

#[test]
fn an_answer_ends_at_the_end_token() {
    let output = answer("hello.xx", "he", &greedy());
    assert_eq!(output.text, "llo");
    assert_eq!(output.tokens, Letters::tokens("llo."));
    assert_eq!(output.finish_reason, FinishReason::Stop);
    assert_eq!(output.stats.prompt_tokens, 2);
    assert_eq!(output.stats.generated_tokens, 4);
}

#[test]
fn a_stop_token_ends_without_its_text() {
    let output = answer("abcdef", "a", &greedy().with_stop_tokens(Letters::tokens("d")));
    assert_eq!((output.text.as_str(), output.finish_reason), ("bc", FinishReason::Stop));
}

#[test]
fn a_stop_string_ends_across_tokens() {
    let output = answer("abcdefg", "a", &greedy().with_stop(["zz", "de"]));
    assert_eq!((output.text.as_str(), output.finish_reason), ("bc", FinishReason::StopString));
    // What was held back for a stop string that did not come is shown with the end token.
    let output = answer("abcd.", "a", &greedy().with_stop(["cdx"]));
    assert_eq!((output.text.as_str(), output.finish_reason), ("bcd", FinishReason::Stop));
}

#[test]
fn max_tokens_counts() {
    let output = answer("abcdef", "a", &greedy().with_max_tokens(2));
    assert_eq!((output.text.as_str(), output.finish_reason), ("bc", FinishReason::Length));
    let output = answer("abcdef", "a", &greedy().with_max_tokens(0));
    assert_eq!((output.tokens.len(), output.finish_reason), (0, FinishReason::Length));
    // Cut within a character, and with text held back.
    let output = answer("ab€", "a", &greedy().with_max_tokens(3).with_stop(["bx"]));
    assert_eq!((output.text.as_str(), output.finish_reason), ("b\u{fffd}", FinishReason::Length));
}

#[test]
fn characters_are_streamed_whole() {
    let mut texts = Vec::new();
    let output = session(64, "ab€c.").generate_stream(&Letters::tokens("a"), &greedy(), |piece| {
        texts.push(piece.text.clone());
        true
    });
    assert_eq!(texts, ["b", "", "", "€", "c", ""]);
    assert_eq!(output.unwrap().text, "b€c");
}

#[test]
fn a_full_context_ends_the_answer() {
    let mut session = session(4, "abcdefgh");
    let output = session.generate(&Letters::tokens("ab"), &greedy()).unwrap();
    // Four positions hold "abcd"; the logits of the last give one more token.
    assert_eq!((output.text.as_str(), output.finish_reason), ("cde", FinishReason::ContextFull));
    let error = session.generate(&Letters::tokens("abcde"), &greedy()).unwrap_err();
    assert_eq!(error, GenerateError::PromptTooLong { tokens: 5, capacity: 4 });
}

#[test]
fn a_full_context_shifts_when_asked() {
    let config = greedy().with_context_overflow(ContextOverflow::Shift { keep: 1 });
    let mut session = session(5, "abcdefghijkl.");
    let output = session.generate(&Letters::tokens("ab"), &config).unwrap();
    assert_eq!((output.text.as_str(), output.finish_reason), ("cdefghijkl", FinishReason::Stop));
    assert_eq!(session.tokens(), session.model().cache);
    assert_eq!(session.tokens(), Letters::tokens("ajkl"));
    // The next prompt of the conversation is cut where the cache was, and only its new tokens are computed.
    let output = session.generate(&Letters::tokens("abcdefghijklm"), &config.with_max_tokens(1)).unwrap();
    assert_eq!((output.stats.discarded_tokens, output.stats.reused_tokens), (8, 4));
    assert_eq!(session.tokens(), Letters::tokens("ajklm"));
}

#[test]
fn a_context_too_small_to_shift_is_an_error() {
    let config = greedy().with_context_overflow(ContextOverflow::Shift { keep: 4 });
    let error = session(5, "abcdefgh").generate(&Letters::tokens("ab"), &config).unwrap_err();
    assert_eq!(error, GenerateError::CannotShift { keep: 4, capacity: 5 });
}

#[test]
fn a_session_computes_only_what_is_new() {
    let mut session = session(64, "abcd.fgh.");
    let first = session.generate(&Letters::tokens("ab"), &greedy()).unwrap();
    assert_eq!(first.stats.reused_tokens, 0);
    assert_eq!(session.tokens(), Letters::tokens("abcd"));

    let second = session.generate(&Letters::tokens("abcdz"), &greedy().with_max_tokens(1)).unwrap();
    assert_eq!(second.stats.reused_tokens, 4);
    assert_eq!(second.stats.prefilled_tokens(), 1);

    // A prompt that is cached whole still needs the logits of its last token.
    let third = session.generate(&Letters::tokens("abc"), &greedy().with_max_tokens(1)).unwrap();
    assert_eq!((third.stats.reused_tokens, third.text.as_str()), (2, "d"));

    let other = session.generate(&Letters::tokens("xyz"), &greedy().with_max_tokens(1)).unwrap();
    assert_eq!(other.stats.reused_tokens, 0);
    session.reset();
    assert!(session.tokens().is_empty() && session.model().is_empty());
}

#[test]
fn prefill_goes_in_blocks_and_can_be_cancelled_between() {
    let cancel = CancelToken::new();
    let mut model = FakeModel::new(64, &[]);
    model.cancel_at = Some((1, cancel.clone()));
    let mut session = Session::new(model, Letters);
    let prompt = Letters::tokens("abcdefghij");
    let config = greedy().with_prefill_block(4);
    let mut generation = session.generation(&prompt, &config).unwrap().with_cancel(cancel);
    assert!(generation.next().is_none());
    assert_eq!(generation.finish_reason(), Some(FinishReason::Cancelled));
    assert_eq!(session.tokens(), &prompt[..8]);

    session.generate(&prompt, &config).unwrap();
    assert_eq!(session.model().submitted[..3], [4, 4, 2]);
}

#[test]
fn a_callback_and_a_token_cancel_an_answer() {
    let mut seen = 0;
    let prompt = Letters::tokens("a");
    let output = session(64, "abcdef.").generate_stream(&prompt, &greedy(), |_| {
        seen += 1;
        seen < 2
    });
    let output = output.unwrap();
    assert_eq!((output.text.as_str(), output.finish_reason), ("bc", FinishReason::Cancelled));

    let cancel = CancelToken::new();
    let mut session = session(64, "abcdef.");
    let generation = session.generation(&prompt, &greedy()).unwrap().with_cancel(cancel.clone());
    let output = generation.run(|_| {
        cancel.cancel();
        true
    });
    assert_eq!(output.unwrap().finish_reason, FinishReason::Cancelled);
}

#[test]
fn a_failed_model_ends_the_iterator_and_leaves_the_session_usable() {
    let mut model = FakeModel::new(64, &Letters::tokens("abcdef."));
    model.fail_at = Some(0);
    let mut session = Session::new(model, Letters);
    let prompt = Letters::tokens("abcd");
    let config = greedy();
    let mut generation = session.generation(&prompt, &config).unwrap();
    assert_eq!(generation.next(), Some(Err(GenerateError::Forward(ForwardError::NoLogits))));
    assert_eq!(generation.next(), None);
    assert_eq!(generation.finish_reason(), None);
    assert_eq!(session.tokens(), session.model().cache);
    assert_eq!(session.tokens(), &prompt[..2]);

    assert_eq!(session.generate(&prompt, &config).unwrap().text, "ef");
}

#[test]
fn bad_prompts_and_options_are_errors() {
    let mut session = session(64, "");
    let mut error = |prompt: &[u32], config| session.generate(prompt, &config).unwrap_err();
    assert_eq!(error(&[], greedy()), GenerateError::EmptyPrompt);
    let out_of_range = ForwardError::TokenOutOfRange { id: 99, vocab: Letters::SIZE };
    assert_eq!(error(&[1, 99], greedy()), GenerateError::Forward(out_of_range));
    assert!(matches!(error(&[1], greedy().with_top_p(2.0)), GenerateError::Config(_)));
    assert!(matches!(error(&[1], greedy().with_logit_bias([(30, 1.0)])), GenerateError::Config(_)));
}

#[test]
fn logprobs_are_reported_when_asked_for() {
    let output = answer("abc.", "a", &greedy().with_logprobs(2));
    assert_eq!(output.logprobs.len(), 3);
    let b = &output.logprobs[0];
    assert_eq!((b.top[0], b.top.len()), ((Letters::tokens("b")[0], b.chosen), 2));
    // One logit of 10 among 29 of 0.
    let expected = -(1.0 + 29.0 * (-10f64).exp()).ln();
    assert!((b.chosen as f64 - expected).abs() < 1e-6);
    assert!(answer("abc.", "a", &greedy()).logprobs.is_empty());
}

#[test]
fn an_answer_can_be_made_step_by_step() {
    let config = greedy().with_prefill_block(2);
    let whole = answer("abcdefg.", "abcde", &config);
    for prefilled in 0..=4 {
        let mut session = session(64, "abcdefg.");
        let mut progress = session.begin(&Letters::tokens("abcde"), &config).unwrap();
        let left: Vec<_> = (0..prefilled).map(|_| progress.prefill(&mut session).unwrap()).collect();
        assert_eq!(left, [3, 1, 0, 0][..prefilled]);
        let mut text = String::new();
        while let Some(piece) = progress.next(&mut session) {
            text += &piece.unwrap().text;
        }
        assert_eq!((text.as_str(), progress.finish_reason()), ("fg", Some(FinishReason::Stop)));
        assert_eq!(progress.stats().generated_tokens, whole.stats.generated_tokens);
        assert!(progress.next(&mut session).is_none());
    }
}

#[test]
fn penalties_see_the_answer() {
    // The model would say b for ever; each b costs it 3 of its 10, until the first letter of logit 0 wins.
    let config = greedy().with_frequency_penalty(3.0).with_max_tokens(5);
    let output = answer("abbbbbbb", "a", &config);
    assert_eq!(output.tokens[..4], Letters::tokens("bbbb"));
    assert_ne!(output.tokens[4], Letters::tokens("b")[0]);
}

proptest! {
    #[test]
    fn streamed_pieces_are_the_answer(
        text in "[ab€]{0,20}\\.",
        stops in proptest::collection::vec("[ab€]{1,3}", 0..3),
        max_tokens in 1usize..40,
    ) {
        let config = greedy().with_stop(stops.clone()).with_max_tokens(max_tokens);
        let mut session = session(64, &format!("z{text}"));
        let mut streamed = String::new();
        let output = session
            .generate_stream(&Letters::tokens("z"), &config, |piece| {
                streamed.push_str(&piece.text);
                true
            })
            .unwrap();
        prop_assert_eq!(&streamed, &output.text);
        prop_assert!(stops.iter().all(|stop| !output.text.contains(stop.as_str())));
        let bytes: Vec<u8> = text.trim_end_matches('.').bytes().take(max_tokens).collect();
        let whole = String::from_utf8_lossy(&bytes);
        let first = stops.iter().filter_map(|stop| whole.find(stop).map(|at| (at + stop.len(), at))).min();
        prop_assert_eq!(&output.text, &whole[..first.map_or(whole.len(), |(_, start)| start)]);
        prop_assert_eq!(output.finish_reason == FinishReason::StopString, first.is_some());
    }
}
