//! Any bytes either open or are an error; what opens can be read whole, and survives being written.
#![no_main]

use firecrest::gguf::{Gguf, Writer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    let Ok(gguf) = Gguf::from_bytes(file.to_vec()) else { return };
    for (key, _) in gguf.metadata().iter() {
        let metadata = gguf.metadata();
        let _ = (metadata.opt_str(key), metadata.opt_u32(key), metadata.opt_f32(key), metadata.opt_i32s(key));
        if let Ok(Some(strings)) = metadata.opt_strings(key) {
            assert_eq!(strings.iter().count(), strings.len());
        }
    }
    for tensor in gguf.tensors() {
        assert_eq!(gguf.tensor(&tensor.name), Some(tensor));
        assert_eq!(gguf.tensor_bytes(tensor).len(), tensor.data_bytes());
    }
    // A large alignment is sound, but its padding is not worth the time.
    if gguf.alignment() <= 4096 {
        let written = write(&gguf);
        assert_eq!(written, write(&Gguf::from_bytes(written.clone()).unwrap()));
    }
});

fn write(gguf: &Gguf) -> Vec<u8> {
    let mut writer = Writer::with_metadata(gguf.metadata().clone());
    for tensor in gguf.tensors() {
        writer.tensor(&tensor.name, tensor.format, &tensor.shape, gguf.tensor_bytes(tensor)).unwrap();
    }
    let mut file = Vec::new();
    writer.write(&mut file).unwrap();
    file
}
