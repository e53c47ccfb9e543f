//! What other programs plug into their own interfaces.

use std::path::Path;

use crate::embed::{EmbedError, EmbedOptions, EmbeddingModel, Role};
use crate::nn::LoadError;

/// Embeds texts for a vector database: one text or many at a time, queries and documents each with the prefix that the
/// model wants, vectors of length 1.
///
/// ```no_run
/// use firecrest::integration::SparseEmbeddingProvider;
///
/// let provider = SparseEmbeddingProvider::from_gguf_file("all-minilm-l6-v2.gguf")?;
/// let vector = provider.embed("Rust is a programming language.")?;
/// assert_eq!(vector.len(), provider.dimension());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct SparseEmbeddingProvider {
    model: EmbeddingModel,
}

impl SparseEmbeddingProvider {
    /// Wraps a model; its options hold.
    pub fn new(model: EmbeddingModel) -> Self {
        Self { model }
    }

    /// Opens a GGUF file.
    pub fn from_gguf_file(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        Ok(Self::new(EmbeddingModel::from_gguf_file(path)?))
    }

    /// The model.
    pub fn model(&self) -> &EmbeddingModel {
        &self.model
    }

    /// Values of a vector.
    pub fn dimension(&self) -> usize {
        self.model.dimension()
    }

    /// The vector of a text.
    pub fn embed(&self, text: &str) -> Result<Vec<f32>, EmbedError> {
        Ok(self.embed_batch(&[text])?.swap_remove(0))
    }

    /// The vectors of texts, in their order.
    pub fn embed_batch(&self, texts: &[impl AsRef<str>]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.model.encode_texts(texts)
    }

    /// The vector of what is searched for.
    pub fn embed_query(&self, text: &str) -> Result<Vec<f32>, EmbedError> {
        Ok(self.embed_role(&[text], Role::Query)?.swap_remove(0))
    }

    /// The vectors of what shall be found, in their order.
    pub fn embed_documents(&self, texts: &[impl AsRef<str>]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.embed_role(texts, Role::Document)
    }

    fn embed_role(&self, texts: &[impl AsRef<str>], role: Role) -> Result<Vec<Vec<f32>>, EmbedError> {
        let options = EmbedOptions { role: Some(role), ..self.model.options().clone() };
        Ok(self.model.embed(texts, &options)?.into_iter().map(|embedding| embedding.values).collect())
    }
}
