//! What sentence-transformers keeps in files of its own.

use std::path::Path;

use super::ConvertError;
use super::config::Config;
use super::families::Family;
use crate::embed::Pooling;
use crate::gguf::Metadata;

/// What sentence-transformers adds to a model: pooling, the longest text, prefixes.
pub(super) fn convert(dir: &Path, family: &Family, meta: &mut Metadata) -> Result<(), ConvertError> {
    if let Some(pooling) = pooling(dir)? {
        meta.insert(family.key("pooling_type"), pooling.to_gguf());
    }
    if let Some(config) = Config::read_optional(dir, "sentence_bert_config.json")?
        && let Some(limit) = config.opt_count(&["max_seq_length"])?
    {
        meta.insert(family.key("max_sequence_length"), limit);
    }
    if let Some(config) = Config::read_optional(dir, "config_sentence_transformers.json")? {
        for (key, names) in [
            ("query", ["prompts.query", "prompts.search_query"]),
            ("document", ["prompts.document", "prompts.passage"]),
        ] {
            for name in names {
                if let Some(prefix) = config.opt_str(name)? {
                    meta.insert(format!("sentence_transformers.prompts.{key}"), prefix);
                    break;
                }
            }
        }
    }
    Ok(())
}

fn pooling(dir: &Path) -> Result<Option<Pooling>, ConvertError> {
    let Some(modules) = Config::read_optional(dir, "modules.json")? else { return Ok(None) };
    let module = modules.list().iter().find(|module| {
        module.get("type").and_then(|kind| kind.as_str()).is_some_and(|kind| kind.ends_with(".Pooling"))
    });
    let Some(path) = module.and_then(|module| module.get("path")?.as_str()) else { return Ok(None) };
    // A plain name, so that the file cannot lead elsewhere.
    if path.is_empty() || path.contains(['/', '\\']) || path.starts_with('.') {
        return Err(modules.wrong("path", "the name of a folder"));
    }
    let config = Config::read(dir, &format!("{path}/config.json"))?;
    let known = [
        ("pooling_mode_mean_tokens", Pooling::Mean),
        ("pooling_mode_cls_token", Pooling::Cls),
        ("pooling_mode_lasttoken", Pooling::Last),
    ];
    match known.into_iter().find(|(key, _)| config.flag(key)) {
        Some((_, pooling)) => Ok(Some(pooling)),
        None => Err(config.wrong("pooling_mode_mean_tokens", "mean, CLS or last-token pooling")),
    }
}
