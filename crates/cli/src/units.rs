//! Numbers for people.

/// `98.4 MB`, in powers of a thousand.
pub(crate) fn bytes(bytes: u64) -> String {
    scaled(bytes, &["B", "kB", "MB", "GB", "TB"])
}

/// `134.5 M`, in powers of a thousand.
pub(crate) fn count(count: u64) -> String {
    scaled(count, &["", "k", "M", "G", "T"])
}

fn scaled(number: u64, units: &[&str]) -> String {
    let mut value = number as f64;
    let mut unit = 0;
    // What would be shown as 1000.0 belongs to the next unit.
    while value >= 999.95 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let text = if unit == 0 { number.to_string() } else { format!("{value:.1}") };
    format!("{text} {}", units[unit]).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(98_362_432), "98.4 MB");
        assert_eq!(bytes(999_999_999), "1.0 GB");
        assert_eq!(bytes(u64::MAX), "18446744.1 TB");
        assert_eq!(count(576), "576");
        assert_eq!(count(134_515_008), "134.5 M");
    }
}
