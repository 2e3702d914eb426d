//! Points in time for people: in UTC, to the second.

/// Unix seconds as `2026-11-28 21:04:05Z`.
pub(super) fn utc(unix_secs: f64) -> String {
    let secs = unix_secs.clamp(0.0, 253_402_300_799.0) as u64;
    let (days, rest) = (secs / 86_400, secs % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day since 1970-01-01. Years are counted from March, so that the leap day is their last:
/// then a month's first day is `(153 m + 2) / 5` (m = 0 for March), and a day's place in 400 years says its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let since_year_0 = days + 719_468;
    let (era, of_era) = (since_year_0 / 146_097, since_year_0 % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (secs, text) in [
            (0.0, "1970-01-01 00:00:00Z"),
            (951_782_399.9, "2000-02-28 23:59:59Z"),
            (951_782_400.0, "2000-02-29 00:00:00Z"),
            (1_795_899_845.0, "2026-11-28 21:04:05Z"),
            (4_107_542_400.0, "2100-03-01 00:00:00Z"),
            (-1.0, "1970-01-01 00:00:00Z"),
            (f64::MAX, "9999-12-31 23:59:59Z"),
        ] {
            assert_eq!(utc(secs), text);
        }
    }
}
