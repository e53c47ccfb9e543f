//! Which processors the program may run on: `--cpu-mask`.

use crate::failure::Outcome;

/// The most processors that Linux's masks of fixed size name.
const MAX_CPUS: usize = 1024;

/// Processors by number, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CpuMask(Vec<usize>);

impl std::str::FromStr for CpuMask {
    type Err = String;

    /// Reads hexadecimal digits, with `0x` or without; bit `n` is processor `n`.
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("0x").or(text.strip_prefix("0X")).unwrap_or(text);
        let mut cpus = Vec::new();
        for (i, digit) in digits.chars().rev().enumerate() {
            let digit = digit.to_digit(16).ok_or_else(|| format!("{digit:?} is no hexadecimal digit"))?;
            cpus.extend((0..4).filter(|bit| digit >> bit & 1 == 1).map(|bit| 4 * i + bit));
        }
        match cpus.last() {
            None => Err("names no processor".into()),
            Some(&last) if last >= MAX_CPUS => {
                Err(format!("names processor {last}; at most {MAX_CPUS} are known"))
            }
            Some(_) => Ok(Self(cpus)),
        }
    }
}

impl CpuMask {
    /// Keeps this thread, and all that it starts, to these processors.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn apply(&self) -> Outcome {
        use crate::failure::OrFail;
        let mut set = rustix::thread::CpuSet::new();
        self.0.iter().for_each(|&cpu| set.set(cpu));
        rustix::thread::sched_setaffinity(None, &set)
            .or_fail(|| format!("can't run on processors {:?} alone", self.0))
    }

    /// Keeps this thread, and all that it starts, to these processors.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(crate) fn apply(&self) -> Outcome {
        Err(crate::failure::Failure::Usage(
            "--cpu-mask: this system does not let programs choose processors".into(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_processors() {
        let cpus = |mask: &str| mask.parse::<CpuMask>().map(|mask| mask.0);
        assert_eq!(cpus("3"), Ok(vec![0, 1]));
        assert_eq!(cpus("0xA1"), Ok(vec![0, 5, 7]));
        assert_eq!(cpus("8000000000000000F"), Ok(vec![0, 1, 2, 3, 67]));
        assert!(cpus("0").unwrap_err().contains("no processor") && cpus("").is_err());
        assert!(cpus("1g").unwrap_err().contains("'g'"));
        assert!(cpus(&"f".repeat(300)).unwrap_err().contains("1199"));
    }
}
