//! What templates of Hugging Face expect to be able to call.

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, State, Value};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};

/// The reason that a template gave to `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

/// Adds `raise_exception`, `strftime_now` and `tojson`.
pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_function("raise_exception", |reason: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(reason)))
    });
    environment.add_function("strftime_now", |format: &str| strftime(format, SystemTime::now()));
    environment.add_filter("tojson", tojson);
}

/// Python's methods of strings, lists and dictionaries, but not `format`: its widths make strings of any length
/// in one step.
pub(super) fn unknown_method(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if method == "format" {
        let refused = "the method `format` is not supported in chat templates";
        return Err(Error::new(ErrorKind::UnknownMethod, refused));
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

/// JSON as Python writes it: a space after `,` and `:`, and no HTML escapes.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Python's other options (ensure_ascii, separators, sort_keys) keep their defaults here.
    let mut out = Vec::new();
    match indent {
        Some(n) if n <= 16 => {
            let spaces = " ".repeat(n);
            let pretty = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, pretty))
        }
        _ => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Spaced)),
    }
    .map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    String::from_utf8(out).map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))
}

/// The time in UTC by `format`: the fields that templates use; others stay as written.
fn strftime(format: &str, now: SystemTime) -> String {
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
    let seconds = now.duration_since(UNIX_EPOCH).map(|d| d.as_secs()).unwrap_or(0);
    let (year, month, day) = civil(seconds / 86_400);
    let name = MONTHS[month as usize - 1];
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '%' { chars.next() } else { None }) {
            ('%', Some('Y')) => out.push_str(&format!("{year:04}")),
            ('%', Some('m')) => out.push_str(&format!("{month:02}")),
            ('%', Some('d')) => out.push_str(&format!("{day:02}")),
            ('%', Some('B')) => out.push_str(name),
            ('%', Some('b')) => out.push_str(&name[..3]),
            ('%', Some('H')) => out.push_str(&format!("{:02}", seconds / 3600 % 24)),
            ('%', Some('M')) => out.push_str(&format!("{:02}", seconds / 60 % 60)),
            ('%', Some('S')) => out.push_str(&format!("{:02}", seconds % 60)),
            (c, next) => out.extend(std::iter::once(c).chain(next)),
        }
    }
    out
}

/// Year, month and day of a day after 1970-01-01, by the Gregorian calendar's 400-year cycle.
fn civil(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, date)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates() {
        let cases = [
            (0, "%d %b %Y", "01 Jan 1970"),
            (951_782_400, "%Y-%m-%d", "2000-02-29"),
            (1_735_689_599, "%B %d %H:%M:%S %q", "December 31 23:59:59 %q"),
        ];
        for (seconds, format, expected) in cases {
            assert_eq!(strftime(format, UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }
}
