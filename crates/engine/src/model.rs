//! A model file, ready to run.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::chat::{ChatTemplate, TemplateError};
use crate::generate::{Detokenize, GenerateError, GenerationConfig, Output, Piece, Session};
use crate::gguf::Gguf;
use crate::models;
use crate::nn::{
    BatchDecoder, ContextOptions, Decoder, DecoderSpec, DecoderWeights, LoadError, SavedContextError,
    SharedSparsity,
};
use crate::sparse::{ActivationType, SparseError, SparsityProfile};
use crate::tokenizer::{EncodeOptions, Tokenizer};
use crate::weights::Bytes;

/// A language model: weights, tokenizer and metadata. Immutable and cheap to clone; each [`Decoder`] made from it has
/// a KV cache and threads of its own and shares the weights.
///
/// ```no_run
/// use firecrest::{GenerationConfig, Model};
///
/// let model = Model::from_gguf_file("smollm2-135m-instruct.gguf")?;
/// let answer = model.generate("Once upon a time", &GenerationConfig::default())?;
/// println!("{}", answer.text);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Model {
    gguf: Arc<Gguf>,
    spec: Arc<DecoderSpec>,
    weights: Arc<DecoderWeights>,
    tokenizer: Arc<Tokenizer>,
    sparsity: SharedSparsity,
}

impl Model {
    /// Opens a GGUF file, or the model that a shard belongs to. The file is mapped, not read: this takes milliseconds.
    pub fn from_gguf_file(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        Self::from_gguf(Gguf::open(path)?)
    }

    /// Takes a GGUF file that is in memory.
    pub fn from_gguf_bytes(bytes: impl Into<Bytes>) -> Result<Self, LoadError> {
        Self::from_gguf(Gguf::from_bytes(bytes)?)
    }

    /// Takes an open GGUF file.
    pub fn from_gguf(gguf: Gguf) -> Result<Self, LoadError> {
        let spec = models::decoder_spec(&gguf)?;
        let tokenizer = Tokenizer::from_metadata(gguf.metadata())?;
        if tokenizer.vocab_size() > spec.vocab {
            return Err(LoadError::Vocabulary { tokens: tokenizer.vocab_size(), rows: spec.vocab });
        }
        let weights = DecoderWeights::load(&gguf, &spec)?;
        Ok(Self {
            gguf: Arc::new(gguf),
            spec: Arc::new(spec),
            weights: Arc::new(weights),
            tokenizer: Arc::new(tokenizer),
            sparsity: SharedSparsity::default(),
        })
    }

    /// The model with another activation function in its feed-forward layers than its architecture has, for files that
    /// say too little: fine-tuned with ReLU, but called `llama`.
    pub fn with_activation(self, activation: ActivationType) -> Self {
        let mut spec = DecoderSpec::clone(&self.spec);
        spec.set_activation(activation.function());
        Self { spec: Arc::new(spec), sparsity: SharedSparsity::default(), ..self }
    }

    /// The model with what was measured of it, so that its decoders know the levels of the profile. Fails where the
    /// profile was made for another model.
    pub fn with_sparsity_profile(self, profile: SparsityProfile) -> Result<Self, SparseError> {
        profile.check_model(&self.gguf)?;
        let sparsity = SharedSparsity { profile: Some(Arc::new(profile)), ..SharedSparsity::default() };
        Ok(Self { sparsity, ..self })
    }

    /// What was measured of the model, if that is known.
    pub fn sparsity_profile(&self) -> Option<&SparsityProfile> {
        self.sparsity.profile.as_deref()
    }

    /// The file.
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The file's chat template; `None` if it has none, as files of models that only continue text. Fails if the
    /// template is broken.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>, TemplateError> {
        ChatTemplate::from_metadata(self.gguf.metadata())
    }

    /// Positions that the model was trained on.
    pub fn context_length(&self) -> usize {
        self.spec.context_length
    }

    /// A decoder with an empty KV cache.
    pub fn decoder(&self, options: &ContextOptions) -> Result<Decoder, LoadError> {
        Decoder::new(Arc::clone(&self.spec), Arc::clone(&self.weights), self.sparsity.clone(), options)
    }

    /// A decoder of many sequences, without any yet. Its cache has room for `sequences` of the capacity that the options
    /// give, or for more that are shorter or begin alike; memory is taken as they grow.
    pub fn batch_decoder(
        &self,
        options: &ContextOptions,
        sequences: usize,
    ) -> Result<BatchDecoder, LoadError> {
        BatchDecoder::new(Arc::clone(&self.spec), Arc::clone(&self.weights), options, sequences)
    }

    /// A conversation: it keeps its KV cache over turns and computes only what a new prompt adds.
    pub fn session(&self, options: &ContextOptions) -> Result<Session<Decoder, Arc<Tokenizer>>, LoadError> {
        Ok(Session::new(self.decoder(options)?, Arc::clone(&self.tokenizer)))
    }

    /// Writes a session's KV cache and its tokens to a file, whole or not at all, so that
    /// [`load_session`](Self::load_session) can go on from there.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use firecrest::{ContextOptions, GenerationConfig, Model};
    ///
    /// let model = Model::from_gguf_file("model.gguf")?;
    /// let mut session = model.session(&ContextOptions::default())?;
    /// let prompt = model.tokenizer().encode("A long document …", Default::default());
    /// session.generate(&prompt, &GenerationConfig::default())?;
    /// model.save_session(&session, "document.kv")?;
    /// # Ok(()) }
    /// ```
    pub fn save_session<D: Detokenize>(
        &self,
        session: &Session<Decoder, D>,
        path: impl AsRef<Path>,
    ) -> Result<(), SavedContextError> {
        session.model().save_context(path.as_ref(), crate::sparse::fingerprint(&self.gguf), session.tokens())
    }

    /// Gives a session the KV cache and the tokens of a file that [`save_session`](Self::save_session) wrote, in place
    /// of its own. Fails on a file of another model, of another [`KvFormat`](crate::backend::KvFormat), or with more
    /// tokens than the session has room for; the session is empty then.
    pub fn load_session<D: Detokenize>(
        &self,
        session: &mut Session<Decoder, D>,
        path: impl AsRef<Path>,
    ) -> Result<(), SavedContextError> {
        let model = crate::sparse::fingerprint(&self.gguf);
        let tokens = session.model_mut().load_context(path.as_ref(), model)?;
        session.restored(tokens);
        Ok(())
    }

    /// Continues a text, with default [`ContextOptions`]. The text is only text: what looks like a control token in it
    /// is not one.
    pub fn generate(&self, prompt: &str, config: &GenerationConfig) -> Result<Output, Error> {
        self.generate_stream(prompt, config, |_| true)
    }

    /// As [`Model::generate`], handing out each piece of text as soon as it is known; `false` stops.
    pub fn generate_stream(
        &self,
        prompt: &str,
        config: &GenerationConfig,
        on_piece: impl FnMut(&Piece) -> bool,
    ) -> Result<Output, Error> {
        let tokens = self.tokenizer.encode(prompt, EncodeOptions { add_special: true, parse_special: false });
        let mut session = self.session(&ContextOptions::default())?;
        Ok(session.generate_stream(&tokens, config, on_piece)?)
    }
}

impl Detokenize for Tokenizer {
    fn token_bytes(&self, id: u32) -> Cow<'_, [u8]> {
        if self.is_control(id) { Cow::Borrowed(&[]) } else { self.token_bytes(id).unwrap_or_default() }
    }

    fn is_end_of_generation(&self, id: u32) -> bool {
        self.is_end_of_generation(id)
    }
}

/// What can go wrong between a file and a text.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be run.
    Load(LoadError),
    /// The text could not be generated.
    Generate(GenerateError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(e) => e.fmt(f),
            Self::Generate(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Load(e) => e.source(),
            Self::Generate(e) => e.source(),
        }
    }
}

impl From<LoadError> for Error {
    fn from(e: LoadError) -> Self {
        Self::Load(e)
    }
}

impl From<GenerateError> for Error {
    fn from(e: GenerateError) -> Self {
        Self::Generate(e)
    }
}
