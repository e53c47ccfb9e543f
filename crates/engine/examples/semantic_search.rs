//! Indexes the paragraphs of a text and finds those that are nearest in meaning to a query.
//!
//! ```text
//! cargo run --release --example semantic_search -- all-minilm-l6-v2.gguf README.md "how fast is it?"
//! ```

use std::error::Error;
use std::{env, fs};

use firecrest::embed::cosine;
use firecrest::integration::SparseEmbeddingProvider;

/// Paragraphs with their vectors: what a vector database would keep.
struct Index<'a> {
    provider: &'a SparseEmbeddingProvider,
    entries: Vec<(String, Vec<f32>)>,
}

impl<'a> Index<'a> {
    fn new(provider: &'a SparseEmbeddingProvider, text: &str) -> Result<Self, Box<dyn Error>> {
        let paragraphs: Vec<String> = text
            .split("\n\n")
            .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
            .filter(|paragraph| !paragraph.is_empty())
            .collect();
        let vectors = provider.embed_documents(&paragraphs)?;
        Ok(Self { provider, entries: paragraphs.into_iter().zip(vectors).collect() })
    }

    /// The best paragraphs, with their similarities to the query.
    fn search(&self, query: &str, count: usize) -> Result<Vec<(f32, &str)>, Box<dyn Error>> {
        let query = self.provider.embed_query(query)?;
        let mut hits: Vec<_> =
            self.entries.iter().map(|(text, vector)| (cosine(&query, vector), text.as_str())).collect();
        hits.sort_by(|a, b| b.0.total_cmp(&a.0));
        hits.truncate(count);
        Ok(hits)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [model, file, query] = args.as_slice() else {
        return Err("usage: semantic_search MODEL.gguf FILE QUERY".into());
    };
    let provider = SparseEmbeddingProvider::from_gguf_file(model)?;
    let index = Index::new(&provider, &fs::read_to_string(file)?)?;
    println!("{} paragraphs, {} dimensions", index.entries.len(), provider.dimension());
    for (similarity, paragraph) in index.search(query, 3)? {
        println!("{similarity:.3}  {paragraph}");
    }
    Ok(())
}
