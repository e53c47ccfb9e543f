//! Weights in safetensors files.

use std::fs;
use std::path::Path;

use firecrest_kernels::format::Format;
use indexmap::IndexMap;
use safetensors::{Dtype, SafeTensors};

use super::ConvertError;
use crate::weights::Bytes;

/// All tensors of a model, in mapped files.
pub(super) struct Checkpoint {
    tensors: IndexMap<String, Tensor>,
}

/// A tensor where it lies.
#[derive(Clone)]
pub(super) struct Tensor {
    /// F32, F16 or BF16.
    pub(super) format: Format,
    /// Slowest dimension first.
    pub(super) shape: Vec<usize>,
    pub(super) data: Bytes,
}

impl Checkpoint {
    /// Opens every `*.safetensors` of a folder, in the order of their names.
    pub(super) fn open(dir: &Path) -> Result<Self, ConvertError> {
        let entries = fs::read_dir(dir).map_err(|source| ConvertError::Io { path: dir.into(), source })?;
        let mut paths: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
            .collect();
        paths.sort();
        // Some repositories have the whole model beside its shards.
        if let Some(whole) = paths.iter().find(|path| path.file_name() == Some("model.safetensors".as_ref()))
        {
            paths = vec![whole.clone()];
        }
        if paths.is_empty() {
            return Err(ConvertError::NoWeights { dir: dir.into() });
        }
        let mut tensors = IndexMap::new();
        for path in &paths {
            let bytes =
                Bytes::open(path).map_err(|source| ConvertError::Io { path: path.clone(), source })?;
            read_file(&bytes, &mut tensors).map_err(|error| match error {
                ReadError::File(reason) => ConvertError::Safetensors { path: path.clone(), reason },
                ReadError::Tensor(error) => error,
            })?;
        }
        tensors.sort_unstable_keys();
        Ok(Self { tensors })
    }

    pub(super) fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Whether an encoder's layers have a head behind them that scores texts.
    pub(super) fn has_classifier(&self) -> bool {
        ["classifier.weight", "classifier.out_proj.weight"]
            .iter()
            .any(|name| self.tensors.contains_key(*name))
    }

    /// Names and tensors, in the order of the names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }
}

enum ReadError {
    File(String),
    Tensor(ConvertError),
}

fn read_file(bytes: &Bytes, tensors: &mut IndexMap<String, Tensor>) -> Result<(), ReadError> {
    let (header, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|error| ReadError::File(error.to_string()))?;
    let data = bytes.slice((8 + header).min(bytes.len())..bytes.len());
    for (name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        if start > end || end > data.len() {
            return Err(ReadError::File(format!("tensor {name} reaches past the end of the file")));
        }
        let format = match info.dtype {
            Dtype::F32 => Format::F32,
            Dtype::F16 => Format::F16,
            Dtype::BF16 => Format::BF16,
            // Position ids and masks, which some checkpoints carry along, are no weights.
            Dtype::I64 | Dtype::I32 | Dtype::U8 | Dtype::BOOL => continue,
            dtype => {
                return Err(ReadError::Tensor(ConvertError::Tensor {
                    tensor: name,
                    dtype: format!("{dtype:?}"),
                    shape: info.shape.clone(),
                }));
            }
        };
        let (shape, data) = (info.shape.clone(), data.slice(start..end));
        tensors.insert(name, Tensor { format, shape, data });
    }
    Ok(())
}

impl Tensor {
    /// All values as floats.
    pub(super) fn values(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.data.len() / self.format.block_bytes()];
        self.format.dequantize(&self.data, &mut values);
        values
    }
}
