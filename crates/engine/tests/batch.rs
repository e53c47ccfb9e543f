//! Sequences that decode together, against each alone.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use firecrest::backend::{Activations, KvFormat};
use firecrest::generate::{ForwardError, LanguageModel};
use firecrest::nn::{BatchDecoder, BatchError, SequenceId};
use firecrest::{ContextOptions, Model};

/// Positions that share a page.
const PAGE: usize = 64;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/archs")
}

fn model(name: &str) -> Model {
    Model::from_gguf_file(folder().join(format!("{name}.gguf"))).unwrap()
}

fn options(capacity: usize) -> ContextOptions {
    let mut options = ContextOptions::default();
    options.capacity = Some(capacity);
    options.cpu.threads = NonZero::new(2);
    options
}

fn exact(capacity: usize) -> ContextOptions {
    let mut options = options(capacity);
    options.kv_format = KvFormat::F32;
    options.cpu.activations = Activations::F32;
    options
}

/// Tokens that every tiny model has.
fn tokens(seed: usize, len: usize) -> Vec<u32> {
    (0..len).map(|i| ((i * i * 7 + i * 11 + seed * 13) % 59 + 1) as u32).collect()
}

/// The logits of a sequence alone after a prompt and after each further token.
fn alone(model: &Model, options: &ContextOptions, prompt: &[u32], further: &[u32]) -> Vec<Vec<f32>> {
    let mut decoder = model.decoder(options).unwrap();
    let mut all = Vec::new();
    for tokens in [prompt].into_iter().chain(further.chunks(1)) {
        decoder.submit(tokens).unwrap();
        all.push(decoder.logits().unwrap().to_vec());
    }
    all
}

/// Submits one more token to each.
fn step(decoder: &mut BatchDecoder, next: &[(SequenceId, u32)]) {
    let next: Vec<_> = next.iter().map(|&(id, token)| (id, [token])).collect();
    let batch: Vec<_> = next.iter().map(|(id, token)| (*id, &token[..])).collect();
    decoder.submit(&batch).unwrap();
}

#[track_caller]
fn assert_close(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len());
    let size = want.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    for (i, (a, b)) in got.iter().zip(want).enumerate() {
        assert!((a - b).abs() <= 1e-4 * size, "{what}, {i}: {a} not {b} of {size}");
    }
}

#[test]
fn every_architecture_computes_in_a_batch_what_it_does_alone() {
    let mut paths: Vec<_> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "gguf"));
    assert!(paths.len() > 40);
    for path in paths {
        let model = Model::from_gguf_file(&path).unwrap();
        let mut options = exact(48);
        // Prompts take several passes, with the end of one and the beginning of the next in the same.
        options.block = 16;
        let mut decoder = model.batch_decoder(&options, 5).unwrap();
        let prompts: Vec<_> = [9, 1, 20, 3, 17].map(|len| tokens(len, len)).into();
        let further: Vec<_> = (0..5).map(|i| tokens(100 + i, 6)).collect();
        let ids: Vec<_> = prompts.iter().map(|_| decoder.add()).collect();
        let batch: Vec<_> = ids.iter().copied().zip(prompts.iter().map(Vec::as_slice)).collect();
        decoder.submit(&batch).unwrap();
        let mut got: Vec<Vec<Vec<f32>>> =
            ids.iter().map(|&id| vec![decoder.logits(id).unwrap().to_vec()]).collect();
        for t in 0..6 {
            let next: Vec<_> = ids.iter().zip(&further).map(|(&id, further)| (id, further[t])).collect();
            step(&mut decoder, &next);
            for (got, &id) in got.iter_mut().zip(&ids) {
                got.push(decoder.logits(id).unwrap().to_vec());
            }
        }
        for (i, got) in got.iter().enumerate() {
            let want = alone(&model, &options, &prompts[i], &further[i]);
            for (t, (got, want)) in got.iter().zip(&want).enumerate() {
                assert_close(got, want, &format!("{} sequence {i} step {t}", path.display()));
            }
        }
    }
}

/// Fewer than four tokens go through the same kernels as one.
#[test]
fn small_batches_are_equal_to_the_last_bit() {
    for name in ["llama3", "llama-256-Q4_K_M", "gemma2", "lfm2", "qwen3moe"] {
        let model = model(name);
        for format in [KvFormat::F16, KvFormat::Q8_0] {
            let mut options = options(256);
            options.kv_format = format;
            let mut decoder = model.batch_decoder(&options, 3).unwrap();
            let ids = [(); 3].map(|()| decoder.add());
            let (prompts, further) =
                ([0, 1, 2].map(|i| tokens(i, 60 + i)), [0, 1, 2].map(|i| tokens(50 + i, 10)));
            for (&id, prompt) in ids.iter().zip(&prompts) {
                decoder.submit(&[(id, prompt)]).unwrap();
            }
            let want: Vec<_> = (0..3).map(|i| alone(&model, &options, &prompts[i], &further[i])).collect();
            for t in 0..10 {
                step(&mut decoder, &[0, 1, 2].map(|i| (ids[i], further[i][t])));
                for i in 0..3 {
                    assert_eq!(decoder.logits(ids[i]).unwrap(), want[i][t + 1], "{name} {format:?} {i} {t}");
                }
            }
        }
    }
}

/// A token behind many attends to parts of them, in tasks of their own; several tokens to all at once.
#[test]
fn parts_of_a_long_context_make_the_whole_whatever_the_threads() {
    for name in ["llama3", "gemma2", "bloom", "qwen3moe"] {
        let model = model(name);
        for len in [129, 256, 700] {
            let prompt = tokens(len, len);
            let (most, last) = prompt.split_at(len - 1);
            let [one, several] = [1, 3].map(|threads| {
                let mut options = exact(1024);
                options.cpu.threads = NonZero::new(threads);
                options.block = 1024;
                let whole = alone(&model, &options, &prompt, &[]).remove(0);
                let parts = alone(&model, &options, most, last).remove(1);
                assert_close(&parts, &whole, &format!("{name}, {len} tokens, {threads} threads"));
                parts
            });
            assert_eq!(one, several, "{name}, {len} tokens");
        }
    }
}

#[test]
fn forks_are_as_sequences_of_their_own_and_do_not_touch_each_other() {
    // Keys and values in whole pages and a begun one; with a window, and with convolutions.
    for (name, format) in [
        ("llama3", KvFormat::F16),
        ("llama3", KvFormat::Q8_0),
        ("gemma2", KvFormat::F32),
        ("lfm2", KvFormat::F16),
    ] {
        let model = model(name);
        for len in [2 * PAGE, 2 * PAGE + 22] {
            let mut options = options(256);
            options.kv_format = format;
            let prefix = tokens(7, len);
            let mut decoder = model.batch_decoder(&options, 4).unwrap();
            let parent = decoder.add();
            decoder.submit(&[(parent, &prefix)]).unwrap();
            let forks = [(); 2].map(|()| decoder.fork(parent).unwrap());
            let ids = [parent, forks[0], forks[1]];
            assert_eq!(decoder.logits(forks[1]).unwrap(), decoder.logits(parent).unwrap());
            assert_eq!(decoder.len(forks[1]), Ok(len));

            let further = [0, 1, 2].map(|i| tokens(i, PAGE));
            let want: Vec<_> = (0..3).map(|i| alone(&model, &options, &prefix, &further[i])).collect();
            // The last one goes first, alone; its writes are in pages that the others read.
            for t in 0..PAGE {
                step(&mut decoder, &[(ids[2], further[2][t])]);
                assert_eq!(decoder.logits(ids[2]).unwrap(), want[2][t + 1], "{name} {len} {t}");
            }
            for t in 0..PAGE {
                step(&mut decoder, &[(ids[0], further[0][t]), (ids[1], further[1][t])]);
                for i in [0, 1] {
                    assert_eq!(decoder.logits(ids[i]).unwrap(), want[i][t + 1], "{name} {len} {i} {t}");
                }
            }
            // A fork that goes back leaves the other what it had.
            let fork = decoder.fork(parent).unwrap();
            let kept = decoder.truncate(fork, len).unwrap();
            assert!(kept <= len && kept + 32 > len, "{kept}");
            decoder.submit(&[(fork, &tokens(90, 40))]).unwrap();
            step(&mut decoder, &[(parent, 5)]);
            let longer = [&prefix, &further[0][..]].concat();
            let want = alone(&model, &options, &prefix, &[&further[0][..], &[5]].concat());
            assert_eq!(decoder.logits(parent).unwrap(), want.last().unwrap(), "{name} {}", longer.len());
            // Nor does it matter that the parent is gone.
            decoder.remove(parent).unwrap();
            step(&mut decoder, &[(ids[1], 6)]);
            let want = alone(&model, &options, &prefix, &[&further[1][..], &[6]].concat());
            assert_eq!(decoder.logits(ids[1]).unwrap(), want.last().unwrap(), "{name}");
        }
    }
}

#[test]
fn forks_of_a_long_prefix_take_the_memory_of_one() {
    let model = model("llama3");
    let mut decoder = model.batch_decoder(&options(1024), 3).unwrap();
    assert_eq!((decoder.cache_bytes(), decoder.free_positions()), (0, 3 * 1024));
    let parent = decoder.add();
    decoder.submit(&[(parent, &tokens(1, 1000))]).unwrap();
    let one = decoder.cache_bytes();
    let page = one / 1000u64.div_ceil(PAGE as u64);
    assert_eq!(decoder.free_positions(), 2 * 1024);
    let forks: Vec<_> = (0..20).map(|_| decoder.fork(parent).unwrap()).collect();
    assert_eq!(decoder.cache_bytes(), one);
    // Each copies the page that is begun; the last one to write keeps it.
    let next: Vec<_> = forks.iter().map(|&id| (id, 3)).chain([(parent, 4)]).collect();
    step(&mut decoder, &next);
    assert_eq!(decoder.cache_bytes(), one + 20 * page);
    assert!(decoder.cache_bytes() < 3 * one);
    forks.iter().for_each(|&id| decoder.remove(id).unwrap());
    assert_eq!(decoder.cache_bytes(), one);
    decoder.truncate(parent, 100).unwrap();
    assert_eq!(decoder.cache_bytes(), 2 * page);
    decoder.remove(parent).unwrap();
    assert_eq!((decoder.cache_bytes(), decoder.sequences().len()), (0, 0));
}

#[test]
fn errors_name_the_sequence_and_change_nothing() {
    let model = model("llama3");
    let mut decoder = model.batch_decoder(&options(PAGE), 2).unwrap();
    let (a, b, c) = (decoder.add(), decoder.add(), decoder.add());
    let forward = |id, source| Err(BatchError::Forward { id, source });
    assert_eq!(decoder.submit(&[]), Err(BatchError::Empty));
    assert_eq!(decoder.logits(a), forward(a, ForwardError::NoLogits).map(|()| &[][..]));
    assert_eq!(decoder.submit(&[(a, &[1]), (b, &[])]), forward(b, ForwardError::EmptyInput));
    assert_eq!(
        decoder.submit(&[(a, &[1]), (b, &[2]), (a, &[3])]),
        Err(BatchError::RepeatedSequence { id: a })
    );
    let vocab = decoder.vocab_size();
    let out_of_range = ForwardError::TokenOutOfRange { id: vocab as u32, vocab };
    assert_eq!(decoder.submit(&[(b, &[vocab as u32])]), forward(b, out_of_range));
    let full = ForwardError::ContextFull { capacity: PAGE, requested: PAGE + 1 };
    assert_eq!(decoder.submit(&[(a, &[1]), (b, &tokens(0, PAGE + 1))]), forward(b, full));

    // Two pages for three sequences.
    let both = Err(BatchError::CacheFull { positions: 2 * PAGE, free: 2 * PAGE, requested: 3 });
    assert_eq!(decoder.submit(&[(a, &[1]), (b, &[2]), (c, &[3])]), both);
    assert_eq!((decoder.len(a), decoder.free_positions()), (Ok(0), 2 * PAGE));
    decoder.submit(&[(a, &[1, 2]), (b, &[2])]).unwrap();
    let logits = decoder.logits(a).unwrap().to_vec();
    let last = Err(BatchError::CacheFull { positions: 2 * PAGE, free: 0, requested: 2 });
    assert_eq!(decoder.submit(&[(a, &[3]), (c, &[3])]), last);
    assert_eq!((decoder.len(a), decoder.logits(a)), (Ok(2), Ok(&logits[..])));
    // A fork needs a page of its own to go on, and what is shared stays whole.
    let fork = decoder.fork(a).unwrap();
    assert!(matches!(decoder.submit(&[(fork, &[9])]), Err(BatchError::CacheFull { free: 0, .. })));
    decoder.remove(b).unwrap();
    decoder.submit(&[(fork, &[9])]).unwrap();
    assert_eq!(decoder.submit(&[(a, &[3])]), Ok(()));
    let mut alone = model.decoder(&options(PAGE)).unwrap();
    alone.submit(&[1, 2]).unwrap();
    alone.submit(&[3]).unwrap();
    assert_eq!(decoder.logits(a).unwrap(), alone.logits().unwrap());

    for gone in [
        decoder.submit(&[(b, &[1])]),
        decoder.remove(b),
        decoder.truncate(b, 0).map(|_| ()),
        decoder.fork(b).map(|_| ()),
    ] {
        assert_eq!(gone, Err(BatchError::UnknownSequence { id: b }));
    }
    // Its name is not given away again.
    assert!(decoder.add() > fork);
}
