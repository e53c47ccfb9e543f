//! How fast an answer came.

use std::time::Duration;

use firecrest::Decoder;
use firecrest::generate::{FinishReason, LanguageModel, Stats};
use firecrest::nn::DecoderSparsity;
use firecrest::sparse::LevelProfile;

use crate::machine::peak_memory;
use crate::units;

/// One line: `prompt: 20 tokens, 512.3 tokens/s; answer: 64 tokens, 80.1 tokens/s`.
pub(crate) fn line(stats: &Stats) -> String {
    let reused = match stats.reused_tokens {
        0 => String::new(),
        reused => format!(" ({reused} reused)"),
    };
    format!(
        "prompt: {} tokens{reused}, {}; answer: {} tokens, {}",
        stats.prompt_tokens,
        rate(stats.prefill_tokens_per_second()),
        stats.generated_tokens,
        rate(stats.decode_tokens_per_second()),
    )
}

fn rate(tokens_per_second: Option<f64>) -> String {
    tokens_per_second.map_or_else(|| "- tokens/s".into(), |rate| format!("{rate:.1} tokens/s"))
}

/// The rest that `--stats` tells, a line each.
pub(crate) fn details(stats: &Stats, end: FinishReason, model: &Decoder, loading: Duration) -> String {
    let mut lines = vec![
        format!("ended by: {end}"),
        format!("loading: {:.1} ms", ms(loading)),
        format!("first token: {:.1} ms, the others: {:.1} ms", ms(stats.prefill), ms(stats.decode)),
        format!("context: {} of {} positions", model.len(), model.capacity()),
        format!("threads: {}, instruction set: {}", model.threads(), model.isa()),
    ];
    if let Some(read) = model.weight_bytes_per_token() {
        lines.push(format!(
            "weights read per token: {} of {}",
            units::bytes(read),
            units::bytes(model.weight_bytes())
        ));
    }
    if let Some(sparsity) = model.sparsity() {
        lines.extend(sparse(&sparsity, model.sparsity_level()));
    }
    if stats.discarded_tokens > 0 {
        lines.push(format!("forgotten: {} tokens of the prompt", stats.discarded_tokens));
    }
    lines.extend(
        peak_memory().map(|bytes| format!("peak memory: {}, the mapped file included", units::bytes(bytes))),
    );
    lines.join("\n")
}

/// What was left out, layer by layer.
fn sparse(sparsity: &DecoderSparsity, level: Option<&LevelProfile>) -> Vec<String> {
    let mut lines = vec![format!("sparsity: {}", sparsity.level)];
    if let Some(level) = level {
        lines.push(format!(
            "measured when calibrated: perplexity {:.3}, divergence {:.4} nats",
            level.perplexity(),
            level.divergence()
        ));
        let [largest, top] = level.screen_recall();
        lines.push(format!(
            "recall when calibrated: {:.2} % of the neurons by their gates, {:.2} % of the largest and {:.2} % of the \
             40 largest logits",
            100.0 * level.recall(),
            100.0 * largest,
            100.0 * top
        ));
    }
    for (what, times) in [("the layers take", sparsity.layers_ms), ("logits take", sparsity.logits_ms)] {
        if let Some([sparse, dense]) = times {
            let kept = if sparse <= dense { "sparse" } else { "dense" };
            lines.push(format!("{what} {sparse:.2} ms a token sparse, {dense:.2} ms dense: {kept} is kept"));
        }
    }
    if sparsity.screened_tokens > 0 {
        lines.push(format!("logits computed: {:.0} of the vocabulary", sparsity.candidates));
    }
    if sparsity.unproven_tokens > 0 {
        lines.push(format!("tokens whose largest logit took all to find: {}", sparsity.unproven_tokens));
    }
    for (i, layer) in sparsity.layers.iter().enumerate().filter(|(_, layer)| layer.neurons > 0) {
        let share = |part: u64| 100.0 * part as f64 / layer.neurons as f64;
        lines.push(format!(
            "layer {i}: skipped {:.1} % of the neurons' up and {:.1} % of their down projection, {}",
            share(layer.up_skipped),
            share(layer.down_skipped),
            units::bytes(layer.bytes_skipped)
        ));
    }
    lines
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
