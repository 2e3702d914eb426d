//! Reads the source and holds it to the house rules: who may import whom, how long things are, what things are called.
//!
//! A rule that fails lists every place, with the reason, so that one run is enough to mend them all.

mod functions;
mod layers;
mod source;

use functions::Function;
use source::Source;
use std::fs;

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
/// A ratchet over everything that isn't a test: these may only go down.
const FUNCTION_LINES_MEDIAN_MAX: usize = 9;
const FUNCTION_LINES_P90_MAX: usize = 35;

/// Fails with all places at once.
fn report(rule: &str, places: Vec<String>) {
    assert!(places.is_empty(), "{rule}:\n  {}", places.join("\n  "));
}

#[test]
fn files_are_short() {
    let long = |s: &&Source| s.lines.len() > FILE_LINES_MAX && s.is_code();
    let places = source::all().filter(long).map(|s| format!("{}: {} lines", s.path, s.lines.len())).collect();
    report("a file of more than 500 lines holds more than one idea", places);
}

#[test]
fn functions_are_short() {
    let functions: Vec<(Source, Vec<Function>)> =
        source::rust().map(|s| (s.clone(), functions::of(s))).collect();
    let long = functions.iter().flat_map(|(s, all)| {
        let long = all.iter().filter(|f| f.lines > FUNCTION_LINES_MAX);
        long.map(|f| format!("{}:{}: `{}` has {} lines", s.path, f.line, f.name, f.lines))
    });
    report("a function of more than 70 lines is to be split", long.collect());
    let product = functions.iter().flat_map(|(s, all)| all.iter().filter(|f| !s.in_test(f.line)));
    let mut lengths: Vec<usize> = product.map(|f| f.lines).collect();
    lengths.sort_unstable();
    let at = |share: usize| lengths[(lengths.len() - 1) * share / 100];
    println!(
        "{} functions outside tests; lines: median {}, p90 {}, p99 {}",
        lengths.len(),
        at(50),
        at(90),
        at(99)
    );
    assert!(at(50) <= FUNCTION_LINES_MEDIAN_MAX, "the median function has {} lines", at(50));
    assert!(at(90) <= FUNCTION_LINES_P90_MAX, "one function in ten has more than {} lines", at(90));
}

#[test]
fn names_say_what_things_are() {
    let mut places = Vec::new();
    for source in source::rust() {
        let named = functions::definitions(source).into_iter().map(|(line, name)| (line, name.to_owned()));
        let stem = source.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
        for (line, name) in named.chain([(1, stem)]) {
            if is_empty_name(&name) {
                places.push(format!("{}:{line}: `{name}`", source.path));
            }
        }
    }
    report("`get_`, `Manager`, `Helper` and `util` say nothing about the thing", places);
}

fn is_empty_name(name: &str) -> bool {
    let parts =
        name.split('_').any(|part| matches!(part, "util" | "utils" | "helper" | "helpers" | "manager"));
    name.starts_with("get_")
        || name.contains("Manager")
        || name.contains("Helper")
        || name.contains("Util")
        || parts
}

#[test]
fn nothing_is_left_half_done() {
    let banned = ["todo!", "unimplemented!", "dbg!"];
    let mut places = places_of(|s| s.is_rust(), &banned);
    places.extend(places_of(|s| s.is_product(), &[".unwrap()"]));
    report("left half done (or a bug without a name: use `expect` with the reason)", places);
}

/// Places of `words` in code outside tests.
fn places_of(wanted: impl Fn(&Source) -> bool, words: &[&str]) -> Vec<String> {
    let mut places = Vec::new();
    for source in source::rust().filter(|s| wanted(s)) {
        for (number, line) in source.code_lines() {
            if let Some(word) = words.iter().find(|w| source::has_word(line, w)) {
                places.push(format!("{}:{number}: {word}", source.path));
            }
        }
    }
    places
}

/// Split, so that this file doesn't break its own rule.
const MACHINE_WORDS: [&str; 9] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/tmp", "/wt"),
    concat!("pypi", ".org"),
    concat!("python", "hosted"),
    concat!("npmjs", ".org"),
    concat!("deb.", "debian"),
    concat!("static.", "crates"),
    concat!("index.", "crates"),
];

#[test]
fn nothing_knows_the_machine_it_was_written_on() {
    let mut places = Vec::new();
    for source in source::all().filter(|s| !s.path.ends_with("Cargo.lock")) {
        for (i, line) in source.lines.iter().enumerate() {
            if let Some(word) = MACHINE_WORDS.iter().find(|w| line.contains(*w)) {
                places.push(format!("{}:{}: {word}", source.path, i + 1));
            }
        }
    }
    report("a path of one machine, or the host of a registry", places);
}

#[test]
fn documents_name_only_scripts_that_exist() {
    let mut places = Vec::new();
    for document in source::all().filter(|s| s.path.ends_with(".md")) {
        for (i, line) in document.lines.iter().enumerate() {
            for script in scripts_in(line).filter(|s| !crate::harness::root().join(s).exists()) {
                places.push(format!("{}:{}: {script}", document.path, i + 1));
            }
        }
    }
    report("a script that isn't there", places);
}

fn scripts_in(line: &str) -> impl Iterator<Item = String> {
    let starts = line.match_indices("scripts/").map(|(at, _)| &line[at..]);
    let name = |text: &str| {
        let path = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        text.chars().take_while(|c| path(*c)).collect::<String>().trim_end_matches(['.', '/']).to_owned()
    };
    starts.map(name).filter(|n| n != "scripts").collect::<Vec<_>>().into_iter()
}

#[test]
fn scripts_can_be_run() {
    use std::os::unix::fs::PermissionsExt;
    let with_shebang =
        |s: &Source| s.lines.first().is_some_and(|l| l.starts_with("#!") && !l.starts_with("#!["));
    let mode =
        |s: &Source| fs::metadata(crate::harness::root().join(&s.path)).map(|m| m.permissions().mode());
    let fixed = |s: &Source| mode(s).is_ok_and(|m| m & 0o111 != 0);
    let places = source::all().filter(|s| with_shebang(s) && !fixed(s)).map(|s| s.path.clone()).collect();
    report("has a `#!` line but isn't executable", places);
}
