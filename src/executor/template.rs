//! The chat template of a model's file, rendered as Hugging Face does. The template comes from anyone: it
//! runs with bounded steps and depth (its memory is not bounded). Message text comes from anyone too: it never becomes a special token.
//!
//! How that is kept: besides the plain rendering there is one with *marked* contents. A marker (a private-use
//! character that occurs nowhere in the messages or the template) is put beside every character of a content
//! that could begin or end a special token. The marked rendering is split at special tokens, which markers
//! break; then the markers are taken out and the text between is tokenized as plain text. If both renderings
//! are equal but for the markers, the result is the plain rendering's text with only the template's own
//! special tokens parsed. If they differ, the template looked into the text; then the prompt is refused if
//! any content spells a special token, and is the plain rendering otherwise.

mod functions;

use std::panic::{AssertUnwindSafe, catch_unwind};

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value, context};

use self::functions::Raised;
use super::error::PromptError;
use super::model::ChatMessage;
use super::tokenizer::{Piece, SpecialTokens, TEXT_BYTES_MAX, Tokenizer};

/// Steps that one rendering may take; SmolLM2's takes about 20 a message.
const FUEL: u64 = 5_000_000;
const RECURSION_MAX: usize = 64;
const ROLE_BYTES_MAX: usize = 64;
/// Characters of a template's own words that are passed on.
const REASON_CHARS_MAX: usize = 500;

/// A chat template and the fixed values that it sees.
pub(crate) struct Template {
    environment: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
    edges: Vec<char>,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Template").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Template {
    /// Keeps the source; it is compiled, and its faults found, when it is rendered.
    pub(crate) fn new(source: &str, tokenizer: &Tokenizer) -> Template {
        let mut environment = Environment::new();
        environment.set_syntax(hugging_face_syntax());
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_recursion_limit(RECURSION_MAX);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(functions::unknown_method);
        functions::add_to(&mut environment);
        Template {
            environment,
            source: source.to_owned(),
            bos: tokenizer.bos_text(),
            eos: tokenizer.eos_text(),
            edges: tokenizer.special_edges(),
        }
    }

    /// The tokens of the rendered `messages`; see the head of this file.
    pub(crate) fn encode(
        &self,
        messages: &[ChatMessage<'_>],
        tokenizer: &Tokenizer,
    ) -> Result<Vec<u32>, PromptError> {
        let bytes = messages.iter().map(|m| m.content.len()).sum();
        if bytes > TEXT_BYTES_MAX {
            return Err(PromptError::TooLong { bytes, bytes_max: TEXT_BYTES_MAX });
        }
        messages.iter().try_for_each(|m| check_role(m.role))?;
        let plain = self.render(messages)?;
        let marker = self.marker(messages)?;
        let contents: Vec<String> = messages.iter().map(|m| self.mark(m.content, marker)).collect();
        let marked: Vec<ChatMessage<'_>> = messages
            .iter()
            .zip(&contents)
            .map(|(message, content)| ChatMessage { role: message.role, content })
            .collect();
        match self.render(&marked) {
            Ok(marked) if marked.chars().filter(|c| *c != marker).eq(plain.chars()) => {
                encode_marked(&marked, marker, tokenizer)
            }
            _ => encode_unmarked(&plain, messages, tokenizer),
        }
    }

    /// The text of the rendered `messages`, with the opening of the answer.
    pub(crate) fn render(&self, messages: &[ChatMessage<'_>]) -> Result<String, PromptError> {
        let message = |m: &ChatMessage<'_>| context! { role => m.role, content => m.content };
        let messages: Vec<Value> = messages.iter().map(message).collect();
        let values = context! {
            messages,
            tools => Value::from(()),
            documents => Value::from(()),
            add_generation_prompt => true,
            bos_token => &self.bos,
            eos_token => &self.eos,
        };
        let rendering = || self.environment.template_from_str(&self.source)?.render(values);
        // The template is the file's, and the engine that runs it has been seen to panic on a hostile one.
        let rendered = catch_unwind(AssertUnwindSafe(rendering));
        let panicked = |_| PromptError::Template { reason: "rendering it panicked".to_owned() };
        rendered.map_err(panicked)?.map_err(refuse)
    }

    /// A character that occurs neither in the messages nor in the template.
    fn marker(&self, messages: &[ChatMessage<'_>]) -> Result<char, PromptError> {
        let texts = || messages.iter().map(|m| m.content).chain([self.source.as_str()]);
        let mut candidates = ('\u{f0000}'..='\u{f00ff}').chain('\u{e000}'..='\u{e0ff}');
        candidates.find(|c| texts().all(|text| !text.contains(*c))).ok_or_else(|| PromptError::Refused {
            reason: "the messages use all private characters that could mark them off".to_owned(),
        })
    }

    /// `content` with a marker on both sides of each character that may be the edge of a special token, and
    /// after its first visible one, so that no special token can lie in it, reach into it, or reach over it.
    /// White space at its ends stays outside of the markers, for templates that trim.
    fn mark(&self, content: &str, marker: char) -> String {
        let mut out = String::with_capacity(content.len() + 16);
        let first = content.find(|c: char| !c.is_whitespace());
        for (at, c) in content.char_indices() {
            let is_edge = self.edges.contains(&c);
            out.extend(is_edge.then_some(marker));
            out.push(c);
            out.extend((is_edge || Some(at) == first).then_some(marker));
        }
        out
    }
}

fn hugging_face_syntax() -> SyntaxConfig {
    let built = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    built.expect("the default delimiters do not collide")
}

fn check_role(role: &str) -> Result<(), PromptError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if role.is_empty() || role.len() > ROLE_BYTES_MAX || !role.chars().all(is_plain) {
        let role: String = role.chars().take(ROLE_BYTES_MAX).collect();
        let reason = format!("the role {role:?} is not a word of letters, digits, _ and -");
        return Err(PromptError::Refused { reason });
    }
    Ok(())
}

fn encode_marked(marked: &str, marker: char, tokenizer: &Tokenizer) -> Result<Vec<u32>, PromptError> {
    let mut tokens = Vec::new();
    // Pieces of text between two special tokens stay whole, so that merges go across the edge of a content
    // as they do in a prompt without markers.
    for piece in tokenizer.split(marked) {
        match piece {
            Piece::Special(id) => tokens.push(id),
            Piece::Text(text) => {
                let text: String = text.chars().filter(|c| *c != marker).collect();
                tokens.extend(tokenizer.encode(&text, SpecialTokens::Plain)?);
            }
        }
    }
    Ok(tokens)
}

fn encode_unmarked(
    plain: &str,
    messages: &[ChatMessage<'_>],
    tokenizer: &Tokenizer,
) -> Result<Vec<u32>, PromptError> {
    for message in messages {
        if tokenizer.split(message.content).any(|piece| matches!(piece, Piece::Special(_))) {
            return Err(PromptError::Refused {
                reason: "a message spells a special token, and this template rewrites messages: the token \
                         cannot be kept apart from the template's own"
                    .to_owned(),
            });
        }
    }
    tokenizer.encode(plain, SpecialTokens::Parse)
}

fn refuse(error: Error) -> PromptError {
    if error.kind() == ErrorKind::OutOfFuel {
        return PromptError::OutOfFuel { fuel: FUEL };
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        if let Some(Raised(reason)) = error.downcast_ref() {
            return PromptError::Refused { reason: reason.chars().take(REASON_CHARS_MAX).collect() };
        }
        cause = error.source();
    }
    PromptError::Template { reason: error.to_string() }
}
