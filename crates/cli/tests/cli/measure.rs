//! `inspect`, `bench` and `completions`.

use serde_json::{Value, json};

use crate::support::{assert_fields, firecrest, on_tiny, reference, tiny};

#[test]
fn inspect_tells_all_of_a_file() {
    let path = reference("llama-256-Q4_K_M.gguf");
    let json = firecrest(["inspect", path.to_str().unwrap(), "--json"]).json();
    assert_fields(
        &json,
        &[
            "files",
            "version",
            "byte_order",
            "alignment",
            "bytes",
            "parameters",
            "architecture",
            "isa",
            "metadata",
            "formats",
            "tensors",
        ],
    );
    assert_eq!(json["files"], json!([path.to_str().unwrap()]));
    assert_eq!(json["bytes"], json!(std::fs::metadata(&path).unwrap().len()));
    assert_eq!(
        (&json["version"], &json["byte_order"], &json["alignment"]),
        (&json!(3), &json!("little"), &json!(32))
    );
    assert_eq!(json["architecture"], "llama");
    assert_eq!(json["metadata"]["llama.embedding_length"], 256);
    let vocabulary = &json["metadata"]["tokenizer.ggml.tokens"];
    assert_fields(vocabulary, &["type", "length", "values"]);
    assert_eq!(
        (&vocabulary["type"], vocabulary["values"].as_array().unwrap().len()),
        (&json!("[string]"), 8)
    );

    let tensors = json["tensors"].as_array().unwrap();
    let named = |name: &str| tensors.iter().find(|tensor| tensor["name"] == name).unwrap();
    let isa = json["isa"].as_str().unwrap();
    let query = named("blk.0.attn_q.weight");
    assert_fields(query, &["name", "format", "shape", "bytes", "shard", "offset", "kernels"]);
    assert_eq!((&query["format"], &query["shape"]), (&json!("Q4_K"), &json!([256, 256])));
    assert_eq!((&query["bytes"], &query["shard"]), (&json!(256 * 144), &json!(0)));
    let expected =
        json!({"decode": format!("{isa}/q4_k×q8/matvec"), "prefill": format!("{isa}/q4_k×q8/matmul")});
    assert_eq!(query["kernels"], expected);
    assert_eq!(named("blk.0.attn_norm.weight")["kernels"], Value::Null);

    let formats = json["formats"].as_array().unwrap();
    assert_fields(&formats[0], &["format", "tensors", "parameters", "bytes", "kernels"]);
    let total = |field: &str| formats.iter().map(|format| format[field].as_u64().unwrap()).sum::<u64>();
    assert_eq!(total("parameters"), json["parameters"].as_u64().unwrap());
    assert_eq!(total("tensors"), tensors.len() as u64);
    assert_eq!(total("bytes"), tensors.iter().map(|tensor| tensor["bytes"].as_u64().unwrap()).sum::<u64>());
}

#[test]
fn inspect_reads_well_and_shows_all_on_demand() {
    let ran = firecrest(on_tiny(&["inspect"]));
    for part in ["architecture  llama", "  llama.block_count = ", "  token_embd.weight", "64 × 384"] {
        assert!(ran.ok().contains(part), "{part}: {}", ran.stdout);
    }
    let full = firecrest(on_tiny(&["inspect", "--full", "--json"])).json();
    let vocabulary = &full["metadata"]["tokenizer.ggml.tokens"];
    assert_eq!(vocabulary["length"], vocabulary["values"].as_array().unwrap().len());
    firecrest(["inspect", "-m", tiny().to_str().unwrap(), tiny().to_str().unwrap()]).failed(2);
}

#[test]
fn bench_reports_every_test_it_was_asked_for() {
    let args = [
        "bench",
        "--prompt",
        "24",
        "--gen",
        "6",
        "--threads",
        "1,2",
        "--repeat",
        "3",
        "--depth",
        "0,10",
        "--json",
    ];
    let json = firecrest(on_tiny(&args)).json();
    assert_fields(&json, &["results", "model", "machine", "kernels"]);
    let results = json["results"].as_array().unwrap();
    let found: Vec<Value> = results
        .iter()
        .map(|result| {
            assert_fields(result, &["test", "tokens", "depth", "batch", "threads", "tokens_per_second"]);
            let speeds = &result["tokens_per_second"];
            assert_fields(speeds, &["median", "min", "max"]);
            let speed = |field: &str| speeds[field].as_f64().unwrap();
            assert!(0.0 < speed("min") && speed("min") <= speed("median") && speed("median") <= speed("max"));
            json!([result["test"], result["tokens"], result["depth"], result["batch"], result["threads"]])
        })
        .collect();
    let mut expected = Vec::new();
    for threads in [1, 2] {
        for depth in [0, 10] {
            expected.push(json!(["prefill", 24, depth, 1, threads]));
            expected.push(json!(["decode", 6, depth, 1, threads]));
        }
    }
    assert_eq!(found, expected);
    assert_fields(&json["model"], &["name", "file", "architecture", "bytes", "parameters", "formats"]);
    assert_eq!(json["model"]["file"], json!(tiny()));
    assert!(json["model"]["formats"]["F32"].as_u64().unwrap() > 0);
    assert_fields(&json["machine"], &["cpu", "arch", "os", "logical_cores", "memory_bytes", "isa"]);
    let isa = json["machine"]["isa"].as_str().unwrap();
    assert_eq!(json["kernels"]["F32"]["decode"], format!("{isa}/f32×f32/matvec"));

    let ran = firecrest(on_tiny(&["bench", "--prompt", "8", "--gen", "0", "--repeat", "1", "-t", "1"]));
    assert_eq!(ran.ok().lines().filter(|line| line.starts_with("prefill")).count(), 1, "{}", ran.stdout);
    assert!(!ran.stdout.contains("decode"));
}

#[test]
fn bench_tells_what_the_machine_can_do() {
    let args =
        ["bench", "--prompt", "8", "--gen", "4", "--threads", "2", "--repeat", "1", "--limits", "--json"];
    let limits = firecrest(on_tiny(&args)).json()["limits"].clone();
    let number = |value: &Value, field: &str| value[field].as_f64().unwrap();
    let machine = limits["machine"].as_array().unwrap();
    assert_eq!(machine.iter().map(|peak| number(peak, "threads")).collect::<Vec<_>>(), [1.0, 2.0]);
    for peak in machine {
        assert_fields(peak, &["threads", "memory_read", "cache_read", "int8", "f32"]);
        assert!(
            ["memory_read", "cache_read", "int8", "f32"].iter().all(|field| number(peak, field) > 0.1),
            "{peak}"
        );
    }
    let kernels = limits["kernels"].as_array().unwrap();
    assert!(!kernels.is_empty());
    for kernel in kernels {
        assert!(number(kernel, "decode_bytes") > 0.0 && number(kernel, "prefill_macs") > 0.0, "{kernel}");
    }
    for floor in limits["model"].as_array().unwrap() {
        assert!(number(floor, "floor_ms_per_token") > 0.0);
        let share = number(floor, "floor_ms_per_token") / number(floor, "ms_per_token");
        assert!((number(floor, "share") - share).abs() < 1e-9);
    }
}

#[test]
fn bench_knows_its_shapes() {
    for (synthetic, part) in
        [("gpt-2:q4_0", "llama-2-7b"), ("smollm2-135m:q6_k", "256"), ("llama-2-7b", "SHAPE:FORMAT")]
    {
        let ran = firecrest(["bench", "--synthetic", synthetic]);
        assert!(ran.failed(2).contains(part), "{}", ran.stderr);
    }
}

#[test]
fn batches_decode_at_each_depth() {
    let args =
        ["bench", "--synthetic", "tiny-5m:q4_0", "--prompt", "0", "--gen", "2", "--depth", "0,70", "--batch"];
    let measured =
        firecrest(args.into_iter().chain(["1,5", "--repeat", "1", "-t", "1", "--busy", "1", "--json"]))
            .json();
    let results = measured["results"].as_array().unwrap();
    let got: Vec<_> = results.iter().map(|r| json!([r["test"], r["depth"], r["batch"]])).collect();
    let expected = [(0, 1), (0, 5), (70, 1), (70, 5)].map(|(depth, batch)| json!(["decode", depth, batch]));
    assert_eq!(got, expected);
    assert!(results.iter().all(|r| r["tokens_per_second"]["min"].as_f64().unwrap() > 0.0));
    assert_eq!(measured["busy"], 1);
}

#[test]
fn a_synthetic_model_is_a_file_like_any_other() {
    let path = std::env::temp_dir().join(format!("firecrest-synthetic-{}.gguf", std::process::id()));
    let file = path.to_str().unwrap();
    firecrest(["bench", "--synthetic", "tiny-5m:q4_k", "--write", file]).ok();
    let args = ["bench", "--model", file, "--prompt", "4", "--gen", "2", "--repeat", "1", "--json"];
    let measured = firecrest(args).json();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(measured["model"]["architecture"], "llama");
    assert!(measured["model"]["formats"]["Q4_K"].as_u64().unwrap() > 2_000_000);
    assert_eq!(measured["results"].as_array().unwrap().len(), 2);

    let args = ["bench", "--synthetic", "llama-2-7b-relu:q4_0", "--write", file];
    assert!(firecrest(args).failed(1).contains("llama-2-7b-relu"));
    assert!(!path.exists());
    firecrest(["bench", "--write", file]).failed(2);
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = firecrest(["completions", shell]);
        assert!(ran.ok().contains("perplexity") && ran.stdout.contains("max-tokens"), "{shell}");
    }
    firecrest(["completions", "cmd"]).failed(2);
}
