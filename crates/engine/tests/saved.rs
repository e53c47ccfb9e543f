//! Sessions that are saved and gone on with.

use std::path::{Path, PathBuf};
use std::{env, fs, process};

use firecrest::backend::KvFormat;
use firecrest::generate::LanguageModel;
use firecrest::nn::SavedContextError;
use firecrest::{ContextOptions, GenerationConfig, Model};

fn model(name: &str) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/archs");
    Model::from_gguf_file(folder.join(format!("{name}.gguf"))).unwrap()
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(env::temp_dir().join(format!("firecrest-saved-{}-{name}.kv", process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn options(capacity: usize, kv_format: KvFormat) -> ContextOptions {
    let mut options = ContextOptions::default();
    options.capacity = Some(capacity);
    options.kv_format = kv_format;
    options
}

#[test]
fn a_saved_session_goes_on_as_if_it_had_not_been() {
    let config = GenerationConfig::default().with_temperature(0.0).with_max_tokens(12);
    let prompt: Vec<u32> = (0..40).map(|i| i * 7 % 60).collect();
    // With heads alone; with short convolutions too.
    for name in ["llama3", "gemma2", "lfm2"] {
        let model = model(name);
        for format in [KvFormat::F32, KvFormat::F16, KvFormat::Q8_0] {
            let file = Scratch::new(&format!("{name}-{format:?}"));
            let mut session = model.session(&options(128, format)).unwrap();
            let first = session.generate(&prompt, &config).unwrap();
            model.save_session(&session, &file.0).unwrap();
            let longer = [&prompt, first.tokens.as_slice(), &[3, 1, 4]].concat();
            let want = session.generate(&longer, &config).unwrap();

            let mut again = model.session(&options(128, format)).unwrap();
            model.load_session(&mut again, &file.0).unwrap();
            assert!(again.tokens().len() >= prompt.len(), "{name}");
            let got = again.generate(&longer, &config).unwrap();
            assert_eq!(got.tokens, want.tokens, "{name} {format:?}");
            assert_eq!(got.stats.reused_tokens, want.stats.reused_tokens, "{name} {format:?}");
        }
    }
}

#[test]
fn a_file_that_does_not_fit_leaves_an_empty_session() {
    let model_ = model("llama3");
    let file = Scratch::new("misfit");
    let mut session = model_.session(&options(64, KvFormat::F16)).unwrap();
    let config = GenerationConfig::default().with_temperature(0.0).with_max_tokens(4);
    session.generate(&[1, 2, 3, 4, 5, 6, 7, 8], &config).unwrap();
    model_.save_session(&session, &file.0).unwrap();
    let saved = fs::read(&file.0).unwrap();

    let load = |model: &Model, options: &ContextOptions| {
        let mut session = model.session(options).unwrap();
        session.generate(&[9, 8, 7], &config).unwrap();
        let error = model.load_session(&mut session, &file.0).unwrap_err();
        assert!(session.tokens().is_empty() && session.model().is_empty(), "{error}");
        // And it is of use all the same.
        session.generate(&[1, 2, 3], &config).unwrap();
        error
    };
    let fits = options(64, KvFormat::F16);
    assert!(matches!(load(&model("llama"), &fits), SavedContextError::OtherModel { .. }));
    let other = load(&model_, &options(64, KvFormat::F32));
    assert!(matches!(other, SavedContextError::OtherFormat { found: KvFormat::F16, .. }), "{other}");
    let short = load(&model_, &options(4, KvFormat::F16));
    assert!(matches!(short, SavedContextError::TooLong { capacity: 4, .. }), "{short}");
    for len in [0, 3, 10, 30, saved.len() - 1] {
        fs::write(&file.0, &saved[..len]).unwrap();
        assert!(matches!(load(&model_, &fits), SavedContextError::Broken { .. }), "{len}");
    }
    for at in [0, 5, 20, 40, saved.len() / 2, saved.len() - 1] {
        let mut broken = saved.clone();
        broken[at] ^= 0x10;
        fs::write(&file.0, &broken).unwrap();
        load(&model_, &fits);
    }
    fs::remove_file(&file.0).unwrap();
    assert!(matches!(load(&model_, &fits), SavedContextError::Io { .. }));
}
