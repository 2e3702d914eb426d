//! A TOML file as a tree of values that know their place, and the errors that say it. Reads types, never
//! meaning: which values make sense is decided by the modules around it.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Bytes of a configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Characters of a refused value that an error repeats.
const SHOWN_CHARS_MAX: usize = 80;

/// Why the box can't start as it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the configuration file `{}`: {source}; name another with `--config FILE`", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file isn't TOML.
    #[error("{place}: isn't TOML: {message}; mend the file at that place")]
    Syntax {
        /// Where.
        place: Place,
        /// What the parser says.
        message: String,
    },
    /// A key or a value is refused.
    #[error("{setting}: {problem}; {remedy}")]
    Refused {
        /// Key, value and place.
        setting: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// There is nothing to serve.
    #[error(
        "no model is given, so there is nothing to serve; add `--model NAME=PATH.gguf`, or `--upstream URL` for all \
         models of a server that you have, or `--model NAME=echo:` to try things out, or a `[[model]]` or \
         `[[upstream]]` section to the configuration file; `--nodes-only` leaves all work to nodes that join"
    )]
    NoModel,
    /// There is nowhere to keep files.
    #[error("no data directory: neither $XDG_DATA_HOME nor $HOME is set; name one with `--data-dir DIR`")]
    NoDataDir,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    path: Arc<Path>,
    line: usize,
    column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path.display(), self.line, self.column)
    }
}

/// A value with who stated it, for errors.
#[derive(Debug, Clone)]
pub(super) struct Stated<T> {
    pub(super) value: T,
    origin: Origin,
}

#[derive(Debug, Clone)]
enum Origin {
    Default { key: &'static str, shown: String },
    Flag { flag: &'static str, shown: String },
    File { place: Place, key: String, shown: String },
}

impl<T> Stated<T> {
    pub(super) fn flag(flag: &'static str, shown: &str, value: T) -> Self {
        Self { value, origin: Origin::Flag { flag, shown: shown.to_owned() } }
    }

    /// The same without its text: somebody may have put a secret there.
    pub(super) fn hidden(&self) -> Stated<()> {
        let shown = "...".to_owned();
        let origin = match &self.origin {
            Origin::Default { key, .. } => Origin::Default { key, shown },
            Origin::Flag { flag, .. } => Origin::Flag { flag, shown },
            Origin::File { place, key, .. } => Origin::File { place: place.clone(), key: key.clone(), shown },
        };
        Stated { value: (), origin }
    }

    /// Another value from the same origin: what it was parsed to.
    pub(super) fn with<U>(&self, value: U) -> Stated<U> {
        Stated { value, origin: self.origin.clone() }
    }

    /// Where in a file it is stated, if it is in one.
    pub(super) fn place(&self) -> Option<&Place> {
        match &self.origin {
            Origin::File { place, .. } => Some(place),
            Origin::Default { .. } | Origin::Flag { .. } => None,
        }
    }

    pub(super) fn refused(&self, problem: &str, remedy: String) -> ConfigError {
        ConfigError::Refused { setting: self.origin.to_string(), problem: problem.to_owned(), remedy }
    }
}

impl<T: fmt::Display> Stated<T> {
    pub(super) fn default_of(key: &'static str, value: T) -> Self {
        let shown = value.to_string();
        Self { value, origin: Origin::Default { key, shown } }
    }
}

impl Stated<u64> {
    pub(super) fn in_range(&self, least: u64, most: u64, default: u64) -> Result<u64, ConfigError> {
        if (least..=most).contains(&self.value) {
            return Ok(self.value);
        }
        let problem = if self.value < least { "is too small" } else { "is too large" };
        Err(self.refused(problem, format!("choose from {least} to {most} (default {default})")))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default { key, shown } => write!(f, "`{key} = {shown}` (the default)"),
            Origin::Flag { flag, shown } if shown.is_empty() => write!(f, "`{flag}`"),
            Origin::Flag { flag, shown } => write!(f, "`{flag} {}`", shorten(shown)),
            Origin::File { place, key, shown } => write!(f, "{place}: `{key} = {}`", shorten(shown)),
        }
    }
}

/// The first line of a text, cut where it gets long.
fn shorten(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let shown: String = line.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < text.len() { format!("{shown}…") } else { shown }
}

/// A configuration file's text.
#[derive(Debug)]
pub(super) struct Document {
    path: Arc<Path>,
    text: String,
}

impl Document {
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        use std::io::Read;
        let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let mut text = String::new();
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(unreadable(std::io::Error::other(format!(
                "it is longer than {FILE_BYTES_MAX} bytes"
            ))));
        }
        Ok(Self { path: path.into(), text })
    }

    /// A text that was read by somebody else; `path` is what errors call it.
    pub(super) fn of(path: &Path, text: String) -> Self {
        Self { path: path.into(), text }
    }

    #[cfg(test)]
    pub(super) fn of_text(text: &str) -> Self {
        Self::of(Path::new("/etc/box.toml"), text.to_owned())
    }

    /// The directory that relative paths in the file start from.
    pub(super) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    pub(super) fn parse(&self) -> Result<DeTable<'_>, ConfigError> {
        DeTable::parse(&self.text).map(Spanned::into_inner).map_err(|error| {
            let place = self.place(error.span().map_or(0, |span| span.start));
            ConfigError::Syntax { place, message: error.message().replace('\n', ", ") }
        })
    }

    fn place(&self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place {
            path: Arc::clone(&self.path),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    fn stated<T>(&self, key: String, span: Range<usize>, value: T) -> Stated<T> {
        let shown = self.text.get(span.clone()).unwrap_or_default().to_owned();
        Stated { value, origin: Origin::File { place: self.place(span.start), key, shown } }
    }
}

/// One table of a document whose keys were all found to be known.
pub(super) struct Section<'d> {
    document: &'d Document,
    name: &'static str,
    table: &'d DeTable<'d>,
}

impl<'d> Section<'d> {
    /// `table` under its name; `""` is the document itself. Refuses keys other than `known`; `elsewhere` finds
    /// a key that was written in the wrong section.
    pub(super) fn open(
        document: &'d Document,
        name: &'static str,
        table: &'d DeTable<'d>,
        known: &[&'static str],
        elsewhere: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let section = Self { document, name, table };
        for (key, value) in table {
            let key = key.get_ref();
            if !known.contains(&key.as_ref()) {
                let remedy =
                    match elsewhere(key).or_else(|| nearest(key, known).map(|near| section.key(near))) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("known here: {}", known.join(", ")),
                    };
                let stated = document.stated(section.key(key), value.span(), ());
                return Err(stated.refused("this key isn't known", remedy));
            }
        }
        Ok(section)
    }

    fn key(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    fn expected(&self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str) -> ConfigError {
        let problem = format!("is of the wrong type ({})", value.get_ref().type_str());
        self.document.stated(self.key(key), value.span(), ()).refused(&problem, format!("write {expected}"))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<Stated<String>>, ConfigError> {
        self.table.get(key).map(|value| self.text_of(key, value)).transpose()
    }

    fn text_of(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<Stated<String>, ConfigError> {
        match value.get_ref().as_str() {
            Some(text) => Ok(self.document.stated(self.key(key), value.span(), text.to_owned())),
            None => Err(self.expected(key, value, "a text in quotes")),
        }
    }

    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<Stated<String>>>, ConfigError> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        match value.get_ref().as_array() {
            Some(items) => {
                items.iter().map(|item| self.text_of(key, item)).collect::<Result<_, _>>().map(Some)
            }
            None => Err(self.expected(key, value, "a list of texts: [\"...\"]")),
        }
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<Stated<u64>>, ConfigError> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        let integer = value.get_ref().as_integer();
        let number = integer.and_then(|integer| u64::from_str_radix(integer.as_str(), integer.radix()).ok());
        match number {
            Some(number) => Ok(Some(self.document.stated(self.key(key), value.span(), number))),
            None => Err(self.expected(key, value, "a whole number, zero or more")),
        }
    }

    pub(super) fn truth(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        match value.get_ref().as_bool() {
            Some(truth) => Ok(Some(truth)),
            None => Err(self.expected(key, value, "true or false")),
        }
    }

    pub(super) fn table(&self, key: &str) -> Result<Option<&'d DeTable<'d>>, ConfigError> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        match value.get_ref().as_table() {
            Some(table) => Ok(Some(table)),
            None => Err(self.expected(key, value, &format!("a section: [{key}]"))),
        }
    }

    pub(super) fn tables(&self, key: &str) -> Result<Vec<(&'d DeTable<'d>, Stated<()>)>, ConfigError> {
        let Some(value) = self.table.get(key) else { return Ok(Vec::new()) };
        let expected = || self.expected(key, value, &format!("a list of sections: [[{key}]]"));
        let items = value.get_ref().as_array().ok_or_else(expected)?;
        let table = |item: &'d Spanned<DeValue<'d>>| {
            let table = item.get_ref().as_table().ok_or_else(expected)?;
            Ok((table, self.document.stated(key.to_owned(), item.span(), ())))
        };
        items.iter().map(table).collect()
    }
}

/// The known word that a wrong one was probably meant to be.
fn nearest(word: &str, known: &[&'static str]) -> Option<&'static str> {
    let near = known.iter().map(|known| (distance(word, known), *known)).min()?;
    (near.0 <= (word.len() / 3).max(1)).then_some(near.1)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
