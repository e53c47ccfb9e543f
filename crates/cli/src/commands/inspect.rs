//! `firecrest inspect`: what is in a model's file.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use firecrest::backend::{Activations, CpuOptions, IsaKind};
use firecrest::gguf::{Array, ByteOrder, Format, Gguf, TensorInfo, Value};
use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::failure::Outcome;
use crate::interrupt::Interrupt;
use crate::kernels::Kernels;
use crate::options::ModelArgs;
use crate::output::{self, printable};
use crate::units;

/// Elements of a metadata array that are shown.
const SHOWN: usize = 8;

/// Shows what is in a model's file: metadata, tensors, formats, sizes, and the kernels that would run.
///
/// With --json: {"files", "version", "byte_order", "alignment", "bytes", "parameters", "architecture", "isa", "metadata":
/// {key: value}, "formats": [{"format", "tensors", "parameters", "bytes", "kernels"}], "tensors": [{"name", "format",
/// "shape", "bytes", "shard", "offset", "kernels"}]}. Shapes have their fastest dimension first. Arrays in the metadata
/// are {"type", "length", "values"} with the first few values, or all with --full. Kernels are {"decode", "prefill"}, or
/// null for tensors that enter no product.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  firecrest inspect
  firecrest inspect model.gguf
  firecrest inspect --model model.gguf --json")]
pub(crate) struct InspectArgs {
    /// The model, as --model takes it.
    #[arg(value_name = "MODEL", conflicts_with = "model")]
    positional: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
    /// Show all values of arrays.
    #[arg(long)]
    full: bool,
    /// Write JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    files: Vec<PathBuf>,
    version: u32,
    byte_order: &'static str,
    alignment: u64,
    bytes: u64,
    parameters: u64,
    architecture: Option<&'a str>,
    isa: &'static str,
    metadata: serde_json::Map<String, Json>,
    formats: Vec<FormatEntry>,
    tensors: Vec<TensorEntry<'a>>,
}

/// All tensors of one format.
#[derive(Serialize)]
struct FormatEntry {
    format: &'static str,
    tensors: usize,
    parameters: u64,
    bytes: u64,
    kernels: Option<Kernels>,
}

#[derive(Serialize)]
struct TensorEntry<'a> {
    name: &'a str,
    format: &'static str,
    shape: &'a [usize],
    bytes: usize,
    shard: usize,
    offset: u64,
    kernels: Option<Kernels>,
}

impl InspectArgs {
    pub(crate) fn run(mut self, interrupt: &Interrupt) -> Outcome {
        if let Some(model) = self.positional.take() {
            self.model.model = model;
        }
        let gguf = self.model.gguf(interrupt)?;
        let isa = CpuOptions::default().isa()?;
        let shown = if self.full { usize::MAX } else { SHOWN };
        let report = Report::new(&gguf, isa, shown);
        if self.json {
            return output::json(&report);
        }
        let mut out = output::stdout();
        report.print(&mut out)?;
        Ok(out.flush()?)
    }
}

impl<'a> Report<'a> {
    fn new(gguf: &'a Gguf, isa: IsaKind, shown: usize) -> Self {
        let entry = |tensor: &'a TensorInfo| TensorEntry {
            name: &tensor.name,
            format: tensor.format.name(),
            shape: &tensor.shape,
            bytes: tensor.data_bytes(),
            shard: tensor.shard(),
            offset: tensor.data_start(),
            kernels: Kernels::of(gguf, tensor, isa, Activations::default()),
        };
        Self {
            files: gguf.paths().map(PathBuf::from).collect(),
            version: gguf.version(),
            byte_order: if gguf.byte_order() == ByteOrder::Big { "big" } else { "little" },
            alignment: gguf.alignment(),
            bytes: gguf.file_bytes(),
            parameters: gguf.parameters(),
            architecture: gguf.metadata().architecture().ok(),
            isa: isa.name(),
            metadata: gguf
                .metadata()
                .iter()
                .map(|(key, value)| (key.to_owned(), to_json(value, shown)))
                .collect(),
            formats: formats(gguf, isa),
            tensors: gguf.tensors().iter().map(entry).collect(),
        }
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        for file in &self.files {
            writeln!(out, "file          {}", printable(&file.display().to_string()))?;
        }
        let Self { version, byte_order, alignment, .. } = self;
        writeln!(out, "GGUF          version {version}, {byte_order}-endian, alignment {alignment}")?;
        writeln!(out, "size          {} ({} bytes)", units::bytes(self.bytes), self.bytes)?;
        writeln!(out, "architecture  {}", printable(self.architecture.unwrap_or("not named")))?;
        writeln!(out, "parameters    {}", units::count(self.parameters))?;
        let row = |entry: &FormatEntry| {
            let kernels = entry.kernels.as_ref();
            vec![
                format!("  {}", entry.format),
                format!("{} tensors", entry.tensors),
                units::count(entry.parameters),
                units::bytes(entry.bytes),
                kernels.map(|kernels| format!("{} {}", kernels.decode, kernels.prefill)).unwrap_or_default(),
            ]
        };
        writeln!(out, "\nFormats, with the kernels for one token and for many")?;
        output::table(out, &self.formats.iter().map(row).collect::<Vec<_>>(), &[1, 2, 3])?;

        writeln!(out, "\nMetadata")?;
        for (key, value) in &self.metadata {
            writeln!(out, "  {} = {}", printable(key), printable(&value.to_string()))?;
        }
        writeln!(out, "\nTensors, fastest dimension first")?;
        let row = |tensor: &TensorEntry<'_>| {
            let shape: Vec<_> = tensor.shape.iter().map(usize::to_string).collect();
            let kernels = tensor.kernels.as_ref();
            vec![
                format!("  {}", printable(tensor.name)),
                tensor.format.to_owned(),
                shape.join(" × "),
                units::bytes(tensor.bytes as u64),
                kernels.map(|kernels| kernels.decode.clone()).unwrap_or_default(),
            ]
        };
        output::table(out, &self.tensors.iter().map(row).collect::<Vec<_>>(), &[3])
    }
}

/// The formats of a file, that of the most bytes first.
fn formats(gguf: &Gguf, isa: IsaKind) -> Vec<FormatEntry> {
    let mut formats: BTreeMap<Format, FormatEntry> = BTreeMap::new();
    for tensor in gguf.tensors() {
        let format = tensor.format;
        let empty = FormatEntry { format: format.name(), tensors: 0, parameters: 0, bytes: 0, kernels: None };
        let entry = formats.entry(format).or_insert(empty);
        entry.tensors += 1;
        entry.parameters += tensor.elements();
        entry.bytes += tensor.data_bytes() as u64;
        entry.kernels =
            entry.kernels.take().or_else(|| Kernels::of(gguf, tensor, isa, Activations::default()));
    }
    let mut formats: Vec<_> = formats.into_values().collect();
    formats.sort_by_key(|entry| std::cmp::Reverse(entry.bytes));
    formats
}

/// A metadata value; of an array the first `shown` elements. Numbers that JSON lacks (NaN) become null.
fn to_json(value: &Value, shown: usize) -> Json {
    match value {
        Value::U8(v) => json!(v),
        Value::I8(v) => json!(v),
        Value::U16(v) => json!(v),
        Value::I16(v) => json!(v),
        Value::U32(v) => json!(v),
        Value::I32(v) => json!(v),
        Value::U64(v) => json!(v),
        Value::I64(v) => json!(v),
        Value::F32(v) => json!(shortest(*v)),
        Value::F64(v) => json!(v),
        Value::Bool(v) => json!(v),
        Value::String(v) => json!(v),
        Value::Array(array) => {
            json!({ "type": array.type_name(), "length": array.len(), "values": elements(array, shown) })
        }
    }
}

fn elements(array: &Array, shown: usize) -> Json {
    fn first<T: Serialize>(values: &[T], shown: usize) -> Json {
        json!(&values[..values.len().min(shown)])
    }
    match array {
        Array::U8(v) => first(v, shown),
        Array::I8(v) => first(v, shown),
        Array::U16(v) => first(v, shown),
        Array::I16(v) => first(v, shown),
        Array::U32(v) => first(v, shown),
        Array::I32(v) => first(v, shown),
        Array::U64(v) => first(v, shown),
        Array::I64(v) => first(v, shown),
        Array::F32(v) => json!(v.iter().take(shown).map(|&v| shortest(v)).collect::<Vec<_>>()),
        Array::F64(v) => first(v, shown),
        Array::Bool(v) => first(v, shown),
        Array::String(v) => json!(v.iter().take(shown).collect::<Vec<_>>()),
    }
}

/// The double with the same shortest decimal text: 0.00001, not 0.000009999999747378752.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_cut_and_say_how_long_they_are() {
        let value = Value::from((0..20).collect::<Vec<u32>>());
        let json = to_json(&value, 3);
        assert_eq!(json, json!({"type": "[u32]", "length": 20, "values": [0, 1, 2]}));
        assert_eq!(to_json(&value, usize::MAX)["values"].as_array().map(Vec::len), Some(20));
    }

    #[test]
    fn floats_keep_their_short_text() {
        assert_eq!(to_json(&Value::F32(1e-5), 1).to_string(), "0.00001");
        assert_eq!(to_json(&Value::F32(f32::NAN), 1), Json::Null);
    }
}
