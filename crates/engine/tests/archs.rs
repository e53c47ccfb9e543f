//! Tiny models of each architecture against logits that another implementation computed.
//!
//! `data/archs` holds one or more of each architecture, made by `make.py` beside them; where the environment variable
//! `FIRECREST_REF` names a folder with further ones, those are checked too. Each is `NAME.gguf`, `NAME.json` (`ids`,
//! `greedy_16`) and `NAME.logits.f32` (`[tokens, vocab]`).

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use firecrest::backend::{Activations, CpuOptions, IsaKind, KvFormat};
use firecrest::generate::LanguageModel;
use firecrest::gguf::{Format, Metadata, Writer};
use firecrest::{ContextOptions, LoadError, Model};

struct Case {
    name: String,
    model: Model,
    ids: Vec<u32>,
    greedy: Vec<u32>,
    /// `[ids, vocab]`.
    logits: Vec<f32>,
    quantized: bool,
}

fn cases() -> Vec<Case> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/archs")];
    folders.extend(std::env::var_os("FIRECREST_REF").map(|folder| PathBuf::from(folder).join("archs")));
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let paths = paths.into_iter().filter(|path| path.extension().is_some_and(|e| e == "gguf"));
    paths.map(|path| load(&path)).collect()
}

fn load(path: &Path) -> Case {
    let name = path.file_stem().unwrap().to_str().unwrap().to_string();
    let model = Model::from_gguf_file(path).unwrap_or_else(|e| panic!("{name}: {e}"));
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(path.with_extension("json")).unwrap()).unwrap();
    let numbers = |value: &serde_json::Value| -> Vec<u32> {
        value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
    };
    let logits = fs::read(path.with_extension("logits.f32")).unwrap();
    Case {
        quantized: name.starts_with("llama-256-"),
        ids: numbers(&json["ids"]),
        greedy: json.get("greedy_16").map(numbers).unwrap_or_default(),
        logits: logits.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        name,
        model,
    }
}

fn options(activations: Activations, kv: KvFormat) -> ContextOptions {
    let mut options = ContextOptions::default();
    options.capacity = Some(128);
    options.kv_format = kv;
    options.cpu.activations = activations;
    options
}

fn all_logits(model: &Model, options: &ContextOptions, ids: &[u32]) -> Vec<f32> {
    let mut decoder = model.decoder(options).unwrap();
    let mut out = Vec::new();
    decoder
        .submit_all(ids, |position, logits| {
            assert_eq!(position * logits.len(), out.len());
            out.extend_from_slice(logits);
        })
        .unwrap();
    out
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn rms_difference(a: &[f32], b: &[f32]) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (sum / a.len() as f64).sqrt()
}

#[test]
fn exact_activations_give_the_reference_logits() {
    for case in cases() {
        let got = all_logits(&case.model, &options(Activations::F32, KvFormat::F32), &case.ids);
        let difference = largest_difference(&got, &case.logits);
        assert!(difference < 2e-4, "{}: logits differ by {difference}", case.name);
    }
}

#[test]
fn every_architecture_has_a_case() {
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", "no-such-thing");
    let mut bytes = Vec::new();
    Writer::with_metadata(metadata).write(&mut bytes).unwrap();
    let error = Model::from_gguf_bytes(bytes).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("no-such-thing"), "{message}");
    let LoadError::UnknownArchitecture { known, .. } = error else { panic!("{message}") };
    assert!(known.len() >= 25);
    let cases = cases();
    for name in known {
        let is_one = |case: &Case| case.model.gguf().metadata().architecture().unwrap() == name;
        assert!(cases.iter().any(is_one), "{name} has no case");
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn eight_bit_activations_stay_close() {
    for case in cases().into_iter().filter(|case| case.quantized) {
        let got = all_logits(&case.model, &options(Activations::Q8, KvFormat::F16), &case.ids);
        let (largest, rms) = (largest_difference(&got, &case.logits), rms_difference(&got, &case.logits));
        assert!(largest < 0.35 && rms < 0.06, "{}: largest {largest}, rms {rms}", case.name);
    }
}

#[test]
fn greedy_decoding_follows_the_reference() {
    for case in cases().into_iter().filter(|case| !case.quantized) {
        let mut decoder = case.model.decoder(&options(Activations::F32, KvFormat::F32)).unwrap();
        decoder.submit(&case.ids).unwrap();
        let mut got = Vec::new();
        for _ in 0..case.greedy.len() {
            let logits = decoder.logits().unwrap();
            let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0 as u32;
            got.push(best);
            decoder.submit(&[best]).unwrap();
        }
        assert_eq!(got, case.greedy, "{}", case.name);
    }
}

#[test]
fn one_prefill_equals_steps_blocks_threads_and_instruction_sets() {
    for case in cases() {
        let base = options(Activations::Q8, KvFormat::F16);
        let want = all_logits(&case.model, &base, &case.ids);
        let check = |what: &str, got: &[f32]| {
            let difference = largest_difference(got, &want);
            // A rounding difference can move an activation or a cached value to the next code.
            let tolerance = if case.quantized { 0.1 } else { 2e-3 };
            assert!(difference < tolerance, "{}, {what}: logits differ by {difference}", case.name);
        };
        let mut steps = case.model.decoder(&base).unwrap();
        let mut got = Vec::new();
        for &id in &case.ids {
            steps.submit(&[id]).unwrap();
            got.extend_from_slice(steps.logits().unwrap());
        }
        check("steps", &got);
        for block in [1, 5, 16] {
            let mut options = base.clone();
            options.block = block;
            check(&format!("blocks of {block}"), &all_logits(&case.model, &options, &case.ids));
        }
        for threads in [1, 2, 5] {
            let mut options = base.clone();
            options.cpu.threads = NonZero::new(threads);
            check(&format!("{threads} threads"), &all_logits(&case.model, &options, &case.ids));
        }
        for isa in IsaKind::available() {
            let mut options = base.clone();
            options.cpu = CpuOptions::default();
            options.cpu.isa = Some(isa);
            check(isa.name(), &all_logits(&case.model, &options, &case.ids));
        }
    }
}

#[test]
fn every_kv_format_is_close_to_exact() {
    for case in cases() {
        let exact = all_logits(&case.model, &options(Activations::F32, KvFormat::F32), &case.ids);
        let spread = rms_difference(&exact, &vec![0.0; exact.len()]);
        // Of the mean, as a rounding difference can lead a token to another expert.
        for (format, tolerance) in [(KvFormat::F16, 0.005), (KvFormat::Q8_0, 0.1)] {
            let got = all_logits(&case.model, &options(Activations::F32, format), &case.ids);
            let difference = rms_difference(&got, &exact) / spread;
            assert!(difference < tolerance, "{} {format:?}: {difference}", case.name);
        }
    }
}

#[test]
fn truncating_and_going_on_equals_a_fresh_start() {
    for case in cases() {
        let options = options(Activations::F32, KvFormat::F32);
        let mut decoder = case.model.decoder(&options).unwrap();
        decoder.submit(&case.ids).unwrap();
        decoder.truncate(10);
        decoder.submit(&case.ids[10..]).unwrap();
        let vocab = decoder.vocab_size();
        let want = &case.logits[(case.ids.len() - 1) * vocab..];
        let mut fresh = case.model.decoder(&options).unwrap();
        fresh.submit(&case.ids).unwrap();
        assert_eq!(decoder.logits().unwrap().len(), want.len());
        let difference = largest_difference(decoder.logits().unwrap(), fresh.logits().unwrap());
        assert!(difference < 1e-4, "{}: {difference}", case.name);
    }
}

#[test]
fn shifting_a_single_layer_of_keys_is_a_turn_back() {
    // After a shift the first layer's keys are those of the positions moved to; deeper layers have seen what was
    // dropped, so only a one-token suffix of identical tokens tells: the pass must at least stay finite and close.
    for case in cases() {
        let mut decoder = case.model.decoder(&options(Activations::F32, KvFormat::F32)).unwrap();
        decoder.submit(&case.ids).unwrap();
        decoder.shift(2, 5).unwrap();
        assert_eq!(decoder.len(), case.ids.len() - 5);
        decoder.submit(&[case.ids[0]]).unwrap();
        assert!(decoder.logits().unwrap().iter().all(|x| x.is_finite()), "{}", case.name);
        assert!(decoder.shift(10, 100).is_err());
    }
}

/// The model with all matrices that allow it in another format.
fn quantized(model: &Model, format: Format) -> Model {
    let gguf = model.gguf();
    let mut writer = Writer::with_metadata(gguf.metadata().clone());
    for info in gguf.tensors() {
        let bytes = gguf.tensor_bytes(info);
        let columns = info.shape[0];
        let small = info.shape.len() < 2 || info.name.contains("norm") || info.name.contains("conv.weight");
        let Some(row_bytes) = format.row_bytes(columns).filter(|_| !small) else {
            writer.tensor(&info.name, info.format, &info.shape, bytes).unwrap();
            continue;
        };
        let mut values = vec![0.0; info.shape.iter().product()];
        info.format.dequantize(&bytes, &mut values);
        let mut rows = vec![0; values.len() / columns * row_bytes];
        for (row, out) in values.chunks_exact(columns).zip(rows.chunks_exact_mut(row_bytes)) {
            format.quantize_row(row, out).unwrap();
        }
        writer.tensor(&info.name, format, &info.shape, rows).unwrap();
    }
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    Model::from_gguf_bytes(bytes).unwrap()
}

#[test]
fn quantized_weights_and_activations_stay_close() {
    for case in cases().into_iter().filter(|case| !case.quantized) {
        let model = quantized(&case.model, Format::Q8_0);
        let spread = rms_difference(&case.logits, &vec![0.0; case.logits.len()]);
        let check = |what: &str, got: &[f32], want: &[f32], tolerance: f64| {
            // Of the median position, as a rounding difference can lead a token to another expert.
            let vocab = got.len() / case.ids.len();
            let rows = got.chunks_exact(vocab).zip(want.chunks_exact(vocab));
            let mut differences: Vec<_> = rows.map(|(a, b)| rms_difference(a, b) / spread).collect();
            differences.sort_by(f64::total_cmp);
            let median = differences[differences.len() / 2];
            assert!(median < tolerance, "{}, {what}: {median}", case.name);
        };
        let exact = all_logits(&model, &options(Activations::F32, KvFormat::F32), &case.ids);
        check("8-bit weights", &exact, &case.logits, 0.1);
        let mut options = options(Activations::Q8, KvFormat::F32);
        let block = all_logits(&model, &options, &case.ids);
        check("8-bit activations", &block, &exact, 0.1);
        options.block = 1;
        check("steps", &all_logits(&model, &options, &case.ids), &block, 0.01);
    }
}

#[test]
fn a_mixture_reads_the_chosen_experts_alone() {
    let cases = cases();
    let case = |name: &str| cases.iter().find(|case| case.name == name).unwrap();
    let read = |case: &Case| {
        let mut decoder = case.model.decoder(&options(Activations::F32, KvFormat::F32)).unwrap();
        assert_eq!(decoder.weight_bytes_per_token(), None);
        decoder.submit(&case.ids).unwrap();
        assert_eq!(decoder.weight_bytes_per_token(), None);
        decoder.submit(&case.ids[..1]).unwrap();
        decoder.submit(&case.ids[..1]).unwrap();
        decoder.weight_bytes_per_token().unwrap()
    };
    let bytes = |case: &Case, part: &str| -> u64 {
        let gguf = case.model.gguf();
        let tensors = gguf.tensors().iter().filter(|info| info.shape.len() > 1 && info.name.contains(part));
        tensors.map(|info| gguf.tensor_bytes(info).len() as u64).sum()
    };
    // All matrices, where the output is the embedding.
    assert_eq!(read(case("qwen3")), bytes(case("qwen3"), ""));
    // Two experts of four.
    for name in ["mixtral", "qwen3moe"] {
        let case = case(name);
        assert_eq!(read(case), bytes(case, "") - bytes(case, "_exps") / 2, "{name}");
    }
}

#[test]
fn experts_may_have_tensors_of_their_own() {
    let case = cases().into_iter().find(|case| case.name == "mixtral").unwrap();
    let gguf = case.model.gguf();
    let mut writer = Writer::with_metadata(gguf.metadata().clone());
    for info in gguf.tensors() {
        let bytes = gguf.tensor_bytes(info);
        match info.name.strip_suffix("_exps.weight") {
            None => writer.tensor(&info.name, info.format, &info.shape, bytes).unwrap(),
            Some(part) => {
                for expert in 0..info.shape[2] {
                    let size = bytes.len() / info.shape[2];
                    let name = format!("{part}.{expert}.weight");
                    let bytes = bytes.slice(expert * size..(expert + 1) * size);
                    writer.tensor(name, info.format, &info.shape[..2], bytes).unwrap();
                }
            }
        }
    }
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    let model = Model::from_gguf_bytes(bytes).unwrap();
    let got = all_logits(&model, &options(Activations::F32, KvFormat::F32), &case.ids);
    assert!(largest_difference(&got, &case.logits) < 2e-4);
}

#[test]
fn convolutions_go_back_to_where_they_can() {
    for case in cases().into_iter().filter(|case| case.name.starts_with("lfm2")) {
        let mut options = options(Activations::F32, KvFormat::F32);
        options.capacity = Some(512);
        let ids: Vec<u32> = case.ids.iter().copied().cycle().take(400).collect();
        let want = all_logits(&case.model, &options, &ids);
        let vocab = want.len() / ids.len();
        let mut decoder = case.model.decoder(&options).unwrap();
        for len in [399, 300, 270, 40, 33, 31, 400, 3, 1] {
            if decoder.len() < ids.len() {
                decoder.submit(&ids[decoder.len()..]).unwrap();
            }
            decoder.truncate(len);
            // Never further than a mark before.
            assert!(decoder.len() <= len && decoder.len() + 32 > len, "{len}: {}", decoder.len());
            let end = (len + 5).min(ids.len());
            if decoder.len() < end {
                decoder.submit(&ids[decoder.len()..end]).unwrap();
                let difference =
                    largest_difference(decoder.logits().unwrap(), &want[(end - 1) * vocab..end * vocab]);
                assert!(difference < 1e-4, "{}, {len}: {difference}", case.name);
            }
        }
    }
}
