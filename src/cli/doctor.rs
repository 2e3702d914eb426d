//! `switchbox doctor`: what is wrong with a data directory, where, and what a start would do about it. Looks only.
//!
//! Its exit code says it to scripts: 0 all is well, 1 something isn't, 2 it can't be looked at.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::complain;
use super::terminal::{one_line, printable};
use crate::doctor::{self, Report, Severity};

const DAMAGED: u8 = 1;
const NOT_LOOKED_AT: u8 = 2;

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 healthy, 1 damaged, 2 it can't be looked at (a box runs on it, a newer version wrote \
                  it, ...).\nA directory that is in use is refused: stop the box, or look at a backup of it.\n\n\
                  Example:\n  switchbox doctor ~/.local/share/switchbox"
)]
pub(super) struct DoctorArgs {
    /// The box's data directory, or a backup
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Where to copy the state store to, which is looked at in a copy [default: the system's directory for
    /// temporary files]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &DoctorArgs) -> ExitCode {
    let scratch = scratch(args.scratch.as_deref());
    let report = match doctor::examine(&args.dir, &scratch) {
        Ok(report) => report,
        Err(error) => {
            complain(&error);
            return ExitCode::from(NOT_LOOKED_AT);
        }
    };
    let text = if args.json { format!("{:#}\n", json_of(&args.dir, &report)) } else { text_of(&report) };
    if let Err(error) = std::io::stdout().write_all(printable(&text).as_bytes()) {
        complain(&error);
        return ExitCode::from(NOT_LOOKED_AT);
    }
    match report.severity() {
        Severity::Note => ExitCode::SUCCESS,
        Severity::Damage | Severity::Loss => ExitCode::from(DAMAGED),
    }
}

/// A name for a directory that isn't there.
fn scratch(within: Option<&Path>) -> PathBuf {
    let mut random = [0; 8];
    // It is made only if it isn't there, so a name that isn't random is refused at worst.
    let _ = getrandom::fill(&mut random);
    let name = format!("switchbox-doctor-{}-{:016x}", std::process::id(), u64::from_le_bytes(random));
    within.map_or_else(std::env::temp_dir, Path::to_owned).join(name)
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Damage => "damage",
        Severity::Loss => "loss",
    }
}

fn verdict(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "healthy",
        Severity::Damage => "damaged, and a start does without what is damaged",
        Severity::Loss => "damaged: a start refuses it, or something that was kept is lost",
    }
}

fn text_of(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        // Writing to a string doesn't fail.
        let _ = writeln!(text, "{:<7} {}", word(finding.severity), one_line(&finding.text));
    }
    let _ = writeln!(text, "{}", verdict(report.severity()));
    text
}

fn json_of(dir: &Path, report: &Report) -> Value {
    let finding = |finding: &switchbox_storage::Finding| json!({"severity": word(finding.severity), "text": finding.text});
    json!({
        "directory": dir.display().to_string(),
        "healthy": report.severity() == Severity::Note,
        "severity": word(report.severity()),
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "rows": report.rows,
        // A text, for it may be larger than what JSON's readers take for a number.
        "ledger_sum": report.ledger_sum.map(|sum| sum.to_string()),
        "payloads": report.payloads.0,
        "payload_bytes": report.payloads.1,
    })
}

#[cfg(test)]
mod tests {
    use switchbox_storage::Finding;

    use super::*;

    #[test]
    fn findings_are_lines_and_the_verdict_is_the_worst_of_them() {
        let finding = |severity, text: &str| Finding { severity, text: text.into() };
        let mut report = Report {
            findings: vec![finding(Severity::Note, "a\nb")],
            rows: Some(3),
            ledger_sum: Some(0),
            payloads: (1, 2),
        };
        assert_eq!(text_of(&report), "note    a b\nhealthy\n");
        assert_eq!(json_of(Path::new("/d"), &report)["healthy"], true);
        report.findings.push(finding(Severity::Loss, "c"));
        report.findings.push(finding(Severity::Damage, "d"));
        assert!(
            text_of(&report).ends_with("damaged: a start refuses it, or something that was kept is lost\n")
        );
        let json = json_of(Path::new("/d"), &report);
        assert_eq!(
            (&json["healthy"], &json["severity"], &json["ledger_sum"]),
            (&false.into(), &"loss".into(), &"0".into())
        );
    }
}
