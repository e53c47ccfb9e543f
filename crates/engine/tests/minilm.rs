//! all-MiniLM-L6-v2, converted here, against the embeddings of Hugging Face's transformers in f32.
//!
//! The environment variable `FIRECREST_TEST_EMBEDDER` names the model's folder (`config.json`, `model.safetensors`, …);
//! without it these tests say that they are skipped.

use std::fs;
use std::path::{Path, PathBuf};

use firecrest::backend::{Activations, CpuOptions};
use firecrest::convert::{ConvertOptions, convert};
use firecrest::embed::{EmbedOptions, EmbeddingModel, Pooling, cosine};
use firecrest::gguf::{Format, Gguf};
use serde_json::Value;

struct Reference {
    texts: Vec<String>,
    ids: Vec<Vec<u32>>,
    embeddings: Vec<Vec<f32>>,
}

fn reference() -> Reference {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/minilm");
    let json: Value = serde_json::from_slice(&fs::read(folder.join("minilm.json")).unwrap()).unwrap();
    let sentences = json["sentences"].as_array().unwrap();
    let raw = fs::read(folder.join("embeddings.f32")).unwrap();
    let values: Vec<f32> = raw.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    let ids = |sentence: &Value| {
        sentence["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
    };
    let reference = Reference {
        texts: sentences.iter().map(|sentence| sentence["text"].as_str().unwrap().to_owned()).collect(),
        ids: sentences.iter().map(ids).collect(),
        embeddings: values.chunks_exact(384).map(<[f32]>::to_vec).collect(),
    };
    assert_eq!((reference.texts.len(), reference.embeddings.len()), (60, 60));
    reference
}

/// The model's folder, if there is one to test with.
fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("FIRECREST_TEST_EMBEDDER").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: FIRECREST_TEST_EMBEDDER names no folder");
    }
    folder
}

/// A converted model; its file goes with it.
struct Converted {
    path: PathBuf,
    model: EmbeddingModel,
}

impl Converted {
    fn new(folder: &Path, format: Format) -> Self {
        let path =
            std::env::temp_dir().join(format!("firecrest-minilm-{}-{format}.gguf", std::process::id()));
        convert(folder, &path, &ConvertOptions::default().with_format(format)).unwrap();
        Self { model: EmbeddingModel::from_gguf_file(&path).unwrap(), path }
    }
}

impl Drop for Converted {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Least and mean cosine, and the largest difference of any value.
fn compare(got: &[Vec<f32>], want: &[Vec<f32>]) -> (f32, f32, f32) {
    let cosines: Vec<f32> = got.iter().zip(want).map(|(got, want)| cosine(got, want)).collect();
    let differences = got.iter().zip(want).flat_map(|(a, b)| a.iter().zip(b).map(|(a, b)| (a - b).abs()));
    let least = cosines.iter().copied().fold(1.0, f32::min);
    (least, cosines.iter().sum::<f32>() / cosines.len() as f32, differences.fold(0.0, f32::max))
}

#[test]
fn tokens_and_vectors_equal_the_reference() {
    let (Some(folder), reference) = (folder(), reference()) else { return };
    let converted = Converted::new(&folder, Format::F32);
    let model = &converted.model;
    assert_eq!((model.dimension(), model.max_tokens(), model.pooling()), (384, 256, Pooling::Mean));

    let got = model.embed(&reference.texts, &EmbedOptions::default()).unwrap();
    for ((got, ids), text) in got.iter().zip(&reference.ids).zip(&reference.texts) {
        assert_eq!(got.tokens, ids.len(), "{text}");
        assert_eq!(got.truncated, ids.len() == 256, "{text}");
        let options = firecrest::tokenizer::EncodeOptions { add_special: true, parse_special: true };
        let tokens = model.tokenizer().encode(text, options);
        assert_eq!(&tokens[..ids.len() - 1], &ids[..ids.len() - 1], "{text}");
        assert_eq!((ids.last(), tokens.last()), (Some(&102), Some(&102)));
    }
    let by_text: Vec<_> = got.into_iter().map(|embedding| embedding.values).collect();
    let (least, _, difference) = compare(&by_text, &reference.embeddings);
    eprintln!("F32, 16 bits: least cosine {least}, largest difference {difference}");
    assert!(least >= 0.999999 && difference < 3e-4, "{least} {difference}");
    assert_eq!(model.encode_batch(&reference.ids).unwrap(), by_text);

    let mut options = CpuOptions::default();
    options.activations = Activations::F32;
    let exact = EmbeddingModel::from_gguf(&Gguf::open(&converted.path).unwrap(), &options).unwrap();
    let batch = exact.encode_batch(&reference.ids).unwrap();
    let one_by_one: Vec<_> = reference.ids.iter().map(|ids| exact.encode(ids).unwrap()).collect();
    for vectors in [&batch, &one_by_one] {
        let (least, _, difference) = compare(vectors, &reference.embeddings);
        eprintln!("F32: least cosine {least}, largest difference {difference}");
        assert!(least >= 0.99999 && difference < 2e-6, "{least} {difference}");
    }
}

#[test]
fn a_text_gives_the_same_alone_as_among_others() {
    let (Some(folder), reference) = (folder(), reference()) else { return };
    let model = &Converted::new(&folder, Format::F32).model;
    let together = model.encode_batch(&reference.ids).unwrap();
    for (ids, want) in reference.ids.iter().zip(&together) {
        let (least, _, difference) = compare(&[model.encode(ids).unwrap()], std::slice::from_ref(want));
        assert!(least >= 0.999999 && difference < 2e-6, "{} tokens: {least} {difference}", ids.len());
    }
}

#[test]
fn smaller_formats_stay_close() {
    let (Some(folder), reference) = (folder(), reference()) else { return };
    for (format, least_wanted, mean_wanted) in
        [(Format::F16, 0.99999, 0.99999), (Format::BF16, 0.999, 0.9995), (Format::Q8_0, 0.998, 0.9995)]
    {
        let converted = Converted::new(&folder, format);
        let got = converted.model.encode_texts(&reference.texts).unwrap();
        let (least, mean, difference) = compare(&got, &reference.embeddings);
        eprintln!("{format}: cosine least {least}, mean {mean}; largest difference {difference}");
        assert!(least >= least_wanted && mean >= mean_wanted, "{format}: {least} {mean}");
    }
}
