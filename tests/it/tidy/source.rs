//! The files of the checkout, with the code of Rust files told apart from comments, literals and tests.

use crate::harness::root;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// What isn't source (`.git` is a file in a work tree).
const SKIPPED: [&str; 8] =
    ["target", ".git", "node_modules", ".venv", ".cache", "__pycache__", "proptest-regressions", "results"];

/// One text file.
#[derive(Clone)]
pub struct Source {
    /// From the top of the checkout, with `/`.
    pub path: String,
    pub lines: Vec<String>,
    /// The lines with comments and literals blanked; equal to `lines` where the file isn't Rust.
    pub code: Vec<String>,
    /// For each line, whether it belongs to a test.
    test: Vec<bool>,
}

impl Source {
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    pub fn is_code(&self) -> bool {
        [".rs", ".py", ".mjs", ".cu", ".cuh", ".js"].iter().any(|end| self.path.ends_with(end))
            || self.path.starts_with("scripts/")
    }

    /// Part of what is shipped or measured, as opposed to what checks it.
    pub fn is_product(&self) -> bool {
        self.is_rust() && !self.path.starts_with("tests/") && !self.path.starts_with("loom/")
    }

    pub fn in_test(&self, line: usize) -> bool {
        self.test[line - 1]
    }

    /// Numbered lines of code outside tests.
    pub fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.code.iter().enumerate().map(|(i, line)| (i + 1, line.as_str()));
        numbered.filter(|(number, _)| !self.in_test(*number))
    }
}

/// Every text file of the checkout.
pub fn all() -> impl Iterator<Item = &'static Source> {
    static ALL: OnceLock<Vec<Source>> = OnceLock::new();
    ALL.get_or_init(read_all).iter()
}

pub fn rust() -> impl Iterator<Item = &'static Source> {
    all().filter(|s| s.is_rust())
}

/// Whether `line` contains `word` as a word of its own (where it begins or ends like one).
pub fn has_word(line: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, found)| {
        let open = part(found.chars().next()) && part(line[..at].chars().next_back());
        let close = part(found.chars().next_back()) && part(line[at + found.len()..].chars().next());
        !open && !close
    })
}

fn read_all() -> Vec<Source> {
    let mut sources = Vec::new();
    walk(&root(), &mut sources);
    let test_modules: HashSet<String> = sources.iter().flat_map(test_modules_of).collect();
    for source in &mut sources {
        let within = |module: &String| {
            source.path == format!("{module}.rs") || source.path.starts_with(&format!("{module}/"))
        };
        if source.path.starts_with("tests/")
            || source.path.contains("/tests/")
            || test_modules.iter().any(within)
        {
            source.test.fill(true);
        }
    }
    sources
}

fn walk(dir: &Path, sources: &mut Vec<Source>) {
    let mut entries: Vec<_> = fs::read_dir(dir).expect("the checkout can be read").flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let kind = entry.file_type().expect("the checkout can be read");
        if SKIPPED.iter().any(|s| name == *s) {
            continue;
        }
        if kind.is_dir() {
            walk(&entry.path(), sources);
        } else if kind.is_file() {
            sources.extend(read(&entry.path()));
        }
    }
}

/// `None` for what isn't text.
fn read(path: &Path) -> Option<Source> {
    let text = fs::read_to_string(path).ok()?;
    let path = path.strip_prefix(root()).expect("below the top").to_str().expect("UTF-8");
    Some(parse(path.to_owned(), &text))
}

/// Tells code from the rest.
pub fn parse(path: String, text: &str) -> Source {
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let code =
        if path.ends_with(".rs") { blank(text).lines().map(str::to_owned).collect() } else { lines.clone() };
    let test = test_lines(&code);
    Source { path, lines, code, test }
}

/// Marks what follows a `#[cfg(test)]` up to the closing brace of that item.
fn test_lines(code: &[String]) -> Vec<bool> {
    let mut test = vec![false; code.len()];
    let mut line = 0;
    while line < code.len() {
        let end = if is_test_attribute(&code[line]) { item_end(code, line) } else { line };
        test[line..=end].fill(end > line);
        line = end + 1;
    }
    test
}

fn is_test_attribute(line: &str) -> bool {
    let line = line.trim_start();
    ["#[cfg(test)]", "#[cfg(all(test", "#[cfg(all(loom", "#[cfg(all(switchbox_loom"]
        .iter()
        .any(|a| line.starts_with(a))
}

/// The line of the item's closing brace, or of its semicolon where it has no braces.
pub fn item_end(code: &[String], start: usize) -> usize {
    let mut depth = 0_i32;
    for (i, line) in code.iter().enumerate().skip(start) {
        for c in line.chars() {
            match c {
                '{' | '(' | '[' => depth += 1,
                '}' if depth == 1 => return i,
                '}' | ')' | ']' => depth -= 1,
                ';' if depth == 0 => return i,
                _ => {}
            }
        }
    }
    code.len() - 1
}

/// The modules that a file declares under `#[cfg(test)]`, as paths without `.rs`.
fn test_modules_of(source: &Source) -> Vec<String> {
    let Some((dir, file)) = source.path.rsplit_once('/') else { return Vec::new() };
    let stem = file.trim_end_matches(".rs");
    let below = if matches!(stem, "mod" | "lib" | "main") { dir.to_owned() } else { format!("{dir}/{stem}") };
    let declared = source.code.iter().zip(&source.test).filter(|(_, test)| **test);
    let names = declared.filter_map(|(line, _)| {
        line.trim().trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';')
    });
    names.map(|name| format!("{below}/{name}")).collect()
}

/// Replaces comments and the insides of literals by spaces; lines stay where they are.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let literal = literal_len(rest, out.chars().next_back());
        if literal == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            out.extend(rest[..literal].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[literal..];
        }
    }
    out
}

/// The length of the comment or literal that `rest` begins with; 0 where it begins with neither.
fn literal_len(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |end| end + 2);
    }
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    match rest.trim_start_matches('b').chars().next() {
        Some('"') if !in_word => quoted_len(rest),
        Some('r') if !in_word => raw_len(rest),
        Some('\'') if rest.starts_with('\'') => char_len(rest),
        _ => 0,
    }
}

fn quoted_len(rest: &str) -> usize {
    let open = rest.find('"').unwrap_or(0);
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(open + 1) {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    rest.len()
}

/// `r"…"`, `r#"…"#` and their byte forms; 0 for a word that merely begins with `r`.
fn raw_len(rest: &str) -> usize {
    let prefix = rest.len() - rest.trim_start_matches('b').len() + 1;
    let hashes = rest[prefix..].chars().take_while(|c| *c == '#').count();
    if !rest[prefix + hashes..].starts_with('"') {
        return 0;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let body = prefix + hashes + 1;
    rest[body..].find(&close).map_or(rest.len(), |end| body + end + close.len())
}

/// A character, as opposed to a lifetime, ends with a quote after one (perhaps escaped) character.
fn char_len(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => rest[3..].find('\'').map_or(0, |end| 3 + end + 1),
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

#[test]
fn literals_and_comments_are_told_from_code() {
    let text = "let a = \"fn x() {\"; // fn y\nlet b = r#\"{\"#; let c = '{'; fn f<'a>(x: &'a str) {} /* { */ let d = '\\'';";
    let code = blank(text);
    assert_eq!(code.matches("fn").count(), 1, "{code}");
    assert_eq!(code.matches('{').count(), 1, "{code}");
    assert_eq!(code.lines().count(), 2);
}
