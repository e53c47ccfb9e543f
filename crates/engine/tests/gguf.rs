//! Sound files: everything that is written comes back, whoever wrote it.

use std::path::{Path, PathBuf};

use firecrest::gguf::{Array, ByteOrder, Format, Gguf, StringArray, Value, WriteError, Writer};
use firecrest_testkit::gguf::Builder;

/// One key of each type, and arrays.
fn every_type() -> Builder {
    Builder::new()
        .key("general.architecture", "llama")
        .key("u8", 1u8)
        .key("i8", -2i8)
        .key("u16", 300u16)
        .key("i16", -300i16)
        .key("u32", 70_000u32)
        .key("i32", -70_000i32)
        .key("f32", 1.5f32)
        .key("bool", true)
        .key("string", "naïve 😀")
        .key("u64", u64::MAX)
        .key("i64", i64::MIN)
        .key("f64", -2.25f64)
        .key("strings", vec!["a", "", "日本", "z"])
        .key("floats", vec![0.5f32, -1.0])
        .key("ints", vec![1i32, -1])
        .key("longs", vec![1u64 << 40])
        .key("bools", vec![true, false])
        .key("bytes", vec![9u8])
        .key("nothing", Vec::<&str>::new())
}

fn values() -> Vec<(&'static str, Value)> {
    let strings: StringArray = ["a", "", "日本", "z"].into_iter().collect();
    vec![
        ("general.architecture", "llama".into()),
        ("u8", Value::U8(1)),
        ("i8", Value::I8(-2)),
        ("u16", Value::U16(300)),
        ("i16", Value::I16(-300)),
        ("u32", Value::U32(70_000)),
        ("i32", Value::I32(-70_000)),
        ("f32", Value::F32(1.5)),
        ("bool", Value::Bool(true)),
        ("string", "naïve 😀".into()),
        ("u64", Value::U64(u64::MAX)),
        ("i64", Value::I64(i64::MIN)),
        ("f64", Value::F64(-2.25)),
        ("strings", Value::Array(Array::String(strings))),
        ("floats", vec![0.5f32, -1.0].into()),
        ("ints", vec![1i32, -1].into()),
        ("longs", vec![1u64 << 40].into()),
        ("bools", vec![true, false].into()),
        ("bytes", vec![9u8].into()),
        ("nothing", StringArray::default().into()),
    ]
}

fn entries(gguf: &Gguf) -> Vec<(&str, Value)> {
    gguf.metadata().iter().map(|(key, value)| (key, value.clone())).collect()
}

/// A folder of its own for a test, gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("firecrest-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn every_type_of_value_in_each_version_and_byte_order() {
    for (builder, version, order) in [
        (every_type().version(2), 2, ByteOrder::Little),
        (every_type(), 3, ByteOrder::Little),
        (every_type().big_endian(), 3, ByteOrder::Big),
    ] {
        let file = builder.bytes();
        let gguf = Gguf::from_bytes(file.clone()).unwrap();
        assert_eq!(entries(&gguf), values());
        assert_eq!((gguf.version(), gguf.byte_order()), (version, order));
        assert_eq!((gguf.alignment(), gguf.file_bytes()), (32, file.len() as u64));
        assert_eq!((gguf.tensors().len(), gguf.parameters()), (0, 0));
    }
}

#[test]
fn tensors_with_their_shapes_and_data() {
    for alignment in [1, 8, 32, 4096] {
        let gguf = Gguf::from_bytes(
            Builder::new()
                .alignment(alignment)
                .tensor("b", &[32, 3], 2, vec![7; 54])
                .tensor("a", &[2, 1, 1, 2], 0, (0..16).collect::<Vec<u8>>())
                .tensor("number", &[], 24, [5])
                .bytes(),
        )
        .unwrap();
        assert_eq!(gguf.alignment(), u64::from(alignment));
        assert_eq!(gguf.parameters(), 96 + 4 + 1);
        let names: Vec<_> = gguf.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["b", "a", "number"]);
        let check = |name: &str, format, shape: &[usize], data: &[u8]| {
            let tensor = gguf.tensor(name).unwrap();
            assert_eq!((tensor.format, tensor.shape.as_slice()), (format, shape));
            assert_eq!(tensor.elements(), shape.iter().product::<usize>() as u64);
            assert_eq!(tensor.data_bytes(), data.len());
            assert_eq!(*gguf.tensor_bytes(tensor), *data);
        };
        check("a", Format::F32, &[2, 1, 1, 2], &(0..16).collect::<Vec<u8>>());
        check("b", Format::Q4_0, &[32, 3], &[7; 54]);
        check("number", Format::I8, &[1], &[5]);
        assert!(gguf.tensor("c").is_none());
    }
}

#[test]
fn data_of_a_big_endian_file_reads_as_little_endian() {
    let gguf = Gguf::from_bytes(
        Builder::new()
            .big_endian()
            .f32_tensor("f32", &[2], &[1.0, -3.5])
            .tensor("q8_0", &[32], 8, [&[0x3c, 0x00][..], &[3; 32]].concat())
            .tensor("mxfp4", &[32], 39, (0..17).collect::<Vec<u8>>())
            .bytes(),
    )
    .unwrap();
    let data = |name| gguf.tensor_bytes(gguf.tensor(name).unwrap()).to_vec();
    assert_eq!(data("f32"), [1f32, -3.5].map(f32::to_le_bytes).concat());
    assert_eq!(data("q8_0"), [&[0x00, 0x3c][..], &[3; 32]].concat());
    assert_eq!(data("mxfp4"), (0..17).collect::<Vec<u8>>());
}

#[test]
fn what_the_writer_writes_reads_back() {
    for alignment in [None, Some(64u32)] {
        let mut writer = Writer::new();
        values().into_iter().for_each(|(key, value)| writer.insert(key, value));
        if let Some(alignment) = alignment {
            writer.insert("general.alignment", alignment);
        }
        writer.tensor("half", Format::F16, &[3], vec![1, 2, 3, 4, 5, 6]).unwrap();
        writer.tensor("blocks", Format::Q8_0, &[64, 2], vec![9; 136]).unwrap();
        let mut file = Vec::new();
        writer.write(&mut file).unwrap();

        // The independent builder makes the same file, up to the padding at its end.
        let builder = match alignment {
            Some(alignment) => every_type().alignment(alignment),
            None => every_type(),
        };
        let expected = builder
            .tensor("half", &[3], 1, [1, 2, 3, 4, 5, 6])
            .tensor("blocks", &[64, 2], 8, [9; 136])
            .bytes();
        assert!(file.starts_with(&expected) && file[expected.len()..].iter().all(|&byte| byte == 0));
        assert_eq!(file.len() as u64 % u64::from(alignment.unwrap_or(32)), 0);

        let gguf = Gguf::from_bytes(file).unwrap();
        assert_eq!(*gguf.tensor_bytes(&gguf.tensors()[1]), [9; 136]);
    }
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let mut writer = Writer::new();
    writer.tensor("t", Format::F32, &[1], vec![0; 4]).unwrap();
    let mut error = |name: &str, format, shape: &[usize], bytes: usize| {
        writer.tensor(name, format, shape, vec![0; bytes]).unwrap_err().to_string()
    };
    assert_eq!(error("t", Format::F32, &[1], 4), "tensor t was added already");
    assert_eq!(error("u", Format::F32, &[2], 4), "tensor u has 4 bytes, expected 8");
    for shape in [&[][..], &[0], &[1, 0], &[1; 5], &[usize::MAX, 2]] {
        assert_eq!(
            error("u", Format::F32, shape, 0),
            format!("tensor u can't have shape {shape:?} in format F32")
        );
    }
    assert_eq!(error("u", Format::Q4_0, &[33], 18), "tensor u can't have shape [33] in format Q4_0");
    for (alignment, works) in [(Value::U32(48), false), ("32".into(), false), (Value::U64(64), true)] {
        writer.insert("general.alignment", alignment);
        assert_eq!(writer.write(std::io::sink()).is_ok(), works);
    }
}

#[test]
fn writing_a_file_leaves_the_old_one_or_the_new_one() {
    let folder = Folder::new("atomic");
    let path = folder.0.join("model.gguf");
    let mut writer = Writer::new();
    writer.insert("answer", 41u32);
    writer.write_file(&path).unwrap();
    let old = Gguf::open(&path).unwrap();

    writer.insert("answer", 42u32);
    writer.write_file(&path).unwrap();
    assert_eq!(old.metadata().u32("answer"), Ok(41));
    assert_eq!(Gguf::open(&path).unwrap().metadata().u32("answer"), Ok(42));

    writer.insert("general.alignment", 3u32);
    assert!(matches!(writer.write_file(&path), Err(WriteError::Alignment(3))));
    assert!(matches!(writer.write_file(folder.0.join("absent/model.gguf")), Err(WriteError::Io(_))));
    assert_eq!(Gguf::open(&path).unwrap().metadata().u32("answer"), Ok(42));
    assert_eq!(folder.files(), ["model.gguf"]);
}

/// Reads every file of a folder of models, where the environment names one: files that others wrote.
#[test]
fn reference_models_read() {
    let Some(reference) = std::env::var_os("FIRECREST_REF") else {
        eprintln!("skipped: FIRECREST_REF names no folder of reference data");
        return;
    };
    let mut files = 0;
    for folder in ["archs", "tokenizer/vocab"] {
        for entry in std::fs::read_dir(Path::new(&reference).join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "gguf") {
                let start = std::time::Instant::now();
                let gguf = Gguf::open(&path).unwrap();
                let took = start.elapsed();
                assert!(gguf.metadata().architecture().is_ok(), "{}", path.display());
                assert!(took.as_millis() < 50, "{}: {took:?}", path.display());
                let data: usize = gguf.tensors().iter().map(|tensor| gguf.tensor_bytes(tensor).len()).sum();
                eprintln!("{}: {} tensors, {data} bytes, {took:?}", path.display(), gguf.tensors().len());
                files += 1;
            }
        }
    }
    assert!(files > 0);
}
