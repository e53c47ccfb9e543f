//! What the program runs on.

use std::{fmt, fs};

use serde::Serialize;

use crate::units;

/// The machine, as `bench` reports it.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    /// The processor's name; null where the system does not tell.
    cpu: Option<String>,
    arch: &'static str,
    os: &'static str,
    logical_cores: usize,
    memory_bytes: Option<u64>,
    /// The instruction set that kernels run on.
    isa: String,
}

impl Machine {
    pub(crate) fn detect(isa: &str) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            cpu: field(&cpuinfo, "model name").map(str::to_owned),
            arch: std::env::consts::ARCH,
            os: std::env::consts::OS,
            logical_cores: std::thread::available_parallelism().map_or(1, Into::into),
            memory_bytes: field(&meminfo, "MemTotal").and_then(kilobytes),
            isa: isa.to_owned(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = self.cpu.as_deref().unwrap_or("unknown processor");
        write!(f, "{cpu}, {} cores, {}", self.logical_cores, self.isa)?;
        self.memory_bytes.iter().try_for_each(|&bytes| write!(f, ", {} of memory", units::bytes(bytes)))
    }
}

/// The most memory that this process has had resident, mapped files included; `None` where the system does not tell.
pub(crate) fn peak_memory() -> Option<u64> {
    kilobytes(field(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM")?)
}

/// The value of the first line `name: value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

/// `123 kB` in bytes.
fn kilobytes(value: &str) -> Option<u64> {
    value.strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_files() {
        let text = "processor\t: 0\nmodel name\t: A CPU: fast\nMemTotal:       16 kB\n";
        assert_eq!(field(text, "model name"), Some("A CPU: fast"));
        assert_eq!(field(text, "MemTotal").and_then(kilobytes), Some(16 * 1024));
        assert_eq!(field(text, "flags"), None);
    }
}
