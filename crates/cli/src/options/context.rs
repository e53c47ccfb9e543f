//! `--threads`, `--ctx` and `--kv-format`.

use std::num::NonZero;

use clap::Args;
use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};
use firecrest::ContextOptions;
use firecrest::backend::KvFormat;

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
}

impl ContextArgs {
    /// The options for a context.
    pub(crate) fn options(&self) -> ContextOptions {
        let mut options = ContextOptions::default();
        options.capacity = self.ctx;
        options.kv_format = self.kv_format.unwrap_or_default();
        options.cpu.threads = self.threads;
        options
    }
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
