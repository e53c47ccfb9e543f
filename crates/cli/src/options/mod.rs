//! Options that several commands share.

mod context;
mod embedder;
mod model;
mod prompt;
mod sampling;
mod template;

pub(crate) use context::{ContextArgs, ThreadCount, kv_format, thread_count, with_levels};
pub(crate) use embedder::{EmbedArgs, EmbedderArgs};
pub(crate) use model::{ModelArgs, fetch};
pub(crate) use prompt::PromptArgs;
pub(crate) use sampling::SamplingArgs;
pub(crate) use template::TemplateArgs;
