//! The neurons that PowerInfer keeps on a graphics card: those that fire most.

use std::path::{Path, PathBuf};

use super::error::{FormatFault, SparseError};
use crate::gguf::{Format, Gguf};

const KIND: &str = "GPU index";

/// Which neurons of each layer are hot, as PowerInfer's `.generated.gpuidx` files say.
///
/// Such a file is a GGUF file with a tensor `blk.N.gpu_idx` for each layer: for each neuron a 1 if it is hot, or a 0. On a
/// processor alone nothing changes with it, except what a [`NeuronCache`](crate::memory::NeuronCache) keeps resident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HotNeurons {
    layers: Vec<Vec<u32>>,
}

impl HotNeurons {
    /// Where the file of a model is looked for: `model.gguf` has `model.gguf.generated.gpuidx`.
    pub fn path_for(model: &Path) -> PathBuf {
        let mut name = model.as_os_str().to_owned();
        name.push(".generated.gpuidx");
        name.into()
    }

    /// Reads a file. Fails on one that is broken, or that says other than 0 and 1 of a neuron.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, SparseError> {
        let gguf = Gguf::open(path).map_err(crate::nn::LoadError::from)?;
        Self::from_gguf(&gguf)
    }

    fn from_gguf(gguf: &Gguf) -> Result<Self, SparseError> {
        let bad = |what| SparseError::Format { what: KIND, fault: FormatFault::Value(what) };
        let mut layers = Vec::new();
        while let Some(info) = gguf.tensor(&format!("blk.{}.gpu_idx", layers.len())) {
            if info.format != Format::I32 {
                return Err(bad("the format of a layer"));
            }
            let bytes = gguf.tensor_bytes(info);
            let mut hot = Vec::new();
            for (neuron, flag) in bytes.as_chunks::<4>().0.iter().enumerate() {
                match i32::from_le_bytes(*flag) {
                    0 => {}
                    1 => hot.push(neuron as u32),
                    _ => return Err(bad("a neuron's flag")),
                }
            }
            layers.push(hot);
        }
        if layers.is_empty() {
            return Err(bad("a file without layers"));
        }
        Ok(Self { layers })
    }

    /// The hot neurons of a layer, ascending; none where the file does not have the layer.
    pub fn layer(&self, layer: usize) -> &[u32] {
        self.layers.get(layer).map_or(&[], Vec::as_slice)
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, format: Format, flags: &[i32]) -> Gguf {
        let mut writer = crate::gguf::Writer::new();
        writer.insert("general.architecture", "generic.gpu_index");
        let bytes: Vec<u8> = flags.iter().flat_map(|flag| flag.to_le_bytes()).collect();
        writer.tensor(name, format, &[flags.len()], bytes).unwrap();
        let mut file = Vec::new();
        writer.write(&mut file).unwrap();
        Gguf::from_bytes(file).unwrap()
    }

    #[test]
    fn flags_become_neurons() {
        let hot = HotNeurons::from_gguf(&file("blk.0.gpu_idx", Format::I32, &[0, 1, 1, 0, 1])).unwrap();
        assert_eq!((hot.layers(), hot.layer(0), hot.layer(1)), (1, &[1, 2, 4][..], &[][..]));
        assert_eq!(HotNeurons::path_for(Path::new("a.gguf")), Path::new("a.gguf.generated.gpuidx"));
    }

    #[test]
    fn other_files_are_refused() {
        for (name, format, flags) in [
            ("blk.0.gpu_idx", Format::F32, &[0, 1][..]),
            ("blk.0.gpu_idx", Format::I32, &[0, 2]),
            ("blk.1.gpu_idx", Format::I32, &[0, 1]),
        ] {
            assert!(HotNeurons::from_gguf(&file(name, format, flags)).is_err(), "{name} {format} {flags:?}");
        }
    }
}
