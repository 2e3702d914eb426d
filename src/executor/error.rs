//! What can go wrong with a model or a prompt, each with where, what, and the remedy. No logic.

use std::path::{Path, PathBuf};

/// A model file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file cannot be opened or mapped.
    #[error("cannot open the model {}: {source}; check the path and its permissions", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is damaged, cut short, or no GGUF file.
    #[error("the model {} is damaged: {place}: {problem}; fetch the file again and compare its SHA-256", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The field or tensor.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The file is well formed and asks for something that is not built in.
    #[error("the model {} is not supported: {place}: {problem}; {remedy}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The field or tensor.
        place: String,
        /// What it asks for.
        problem: String,
        /// What to do.
        remedy: String,
    },
}

/// A fault in a model file before the file's name is known to the code that finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The field or tensor.
    pub place: String,
    /// What is wrong with it.
    pub problem: String,
    /// Set where the file is well formed: what to do instead.
    pub remedy: Option<&'static str>,
}

impl Fault {
    /// Damage at `place`.
    pub(crate) fn malformed(place: impl Into<String>, problem: impl Into<String>) -> Fault {
        Fault { place: place.into(), problem: problem.into(), remedy: None }
    }

    /// A wish at `place` that is not built in.
    pub(crate) fn unsupported(
        place: impl Into<String>,
        problem: impl Into<String>,
        remedy: &'static str,
    ) -> Fault {
        Fault { place: place.into(), problem: problem.into(), remedy: Some(remedy) }
    }

    /// Names the file.
    pub(crate) fn in_file(self, path: &Path) -> ModelError {
        let Fault { place, problem, remedy } = self;
        let path = path.to_owned();
        match remedy {
            None => ModelError::Malformed { path, place, problem },
            Some(remedy) => ModelError::Unsupported { path, place, problem, remedy: remedy.to_owned() },
        }
    }
}

/// Messages or text cannot be turned into a prompt.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// The file has no template.
    #[error("the model {model} has no chat template; use /v1/completions with plain text")]
    NoTemplate {
        /// The model's name.
        model: String,
    },
    /// The template itself refused the messages.
    #[error("the model's chat template refused the messages: {reason}")]
    Refused {
        /// What the template gave as the reason.
        reason: String,
    },
    /// The template is broken, or asks for something that it is not given.
    #[error("the model's chat template failed: {reason}; the model's file is at fault, not the request")]
    Template {
        /// The template engine's words.
        reason: String,
    },
    /// The template ran longer than allowed.
    #[error(
        "the model's chat template used more than {fuel} steps for these messages; send fewer or shorter ones"
    )]
    OutOfFuel {
        /// The bound.
        fuel: u64,
    },
    /// The tokenizer failed.
    #[error("the text cannot be tokenized: {reason}")]
    Tokenizer {
        /// What it stumbled over.
        reason: String,
    },
    /// The text is longer than what is tokenized at all.
    #[error("the prompt has {bytes} bytes of text, more than the {bytes_max} that are tokenized; send less")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
}
