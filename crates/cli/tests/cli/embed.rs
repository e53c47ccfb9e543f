//! `convert`, `embed`, `similarity` and `rerank`.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use parquet::file::reader::SerializedFileReader;
use parquet::record::{ListAccessor, RowAccessor};
use serde_json::{Value, json};

use crate::support::{Folder, assert_fields, command, firecrest, with_input};

/// A tiny model in the layout of Hugging Face.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/data/convert").join(name)
}

fn converted(folder: &Folder, name: &str) -> String {
    let out = folder.path().join(format!("{name}.gguf"));
    let ran = firecrest([
        "convert".as_ref(),
        "--type".as_ref(),
        "f32".as_ref(),
        source(name).as_os_str(),
        out.as_os_str(),
    ]);
    assert_eq!(ran.ok(), "");
    assert!(ran.stderr.contains("tensors"), "{}", ran.stderr);
    out.display().to_string()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn vector(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[test]
fn texts_become_lines_of_json() {
    let folder = Folder::new();
    let model = converted(&folder, "bert");
    let by_arguments = firecrest(["embed", "-m", &model, "the cat", "a red hat"]);
    let found = lines(by_arguments.ok());
    assert_eq!(found.len(), 2);
    assert_fields(&found[1], &["index", "embedding", "tokens", "truncated"]);
    assert_eq!((&found[1]["index"], &found[1]["truncated"]), (&json!(1), &json!(false)));
    let vector = vector(&found[0]["embedding"]);
    assert_eq!(vector.len(), 32);
    assert!((vector.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-5);

    let by_lines = with_input(command(["embed", "-m", &model]), "the cat\na red hat\n");
    assert_eq!(by_lines.ok(), by_arguments.stdout);
    let csv = folder.file("in.csv", "id,body\n1,the cat\n2,\"a red hat\"\n");
    let jsonl = folder.file("in.jsonl", "{\"body\": \"the cat\"}\n\n{\"id\": 2, \"body\": \"a red hat\"}\n");
    // Written by pyarrow 22, with its defaults.
    let parquet = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/texts.parquet");
    for input in [csv, jsonl, parquet] {
        let ran = firecrest(["embed", "-m", &model, "--column", "body", "--input", input.to_str().unwrap()]);
        assert_eq!(ran.ok(), by_arguments.stdout, "{input:?}");
        let ran =
            firecrest(["embed", "-m", &model, "--column", "nobody", "--input", input.to_str().unwrap()]);
        assert!(ran.failed(1).contains("nobody"), "{}", ran.stderr);
    }
    let ran = firecrest(["embed", "-m", &model, "--pooling", "none", "the"]);
    let states = &lines(ran.ok())[0]["embedding"];
    assert_eq!((states.as_array().unwrap().len(), states[0].as_array().unwrap().len()), (3, 32));
    let ran = firecrest(["embed", "-m", &model, "--dimensions", "4", "the"]);
    assert_eq!(lines(ran.ok())[0]["embedding"].as_array().unwrap().len(), 4);
    firecrest(["embed", "-m", &model, "--format", "npy", "the"]).failed(2);
    let broken = folder.file("in.parquet", "PAR1 and nothing more");
    let ran = firecrest(["embed", "-m", &model, "--input", broken.to_str().unwrap()]);
    assert!(ran.failed(1).contains("in.parquet"), "{}", ran.stderr);
}

#[test]
fn arrays_are_for_numpy() {
    let folder = Folder::new();
    let model = converted(&folder, "bert");
    let out = folder.path().join("out.npy");
    let path = out.to_str().unwrap();
    firecrest(["embed", "-m", &model, "-o", path, "the cat", "a red hat", "mats"]).ok();
    let bytes = fs::read(&out).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let header = String::from_utf8(bytes[10..128].to_vec()).unwrap();
    assert!(header.contains("'shape': (3, 32)") && header.contains("'<f4'"), "{header}");
    assert_eq!(bytes.len(), 128 + 3 * 32 * 4);
    let values: Vec<f32> = bytes[128..].as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    let ran = firecrest(["embed", "-m", &model, "mats"]);
    let expected = vector(&lines(ran.ok())[0]["embedding"]);
    for (got, want) in values[64..].iter().zip(expected) {
        assert!((f64::from(*got) - want).abs() < 1e-6);
    }
}

#[test]
fn tables_have_a_column_of_lists() {
    let folder = Folder::new();
    let model = converted(&folder, "bert");
    let out = folder.path().join("out.parquet");
    firecrest(["embed", "-m", &model, "-o", out.to_str().unwrap(), "the cat", "a red hat"]).ok();
    let expected = lines(firecrest(["embed", "-m", &model, "the cat", "a red hat"]).ok());
    let reader = SerializedFileReader::new(fs::File::open(&out).unwrap()).unwrap();
    let rows: Vec<_> = reader.into_iter().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 2);
    for (row, expected) in rows.iter().zip(&expected) {
        assert_eq!(row.get_long(0).unwrap(), expected["index"].as_i64().unwrap());
        assert_eq!(i64::from(row.get_int(2).unwrap()), expected["tokens"].as_i64().unwrap());
        assert_eq!(row.get_bool(3).unwrap(), expected["truncated"].as_bool().unwrap());
        let (got, want) = (row.get_list(1).unwrap(), vector(&expected["embedding"]));
        assert_eq!(got.len(), want.len());
        for (i, want) in want.iter().enumerate() {
            assert!((f64::from(got.get_float(i).unwrap()) - want).abs() < 1e-6);
        }
    }
}

/// Texts that differ, so that a line that is lost or repeated shows.
fn many(count: usize) -> String {
    let words = ["cat", "hat", "mat", "red", "sat", "on", "and", "the"];
    (0..count).map(|i| format!("{} {} {i}\n", words[i % 8], words[i / 8 % 8])).collect()
}

#[test]
fn jobs_that_are_cut_off_go_on_without_loss_or_repetition() {
    let folder = Folder::new();
    let model = converted(&folder, "bert");
    let input = folder.file("in.txt", many(3000));
    let input = input.to_str().unwrap();
    for name in ["out.jsonl", "out.npy", "out.parquet"] {
        let whole = folder.path().join(format!("whole-{name}"));
        firecrest(["embed", "-m", &model, "-i", input, "-o", whole.to_str().unwrap()]).ok();
        let want = fs::read(&whole).unwrap();

        let out = folder.path().join(name);
        let part = folder.path().join(format!("{name}.part"));
        let args = ["embed", "-m", &model, "-i", input, "-o", out.to_str().unwrap()];
        // Killed in the middle, several times.
        let mut last = 0;
        for _ in 0..20 {
            let mut child = command(args).spawn().unwrap();
            let started = Instant::now();
            while started.elapsed() < Duration::from_secs(30) {
                let len = fs::metadata(&part).map_or(0, |metadata| metadata.len());
                if len > last || child.try_wait().unwrap().is_some() {
                    last = len;
                    break;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            let _ = child.kill();
            child.wait().unwrap();
            if out.exists() {
                break;
            }
            // As after a crash of the machine, in the middle of a row.
            let bytes = fs::read(&part).unwrap();
            fs::write(&part, &bytes[..bytes.len() - bytes.len().min(7)]).unwrap();
        }
        if !out.exists() {
            firecrest(args).ok();
        }
        assert!(fs::read(&out).unwrap() == want, "{name}");
        assert!(!part.exists() && !folder.path().join(format!("{name}.job")).exists());
    }
}

#[test]
fn a_part_of_another_job_is_not_gone_on_with() {
    let folder = Folder::new();
    let model = converted(&folder, "bert");
    let (input, out) = (folder.file("in.txt", many(10)), folder.path().join("out.jsonl"));
    let (input, out) = (input.to_str().unwrap(), out.to_str().unwrap());
    let bad = folder.file("bad.jsonl", "nonsense\n");
    firecrest(["embed", "-m", &model, "-i", bad.to_str().unwrap(), "-o", out]).failed(1);
    fs::write(format!("{out}.part"), "{\"index\":0}\n").unwrap();
    let ran = firecrest(["embed", "-m", &model, "-i", input, "-o", out]);
    assert!(ran.failed(1).contains("--restart"), "{}", ran.stderr);
    firecrest(["embed", "-m", &model, "-i", input, "-o", out, "--restart"]).ok();
    assert_eq!(fs::read_to_string(out).unwrap().lines().count(), 10);
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_a_job_that_waits_for_input() {
    let folder = Folder::new();
    let model = converted(&folder, "bert");
    let mut child = command(["embed", "-m", &model]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(many(256).as_bytes()).unwrap();
    // The first batch is done when its first line comes; Ctrl-C then ends the program at the end of a batch.
    let mut byte = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    stdin.write_all(many(256).as_bytes()).unwrap();
    drop(stdin);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
}

#[test]
fn speed_is_that_of_texts_of_one_length() {
    let folder = Folder::new();
    let model = converted(&folder, "bert");
    let args =
        ["bench", "-m", &model, "--embed", "4,9", "--batch", "1,3", "--repeat", "1", "-t", "1", "--json"];
    let json = firecrest(args).json();
    let results = json["results"].as_array().unwrap();
    let found: Vec<_> =
        results.iter().map(|r| json!([r["test"], r["tokens"], r["batch"], r["threads"]])).collect();
    let expected = [(4, 1), (4, 3), (9, 1), (9, 3)].map(|(tokens, batch)| json!(["embed", tokens, batch, 1]));
    assert_eq!(found, expected);
    assert!(results.iter().all(|result| result["tokens_per_second"]["median"].as_f64().unwrap() > 0.0));
    firecrest(["bench", "-m", &model, "--embed", "0"]).failed(2);
}

#[test]
fn similarity_of_texts() {
    let folder = Folder::new();
    let model = converted(&folder, "bert");
    assert_eq!(firecrest(["similarity", "-m", &model, "the cat", "the cat"]).ok(), "1.0000\n");
    let ran = firecrest(["similarity", "-m", &model, "the cat", "a hat", "mats"]);
    assert_eq!(ran.ok().lines().count(), 2);
    let json = firecrest(["similarity", "-m", &model, "--json", "the cat", "a hat", "mats"]).json();
    assert_fields(&json, &["similarity", "matrix"]);
    assert_eq!(json["matrix"][0][1], json["similarity"]);
    assert_eq!(json["matrix"][0][1], json["matrix"][1][0]);
    firecrest(["similarity", "-m", &model, "alone"]).failed(2);
}

#[test]
fn documents_are_sorted_by_relevance() {
    let folder = Folder::new();
    for name in ["cross-encoder", "bert"] {
        let model = converted(&folder, name);
        let documents = ["the cat sat on the mat", "hats and mats", "red!"];
        let args = [&["rerank", "-m", &model, "--json", "red cats"], &documents[..]].concat();
        let json = firecrest(&args).json();
        assert_fields(&json, &["results"]);
        let results = json["results"].as_array().unwrap();
        assert_eq!(results.len(), 3);
        assert!(results.windows(2).all(|pair| pair[0]["score"].as_f64() >= pair[1]["score"].as_f64()));
        for result in results {
            assert_eq!(result["text"], json!(documents[result["index"].as_u64().unwrap() as usize]));
        }
        let ran =
            with_input(command(["rerank", "-m", &model, "--top", "1", "red cats"]), &documents.join("\n"));
        assert_eq!(ran.ok().lines().count(), 1);
    }
}
