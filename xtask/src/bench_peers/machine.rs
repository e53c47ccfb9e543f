//! What a measurement was made on.

use std::fs;

use crate::shell::{Run, command};

/// Processor features that kernels use, as Linux spells them.
const FEATURES: [&str; 15] = [
    "sse4_1",
    "f16c",
    "fma",
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "asimd",
    "fphp",
    "asimddp",
    "i8mm",
    "sve",
];

pub(crate) struct Machine {
    pub(crate) processor: String,
    /// Threads that the system offers.
    pub(crate) cores: usize,
    pub(crate) features: Vec<String>,
    pub(crate) memory_gib: Option<f64>,
    pub(crate) system: String,
    /// Of the last minute, before the measurements.
    pub(crate) load: Option<f64>,
}

impl Machine {
    pub(crate) fn read() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let entry = |names: &[&str]| {
            let entries = cpuinfo.lines().filter_map(|line| line.split_once(':'));
            let mut values = entries.filter(|(name, _)| names.contains(&name.trim()));
            values.next().map(|(_, value)| value.trim().to_owned())
        };
        let told = |line: &str| {
            let (program, arguments) = line.split_once(' ')?;
            let text = command(program, arguments).text().ok()?;
            Some(text.trim().to_owned())
        };
        let apple =
            || cfg!(target_os = "macos").then(|| told("sysctl -n machdep.cpu.brand_string")).flatten();
        let arm = || told("lscpu").and_then(|text| lscpu_model(&text));
        let flags = entry(&["flags", "Features"]).unwrap_or_default();
        let has = |feature: &&str| flags.split(' ').any(|flag| flag == *feature);
        let kib = fs::read_to_string("/proc/meminfo").ok().and_then(|text| first_number(&text));
        Self {
            processor: entry(&["model name"])
                .or_else(apple)
                .or_else(arm)
                .unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            features: FEATURES.into_iter().filter(has).map(str::to_owned).collect(),
            memory_gib: kib.map(|kib| kib / f64::from(1 << 20)),
            system: told("uname -srm").unwrap_or_else(|| std::env::consts::OS.to_owned()),
            load: fs::read_to_string("/proc/loadavg").ok().and_then(|text| first_number(&text)),
        }
    }
}

fn first_number(text: &str) -> Option<f64> {
    text.split_whitespace().find_map(|word| word.parse().ok())
}

fn lscpu_model(text: &str) -> Option<String> {
    let entries = text.lines().filter_map(|line| line.split_once(':'));
    entries.filter(|(name, _)| name.trim() == "Model name").map(|(_, value)| value.trim().to_owned()).next()
}
