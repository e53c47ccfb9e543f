//! Models split into several files.

use std::path::{Path, PathBuf};

use firecrest::gguf::{Gguf, GgufError, SplitFault};
use firecrest_testkit::gguf::Builder;

/// Shard `number` of `count`, with one tensor; the first has the metadata.
fn shard(number: u16, count: u16) -> Builder {
    let builder = match number {
        0 => Builder::new().key("general.architecture", "llama"),
        _ => Builder::new(),
    };
    builder
        .key("split.no", number)
        .key("split.count", count)
        .key("split.tensors.count", i32::from(count))
        .tensor(&format!("blk.{number}.weight"), &[2], 24, [number as u8, 7])
}

/// A folder with files, gone when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, files: &[(&str, Builder)]) -> Folder {
        let folder = std::env::temp_dir().join(format!("firecrest-split-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for (name, builder) in files {
            std::fs::write(folder.join(name), builder.bytes()).unwrap();
        }
        Folder(folder)
    }

    fn open(&self, name: &str) -> Result<Gguf, GgufError> {
        Gguf::open(self.0.join(name))
    }

    /// Which file is at fault, and what is wrong with it.
    fn fault(&self, name: &str) -> (String, SplitFault) {
        match self.open(name) {
            Err(GgufError::Split { path: Some(path), fault }) => {
                (path.file_name().unwrap().to_str().unwrap().to_owned(), fault)
            }
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const NAMES: [&str; 3] = ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"];

#[test]
fn a_split_model_opens_from_any_shard() {
    let folder = Folder::new("any", &[0, 1, 2].map(|n| (NAMES[n], shard(n as u16, 3))));
    for name in NAMES {
        let gguf = folder.open(name).unwrap();
        assert_eq!(gguf.metadata().architecture(), Ok("llama"));
        assert_eq!(
            gguf.paths().map(|path| path.to_owned()).collect::<Vec<_>>(),
            NAMES.map(|name| folder.0.join(name))
        );
        assert_eq!(gguf.parameters(), 6);
        for number in 0..3 {
            let tensor = gguf.tensor(&format!("blk.{number}.weight")).unwrap();
            assert_eq!((tensor.shard(), &*gguf.tensor_bytes(tensor)), (number, &[number as u8, 7][..]));
        }
    }
}

#[test]
fn a_split_model_in_memory() {
    let files = |numbers: &[u16]| numbers.iter().map(|&n| shard(n, 3).bytes()).collect::<Vec<_>>();
    let fault = |result: Result<Gguf, GgufError>| match result {
        Err(GgufError::Split { path: None, fault }) => fault,
        other => panic!("{other:?}"),
    };
    assert_eq!(Gguf::from_shards(files(&[0, 1, 2])).unwrap().tensors().len(), 3);
    assert_eq!(fault(Gguf::from_shards(files(&[1, 0, 2]))), SplitFault::Number { expected: 0, found: 1 });
    assert_eq!(fault(Gguf::from_shards(files(&[0, 1]))), SplitFault::Count { expected: 2, found: 3 });
    assert_eq!(fault(Gguf::from_bytes(shard(0, 3).bytes())), SplitFault::Count { expected: 1, found: 3 });
    assert_eq!(fault(Gguf::from_shards(Vec::<Vec<u8>>::new())), SplitFault::Missing);
    assert!(Gguf::from_bytes(shard(0, 1).bytes()).is_ok());
}

#[test]
fn the_shard_at_fault_is_named() {
    let folder = Folder::new(
        "faults",
        &[
            ("missing-00001-of-00002.gguf", shard(0, 2)),
            ("renamed.gguf", shard(1, 2)),
            ("other-00001-of-00002.gguf", shard(0, 2)),
            ("other-00002-of-00002.gguf", shard(2, 3)),
            ("swapped-00001-of-00002.gguf", shard(0, 2)),
            ("swapped-00002-of-00002.gguf", shard(0, 2)),
            ("twice-00001-of-00002.gguf", shard(0, 2)),
            ("twice-00002-of-00002.gguf", {
                let keys = Builder::new().key("split.no", 1u16).key("split.count", 2u16);
                keys.tensor("blk.0.weight", &[1], 24, [0])
            }),
            ("few-00001-of-00002.gguf", shard(0, 2)),
            ("few-00002-of-00002.gguf", Builder::new().key("split.no", 1u16).key("split.count", 2u16)),
            ("unnumbered.gguf", Builder::new().key("split.count", 2u16)),
            ("endless.gguf", Builder::new().key("split.count", u64::MAX).key("split.no", u64::MAX)),
        ],
    );
    let suffix = |suffix: &str| SplitFault::Name { suffix: suffix.to_owned() };
    let cases = [
        ("missing-00001-of-00002.gguf", "missing-00002-of-00002.gguf", SplitFault::Missing),
        ("renamed.gguf", "renamed.gguf", suffix("-00002-of-00002.gguf")),
        (
            "other-00001-of-00002.gguf",
            "other-00002-of-00002.gguf",
            SplitFault::Count { expected: 2, found: 3 },
        ),
        (
            "swapped-00001-of-00002.gguf",
            "swapped-00002-of-00002.gguf",
            SplitFault::Number { expected: 1, found: 0 },
        ),
        (
            "twice-00001-of-00002.gguf",
            "twice-00002-of-00002.gguf",
            SplitFault::DuplicateTensor("blk.0.weight".to_owned()),
        ),
        ("few-00001-of-00002.gguf", "few-00001-of-00002.gguf", SplitFault::Tensors { expected: 2, found: 1 }),
    ];
    for (open, file, fault) in cases {
        assert_eq!(folder.fault(open), (file.to_owned(), fault));
    }
    assert!(
        matches!(folder.fault("unnumbered.gguf").1, SplitFault::Metadata(error) if error.key() == "split.no")
    );
    assert!(matches!(folder.fault("endless.gguf").1, SplitFault::Name { .. }));
    let error = folder.open("missing-00001-of-00002.gguf").unwrap_err().to_string();
    assert!(error.ends_with("missing-00002-of-00002.gguf: this shard of the model is missing"), "{error}");
    assert!(matches!(Gguf::open(Path::new("/nonexistent.gguf")), Err(GgufError::Io { .. })));
}
