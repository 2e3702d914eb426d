//! Finds functions and other definitions in blanked code.

use super::source::{Source, item_end};

/// One function with a body.
pub struct Function {
    pub name: String,
    /// Counted from 1.
    pub line: usize,
    pub lines: usize,
}

/// All functions of a file; those within others are counted for themselves too.
pub fn of(source: &Source) -> Vec<Function> {
    let named = definitions_after(source, &["fn"]);
    let with_end = named.into_iter().map(|(line, name)| {
        let lines = body_end(&source.code, line - 1, name).map(|end| end + 2 - line);
        (line, name, lines)
    });
    with_end
        .filter_map(|(line, name, lines)| Some(Function { name: name.to_owned(), line, lines: lines? }))
        .collect()
}

/// Everything that a file gives a name to.
pub fn definitions(source: &Source) -> Vec<(usize, &str)> {
    definitions_after(source, &["fn", "struct", "enum", "trait", "mod", "type"])
}

fn definitions_after<'a>(source: &'a Source, keywords: &[&str]) -> Vec<(usize, &'a str)> {
    let mut found = Vec::new();
    for (i, line) in source.code.iter().enumerate() {
        let mut words = line.split_whitespace();
        while let Some(word) = words.next() {
            if keywords.contains(&word)
                && let Some(next) = words.clone().next()
            {
                let name = next.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
                // `$name` belongs to a macro.
                found.extend((!name.is_empty()).then_some((i + 1, name)));
            }
        }
    }
    found
}

/// The last line of a body; `None` for a declaration, which ends at a semicolon before any brace.
fn body_end(code: &[String], start: usize, name: &str) -> Option<usize> {
    let end = item_end_from(code, start, name);
    code[start..=end].iter().any(|line| line.contains('{')).then_some(end)
}

fn item_end_from(code: &[String], start: usize, name: &str) -> usize {
    let at = code[start].find(name).unwrap_or(0);
    let mut lines = code[start..].to_vec();
    lines[0] = lines[0][at..].to_owned();
    start + item_end(&lines, 0)
}

#[test]
fn functions_are_found_and_measured() {
    let text = "trait T {\n    fn declared(&self) -> [u8; 4];\n}\nfn one() { two(); }\n\nfn three(\n    f: fn(u8),\n) {\n    \
                fn inner() {\n    }\n}\n#[cfg(test)]\nmod tests {\n    fn four() {\n        \"}\";\n    }\n}\n";
    let source = super::source::parse("src/x.rs".to_owned(), text);
    let found: Vec<_> =
        of(&source).into_iter().map(|f| (f.name, f.line, f.lines, source.in_test(f.line))).collect();
    let expected =
        [("one", 4, 1, false), ("three", 6, 6, false), ("inner", 9, 2, false), ("four", 14, 3, true)];
    assert_eq!(found, expected.map(|(name, line, lines, test)| (name.to_owned(), line, lines, test)));
}
