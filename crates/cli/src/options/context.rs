//! `--threads`, `--ctx`, `--kv-format` and `--sparsity`.

use std::num::NonZero;
use std::path::Path;

use clap::Args;
use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};
use firecrest::backend::KvFormat;
use firecrest::sparse::{ActivationType, SparsityLevel, SparsityProfile};
use firecrest::{ContextOptions, Model};

use crate::failure::{Failure, OrFail, Outcome};

/// A number of threads.
pub(crate) type ThreadCount = NonZero<usize>;

/// Parses a number of threads. The bound is there because each takes memory, and systems refuse far fewer than usize::MAX.
pub(crate) fn thread_count() -> impl TypedValueParser<Value = ThreadCount> {
    RangedU64ValueParser::<usize>::new()
        .range(1..=1024)
        .map(|n| NonZero::new(n).unwrap_or(NonZero::<usize>::MIN))
}

/// Parses a format of cached keys and values.
pub(crate) fn kv_format() -> impl TypedValueParser<Value = KvFormat> {
    PossibleValuesParser::new(["f16", "f32", "q8_0"]).map(|name| match name.as_str() {
        "f32" => KvFormat::F32,
        "q8_0" => KvFormat::Q8_0,
        _ => KvFormat::F16,
    })
}

/// Memory and processors that a model may use.
#[derive(Args, Debug, Default)]
pub(crate) struct ContextArgs {
    /// Threads that compute [default: the physical cores]
    #[arg(short, long, value_name = "N", value_parser = thread_count())]
    pub(crate) threads: Option<ThreadCount>,
    /// Tokens that the context holds [default: what the model was trained on, at most 4096]
    #[arg(short, long, value_name = "TOKENS", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub(crate) ctx: Option<usize>,
    /// Number format of cached keys and values [default: f16]
    #[arg(long, value_name = "FORMAT", value_parser = kv_format())]
    pub(crate) kv_format: Option<KvFormat>,
    /// How much of the model is computed: off, exact, balanced, fast, or another level that `firecrest sparsify` has
    /// measured [default: exact where it loses nothing]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) sparsity: Option<SparsityLevel>,
    /// Activation function of the feed-forward layers, where the file's architecture is not the whole truth: relu,
    /// relu2, gelu, gelu-tanh, silu, identity
    #[arg(long, value_name = "NAME")]
    pub(crate) activation: Option<ActivationType>,
}

impl ContextArgs {
    /// The options for a context.
    pub(crate) fn options(&self) -> ContextOptions {
        let mut options = ContextOptions::default();
        options.capacity = self.ctx;
        options.kv_format = self.kv_format.unwrap_or_default();
        options.cpu.threads = self.threads;
        options.sparsity = self.sparsity.clone().unwrap_or_default();
        options
    }

    /// The model in this file, with its sparsity file where the level asks for one.
    pub(crate) fn model(&self, path: &Path) -> Outcome<Model> {
        let model = with_levels(path, self.sparsity.as_ref())?;
        Ok(match self.activation {
            Some(activation) => model.with_activation(activation),
            None => model,
        })
    }
}

/// The model in this file, with its sparsity file where the level is one that was measured.
pub(crate) fn with_levels(path: &Path, level: Option<&SparsityLevel>) -> Outcome<Model> {
    let model = Model::from_gguf_file(path).map_err(|error| Failure::load(path, error))?;
    let beside = SparsityProfile::path_for(path);
    // What is exact needs no file, but gains by one that can prove the largest logit.
    let used = level.is_some_and(|level| level.needs_profile() || *level == SparsityLevel::Exact);
    if !used || !beside.exists() {
        // Without the file, asking for the level fails and says so.
        return Ok(model);
    }
    let profile = SparsityProfile::load(&beside).and_then(|profile| model.with_sparsity_profile(profile));
    profile.or_fail(|| format!("{} can't be used", beside.display()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        context: ContextArgs,
    }

    fn parse(args: &[&str]) -> Option<ContextOptions> {
        let cli = Cli::try_parse_from(["firecrest"].iter().chain(args)).ok()?;
        Some(cli.context.options())
    }

    #[test]
    fn values_reach_the_engine() {
        let options = parse(&["-t", "3", "--ctx", "77", "--kv-format", "q8_0"]).unwrap();
        assert_eq!(options.cpu.threads(), 3);
        assert_eq!((options.capacity, options.kv_format), (Some(77), KvFormat::Q8_0));
        assert_eq!(parse(&[]).unwrap().kv_format, KvFormat::F16);
    }

    #[test]
    fn senseless_values_are_refused() {
        for args in [["--threads", "0"], ["--threads", "9999"], ["--ctx", "0"], ["--kv-format", "q4_0"]] {
            assert!(parse(&args).is_none(), "{args:?}");
        }
    }
}
