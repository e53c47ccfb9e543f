//! Python's `strftime` in the C locale, at UTC: a library that runs in browsers knows no other time zone.

use std::fmt::Write as _;

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Formats a time in seconds since 1970. Directives it does not know stay as they are.
pub(super) fn format(seconds: i64, format: &str) -> String {
    let (days, second_of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    let weekday = (days + 4).rem_euclid(7) as usize;
    let day_of_year = days - days_from_civil(year, 1, 1) + 1;
    let hour12 = (hour + 11) % 12 + 1;

    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = chars.next();
        let padded = directive != Some('-');
        if !padded {
            directive = chars.next();
        }
        let mut number = |value: i64, width: usize| {
            let width = if padded { width } else { 1 };
            // Writing to a string does not fail.
            let _ = write!(out, "{value:0width$}");
        };
        match directive {
            Some('Y') => number(year, 1),
            Some('y') => number(year.rem_euclid(100), 2),
            Some('m') => number(month, 2),
            Some('d') => number(day, 2),
            Some('j') => number(day_of_year, 3),
            Some('H') => number(hour, 2),
            Some('I') => number(hour12, 2),
            Some('M') => number(minute, 2),
            Some('S') => number(second, 2),
            Some('f') => number(0, 6),
            Some('e') => {
                let _ = write!(out, "{day:2}");
            }
            Some('w') => number(weekday as i64, 1),
            Some('u') => number((weekday as i64 + 6) % 7 + 1, 1),
            Some('A') => out.push_str(DAYS[weekday]),
            Some('a') => out.push_str(&DAYS[weekday][..3]),
            Some('B') => out.push_str(MONTHS[month as usize - 1]),
            Some('b' | 'h') => out.push_str(&MONTHS[month as usize - 1][..3]),
            Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            Some('F') => out.push_str(&self::format(seconds, "%Y-%m-%d")),
            Some('T' | 'X') => out.push_str(&self::format(seconds, "%H:%M:%S")),
            Some('R') => out.push_str(&self::format(seconds, "%H:%M")),
            Some('D' | 'x') => out.push_str(&self::format(seconds, "%m/%d/%y")),
            Some('c') => out.push_str(&self::format(seconds, "%a %b %e %H:%M:%S %Y")),
            Some('s') => number(seconds, 1),
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('%') => out.push('%'),
            // The time has no zone, as that of Python's `datetime.now()`.
            Some('z' | 'Z') => {}
            other => {
                out.push_str(if padded { "%" } else { "%-" });
                out.extend(other);
            }
        }
    }
    out
}

/// Year, month and day of a number of days since 1970. Source: Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_as_python_does() {
        // datetime(2024, 2, 29, 15, 4, 5).strftime(…)
        let time = 1_709_219_045;
        let cases = [
            ("%d %b %Y", "29 Feb 2024"),
            ("%B %-d, %Y", "February 29, 2024"),
            ("%A %I:%M:%S %p day %j", "Thursday 03:04:05 PM day 060"),
            ("%Y-%m-%dT%H:%M:%S%z", "2024-02-29T15:04:05"),
            ("%c|%e|%u|%w|%%|%y", "Thu Feb 29 15:04:05 2024|29|4|4|%|24"),
            ("100% %", "100% %"),
        ];
        for (format, expected) in cases {
            assert_eq!(super::format(time, format), expected, "{format}");
        }
        assert_eq!(super::format(-1, "%F %T"), "1969-12-31 23:59:59");
    }

    #[test]
    fn days_and_dates_are_inverse() {
        for days in (-800_000..800_000).step_by(97) {
            let (year, month, day) = civil(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }
}
