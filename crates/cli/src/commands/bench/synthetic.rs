//! Models of known shapes with random weights.

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;

use firecrest::Model;
use firecrest::gguf::{Format, Gguf, StringArray, WriteError, Writer};
use firecrest::sparse::ActivationType;
use firecrest::weights::Bytes;

use crate::failure::{Failure, OrFail, Outcome};

/// The sizes of a LLaMA-like model.
#[derive(Debug, PartialEq)]
struct Shape {
    name: &'static str,
    dim: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    hidden: usize,
    vocab: usize,
    context: u32,
    rope_base: f32,
    /// Whether the embedding is the output matrix too.
    tied: bool,
    neurons: Neurons,
}

/// What is known of the neurons of feed-forward layers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Neurons {
    /// Nothing: SiLU.
    Silu,
    /// ReLU: one in ten fires. The gates of four in five have a bias that keeps them silent; of the rest, half fire.
    Relu,
    /// The same, with a predictor that says so, as in PowerInfer's files.
    Predicted,
}

/// One of how many neurons may fire, and the rank of their predictor.
const MAY_FIRE: usize = 5;
const PREDICTOR_RANK: usize = 256;

const LLAMA_2_7B: Shape = Shape {
    name: "llama-2-7b",
    dim: 4096,
    layers: 32,
    heads: 32,
    kv_heads: 32,
    hidden: 11008,
    vocab: 32000,
    context: 4096,
    rope_base: 10_000.0,
    tied: false,
    neurons: Neurons::Silu,
};

const SHAPES: &[Shape] = &[
    // Small enough to be run by an emulator, with rows for every format.
    Shape {
        name: "tiny-5m",
        dim: 512,
        layers: 2,
        heads: 8,
        kv_heads: 4,
        hidden: 1024,
        vocab: 1024,
        context: 2048,
        ..LLAMA_2_7B
    },
    Shape {
        name: "smollm2-135m",
        dim: 576,
        layers: 30,
        heads: 9,
        kv_heads: 3,
        hidden: 1536,
        vocab: 49152,
        context: 8192,
        rope_base: 100_000.0,
        tied: true,
        neurons: Neurons::Silu,
    },
    Shape {
        name: "tinyllama-1.1b",
        dim: 2048,
        layers: 22,
        heads: 32,
        kv_heads: 4,
        hidden: 5632,
        vocab: 32000,
        context: 2048,
        rope_base: 10_000.0,
        tied: false,
        neurons: Neurons::Silu,
    },
    LLAMA_2_7B,
    Shape { name: "llama-2-7b-relu", neurons: Neurons::Relu, ..LLAMA_2_7B },
    Shape { name: "llama-2-7b-powerinfer", neurons: Neurons::Predicted, ..LLAMA_2_7B },
];

/// What is to be built: `tinyllama-1.1b:q4_0`.
#[derive(Clone, Debug)]
pub(super) struct Synthetic {
    shape: &'static Shape,
    format: Format,
}

impl fmt::Display for Synthetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.shape.name, self.format)
    }
}

impl FromStr for Synthetic {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (shape, format) =
            text.split_once(':').ok_or("expected SHAPE:FORMAT, such as tinyllama-1.1b:q4_0")?;
        let shape = SHAPES.iter().find(|known| known.name == shape).ok_or_else(|| {
            let known: Vec<_> = SHAPES.iter().map(|shape| shape.name).collect();
            format!("no shape {shape:?}: there are {}", known.join(", "))
        })?;
        let usable = |format: &Format| format.is_quantized() || is_float(*format);
        let format = Format::ALL
            .iter()
            .copied()
            .find(|known| known.name().eq_ignore_ascii_case(format) && usable(known))
            .ok_or_else(|| format!("no tensor format {format:?} for weights"))?;
        // Rows of all matrices have one of these two lengths.
        match [shape.dim, shape.hidden].into_iter().find(|&row| format.row_bytes(row).is_none()) {
            None => Ok(Self { shape, format }),
            Some(row) => Err(format!(
                "{} has rows of {row} weights, {format} takes whole blocks of {}",
                shape.name,
                format.block_len()
            )),
        }
    }
}

fn is_float(format: Format) -> bool {
    matches!(format, Format::F32 | Format::F16 | Format::BF16)
}

impl Synthetic {
    /// The model, as a GGUF file in memory of which every tensor has memory of its own.
    pub(super) fn build(&self) -> Outcome<Model> {
        let (writer, bytes) = self.writer().or_fail(|| format!("can't build {self}"))?;
        let mut file = Vec::new();
        file.try_reserve_exact(bytes).or_fail(|| format!("no memory for the {bytes} bytes of {self}"))?;
        writer.write(io::Cursor::new(&mut file)).or_fail(|| format!("can't build {self}"))?;
        if self.shape.neurons == Neurons::Predicted {
            file[..4].copy_from_slice(b"PWRI");
        }
        let gguf = Gguf::from_bytes(file)?;
        let model = Model::from_gguf(gguf).map_err(|error| Failure::load(self.shape.name.as_ref(), error))?;
        Ok(match self.shape.neurons {
            Neurons::Relu => model.with_activation(ActivationType::Relu),
            _ => model,
        })
    }

    /// Writes the model to a GGUF file, for other programs to measure.
    ///
    /// Only plain models: that neurons are silent is nothing that a file of the architecture `llama` can say.
    pub(super) fn write(&self, path: &Path) -> Outcome {
        if self.shape.neurons != Neurons::Silu {
            return Err(Failure::new(format!("{} can't be written to a file", self.shape.name)));
        }
        let (writer, _) = self.writer().or_fail(|| format!("can't build {self}"))?;
        writer.write_file(path).or_fail(|| format!("can't write {}", path.display()))
    }

    /// The file to be written, and how many bytes it has, or a few more.
    fn writer(&self) -> Result<(Writer, usize), WriteError> {
        let Shape { dim, layers, heads, kv_heads, hidden, vocab, .. } = *self.shape;
        let kv = dim / heads * kv_heads;
        let matrices = [
            ("attn_q", dim, dim),
            ("attn_k", dim, kv),
            ("attn_v", dim, kv),
            ("attn_output", dim, dim),
            ("ffn_gate", dim, hidden),
            ("ffn_up", dim, hidden),
            ("ffn_down", hidden, dim),
        ];
        let mut file = File {
            format: self.format,
            writer: self.metadata(),
            // The rest of the header; no token takes as much.
            bytes: (1 << 16) + 64 * vocab,
            weights: Bytes::from(vec![]),
        };
        let size = |columns: usize, rows: usize| self.format.row_bytes(columns).unwrap_or(0) * rows;
        let largest = matrices.iter().map(|&(_, columns, rows)| size(columns, rows)).max();
        file.weights = random_blocks(self.format, largest.unwrap_or(0).max(size(dim, vocab))).into();

        file.matrix("token_embd.weight", dim, vocab)?;
        file.ones("output_norm.weight", dim)?;
        if !self.shape.tied {
            file.matrix("output.weight", dim, vocab)?;
        }
        for layer in 0..layers {
            for norm in ["attn_norm", "ffn_norm"] {
                file.ones(&format!("blk.{layer}.{norm}.weight"), dim)?;
            }
            for (name, columns, rows) in matrices {
                match (name, self.shape.neurons) {
                    ("ffn_down", Neurons::Predicted) => {
                        file.matrix(&format!("blk.{layer}.ffn_down_t.weight"), rows, columns)?;
                    }
                    _ => file.matrix(&format!("blk.{layer}.{name}.weight"), columns, rows)?,
                }
            }
            match self.shape.neurons {
                Neurons::Silu => {}
                Neurons::Relu => {
                    let bias = |n: usize| if n.is_multiple_of(MAY_FIRE) { 0.0 } else { -1e3 };
                    let bias: Vec<u8> = (0..hidden).flat_map(|n| f32::to_le_bytes(bias(n))).collect();
                    file.tensor(&format!("blk.{layer}.ffn_gate.bias"), Format::F32, &[hidden], bias.into())?;
                }
                Neurons::Predicted => {
                    file.matrix(&format!("blk.{layer}.fc1.weight"), dim, PREDICTOR_RANK)?;
                    let scores = predictor(hidden);
                    let shape = [PREDICTOR_RANK, hidden];
                    file.tensor(&format!("blk.{layer}.fc2.weight"), Format::Q8_0, &shape, scores)?;
                }
            }
        }
        Ok((file.writer, file.bytes))
    }

    fn metadata(&self) -> Writer {
        let shape = self.shape;
        let mut writer = Writer::new();
        writer.insert("general.architecture", "llama");
        writer.insert("general.name", self.to_string());
        for (key, value) in [
            ("context_length", shape.context as usize),
            ("embedding_length", shape.dim),
            ("block_count", shape.layers),
            ("feed_forward_length", shape.hidden),
            ("attention.head_count", shape.heads),
            ("attention.head_count_kv", shape.kv_heads),
        ] {
            // llama.cpp takes no other type.
            writer.insert(format!("llama.{key}"), value as u32);
        }
        writer.insert("llama.rope.freq_base", shape.rope_base);
        writer.insert("llama.attention.layer_norm_rms_epsilon", 1e-5f32);
        // No benchmark handles text, but other programs take only a vocabulary with a token for each row.
        let tokens: Vec<_> = (0..shape.vocab).map(token).collect();
        writer.insert("tokenizer.ggml.model", "llama");
        writer.insert("tokenizer.ggml.tokens", tokens.iter().map(|(text, _)| text).collect::<StringArray>());
        writer.insert("tokenizer.ggml.scores", vec![0f32; tokens.len()]);
        let types: Vec<i32> = tokens.iter().map(|&(_, kind)| kind).collect();
        writer.insert("tokenizer.ggml.token_type", types);
        writer
    }
}

/// The text of a token, and its type as GGUF numbers them: unknown, control, byte or normal.
fn token(id: usize) -> (String, i32) {
    match id {
        0 => ("<unk>".to_owned(), 2),
        1 => ("<s>".to_owned(), 3),
        2 => ("</s>".to_owned(), 3),
        3..259 => (format!("<0x{:02X}>", id - 3), 6),
        _ => (format!("▁{id}"), 1),
    }
}

/// A file in the making.
struct File {
    format: Format,
    writer: Writer,
    bytes: usize,
    /// As many bytes of random weights as the largest matrix has. All matrices are copies of it, or of its first part:
    /// making new weights for each would take longer than measuring.
    weights: Bytes,
}

impl File {
    fn matrix(&mut self, name: &str, columns: usize, rows: usize) -> Result<(), WriteError> {
        let bytes = self.format.row_bytes(columns).unwrap_or(0) * rows;
        self.tensor(name, self.format, &[columns, rows], self.weights.slice(0..bytes))
    }

    fn ones(&mut self, name: &str, len: usize) -> Result<(), WriteError> {
        self.tensor(name, Format::F32, &[len], 1f32.to_le_bytes().repeat(len).into())
    }

    fn tensor(&mut self, name: &str, format: Format, shape: &[usize], data: Bytes) -> Result<(), WriteError> {
        // The padding, and the record in the header.
        self.bytes += data.len() + 256;
        self.writer.tensor(name, format, shape, data)
    }
}

/// The second matrix of a predictor, in Q8_0: below zero for neurons that never fire, of either sign for the rest.
fn predictor(hidden: usize) -> Bytes {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::new();
    for n in 0..hidden {
        for _ in 0..PREDICTOR_RANK / 32 {
            // A half of 2^-6, and codes.
            bytes.extend(0x2400u16.to_le_bytes());
            let sign = |bit: u64| if n.is_multiple_of(MAY_FIRE) && bit & 1 == 0 { 1 } else { 0xff };
            bytes.extend((0..32).map(|_| sign(random.bits())));
        }
    }
    bytes.into()
}

/// `bytes` of random blocks, whose weights are finite and of a size that real models have.
///
/// What a block's bytes mean differs with the format, so blocks are drawn until some are sound, and these are used again
/// and again in random order.
fn random_blocks(format: Format, bytes: usize) -> Vec<u8> {
    const BLOCKS: usize = 256;
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut block = vec![0; format.block_bytes()];
    let mut weights = vec![0.0; format.block_len()];
    let mut sound: Vec<u8> = Vec::with_capacity(BLOCKS * block.len());
    while sound.len() < BLOCKS * block.len() {
        block.fill_with(|| random.bits() as u8);
        format.dequantize(&block, &mut weights);
        let largest = weights.iter().fold(0f32, |largest, weight| largest.max(weight.abs()));
        let finite = weights.iter().all(|weight| weight.is_finite());
        if finite && (1.0 / 4096.0..0.25).contains(&largest) {
            sound.extend(&block);
        }
    }
    let mut out = Vec::with_capacity(bytes);
    while out.len() < bytes {
        let start = random.bits() as usize % BLOCKS * block.len();
        out.extend_from_slice(&sound[start..start + block.len()]);
    }
    out.truncate(bytes);
    out
}

/// A small generator (xorshift64*, Vigna 2016).
struct Random(u64);

impl Random {
    /// 31 random bits.
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_weights_of_every_format_are_finite_and_not_all_zero() {
        for &format in Format::ALL.iter().filter(|format| format.is_quantized() || is_float(**format)) {
            let len = format.block_len() * 512;
            let bytes = random_blocks(format, format.row_bytes(len).unwrap());
            let mut weights = vec![0.0; len];
            format.dequantize(&bytes, &mut weights);
            assert!(weights.iter().all(|weight| weight.abs() < 0.25), "{format}");
            assert!(weights.iter().any(|weight| weight.abs() > 1e-4), "{format}");
        }
    }

    #[test]
    fn names_are_checked() {
        let parse = str::parse::<Synthetic>;
        assert_eq!(parse("tinyllama-1.1b:Q4_k").unwrap().to_string(), "tinyllama-1.1b:Q4_K");
        assert!(parse("tinyllama-1.1b").unwrap_err().contains("SHAPE:FORMAT"));
        assert!(parse("gpt:q4_0").unwrap_err().contains("llama-2-7b"));
        assert!(parse("llama-2-7b:i32").unwrap_err().contains("i32"));
        assert!(parse("smollm2-135m:q4_k").unwrap_err().contains("blocks of 256"));
    }

    #[test]
    fn a_model_runs_and_the_file_is_not_larger_than_reserved() {
        use firecrest::ContextOptions;
        use firecrest::generate::LanguageModel;

        for neurons in [Neurons::Silu, Neurons::Relu, Neurons::Predicted] {
            let sizes =
                Shape { dim: 64, layers: 2, heads: 4, kv_heads: 2, hidden: 480, vocab: 80, ..LLAMA_2_7B };
            let shape = Shape { neurons, ..sizes };
            let synthetic = Synthetic { shape: Box::leak(Box::new(shape)), format: Format::Q8_0 };
            let (writer, bytes) = synthetic.writer().unwrap();
            let mut file = Vec::new();
            writer.write(&mut file).unwrap();
            assert!(file.len() <= bytes, "{} > {bytes}", file.len());

            let mut decoder = synthetic.build().unwrap().decoder(&ContextOptions::default()).unwrap();
            decoder.submit(&[1, 79]).unwrap();
            decoder.submit(&[5]).unwrap();
            let logits = decoder.logits().unwrap();
            assert!(logits.len() == 80 && logits.iter().all(|logit| logit.is_finite()));
            if neurons == Neurons::Relu {
                let report = decoder.sparsity().unwrap();
                let one_in_four = |neurons: u64, skipped: u64| (neurons - skipped) * 4 < neurons;
                let layers = &report.layers;
                assert!(layers.iter().all(|layer| one_in_four(layer.neurons, layer.down_skipped)));
            }
        }
    }
}
