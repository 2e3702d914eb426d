//! Text to tokens and back, by the rules in the model's file. The merging is shimmytok's; what is special,
//! what ends a sequence, and which files are refused is decided here. Never turns user text into a special
//! token unless asked to.

use super::error::{Fault, PromptError};
use super::gguf::{Directory, TruthValue};

/// Longest text that is tokenized at once, in bytes.
pub const TEXT_BYTES_MAX: usize = 4 << 20;

/// The pre-tokenizers whose rules are known to be the file's: golden-tested (`smollm`), or the same rules
/// under another name, or compared by hand with llama.cpp (`llama-bpe`).
const PRE_TOKENIZERS: [&str; 5] = ["smollm", "starcoder", "llama-bpe", "llama3", "llama-v3"];

/// Control tokens that end a turn wherever they occur, whatever the file names as its EOS.
const END_TOKENS: [&str; 8] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<EOT>",
];

/// Fields that the merging needs. Others stay out of the copy that it parses.
const FIELDS: [&str; 12] = [
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_space_prefix",
    "tokenizer.ggml.eot_token_id",
];

const TYPE_UNKNOWN: i32 = 2;
const TYPE_CONTROL: i32 = 3;
const TYPE_USER_DEFINED: i32 = 4;

/// What to do with special tokens that stand in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialTokens {
    /// They become their tokens: for the template's own text.
    Parse,
    /// They are text like any other: for users' text.
    Plain,
}

/// The tokenizer of one model.
pub struct Tokenizer {
    merges: shimmytok::Tokenizer,
    /// The bytes of all tokens, one after the other.
    bytes: Vec<u8>,
    /// `[vocab + 1]`: where in `bytes` each begins.
    starts: Vec<u32>,
    control: Vec<u32>,
    parsed: Splitter,
    /// Found in every text, even users': such tokens carry no role.
    always: Splitter,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: TruthValue,
    ends: Vec<u32>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocab", &self.vocab()).field("ends", &self.ends).finish()
    }
}

impl Tokenizer {
    /// Builds the tokenizer of a `file` with this `directory`.
    ///
    /// # Errors
    /// A fault for a vocabulary that is absent or contradicts itself, and for rules that are not built in.
    pub fn load(directory: &Directory, file: &[u8]) -> Result<Tokenizer, Fault> {
        refuse_unknown_rules(directory, file)?;
        let place = "field tokenizer.ggml.tokens";
        let texts = directory.strings(file, "tokenizer.ggml.tokens")?;
        let texts = texts.ok_or_else(|| Fault::malformed(place, "is absent"))?;
        let types = directory.signed_32(file, "tokenizer.ggml.token_type")?;
        let types: Vec<i32> = types.map_or_else(|| vec![1; texts.len()], Iterator::collect);
        if types.len() != texts.len() {
            let problem = format!("{} types for {} tokens", types.len(), texts.len());
            return Err(Fault::malformed("field tokenizer.ggml.token_type", problem));
        }
        let id = |name: &str| token_id(directory, name, texts.len());
        let (bos, eos) = (id("tokenizer.ggml.bos_token_id")?, id("tokenizer.ggml.eos_token_id")?);
        let eot = id("tokenizer.ggml.eot_token_id")?;
        for name in ["tokenizer.ggml.unknown_token_id", "tokenizer.ggml.padding_token_id"] {
            id(name)?;
        }
        let merges = merges(directory, file)?;
        let (bytes, starts) = spell(&texts, &types)?;
        let of_type = |wanted: &[i32]| {
            (0..).zip(&types).filter(|(_, t)| wanted.contains(t)).map(|(id, _)| id).collect::<Vec<u32>>()
        };
        let control = of_type(&[TYPE_CONTROL]);
        let named = control.iter().filter(|id| END_TOKENS.contains(&texts[**id as usize]));
        let mut ends: Vec<u32> = eos.into_iter().chain(eot).chain(named.copied()).collect();
        ends.sort_unstable();
        ends.dedup();
        let special = of_type(&[TYPE_CONTROL, TYPE_UNKNOWN, TYPE_USER_DEFINED]);
        Ok(Tokenizer {
            parsed: Splitter::new(&texts, &special),
            always: Splitter::new(&texts, &of_type(&[TYPE_USER_DEFINED])),
            add_bos: directory.truth("tokenizer.ggml.add_bos_token")?.unwrap_or(TruthValue::False),
            merges,
            bytes,
            starts,
            control,
            bos,
            eos,
            ends,
        })
    }

    /// Number of tokens.
    pub fn vocab(&self) -> usize {
        self.starts.len() - 1
    }

    /// The tokens of `text`, without BOS.
    ///
    /// # Errors
    /// [`PromptError`] if the text is longer than [`TEXT_BYTES_MAX`], or if the tokens would not spell it.
    pub fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>, PromptError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(PromptError::TooLong { bytes: text.len(), bytes_max: TEXT_BYTES_MAX });
        }
        let splitter = match special {
            SpecialTokens::Parse => &self.parsed,
            SpecialTokens::Plain => &self.always,
        };
        let mut tokens = Vec::new();
        for piece in splitter.split(text) {
            match piece {
                Piece::Special(id) => tokens.push(id),
                Piece::Text(text) => self.encode_plain(text, &mut tokens)?,
            }
        }
        Ok(tokens)
    }

    /// Splits `text` into special tokens and what lies between.
    pub(crate) fn split<'t>(&self, text: &'t str) -> impl Iterator<Item = Piece<'t>> {
        self.parsed.split(text)
    }

    /// The first and last characters of all special tokens, each once.
    pub(crate) fn special_edges(&self) -> Vec<char> {
        self.parsed.edges()
    }

    /// Appends the tokens of `text`, in which nothing is special.
    fn encode_plain(&self, mut text: &str, tokens: &mut Vec<u32>) -> Result<(), PromptError> {
        while !text.is_empty() {
            let (stretch, rest) = text.split_at(stretch_end(text));
            self.encode_stretch(stretch, tokens)?;
            text = rest;
        }
        Ok(())
    }

    fn encode_stretch(&self, text: &str, tokens: &mut Vec<u32>) -> Result<(), PromptError> {
        let failed = |reason: String| PromptError::Tokenizer { reason };
        let options = shimmytok::EncodeOptions::with_parse_special(false, false);
        let new = self.merges.encode_with_options(text, &options).map_err(|e| failed(e.to_string()))?;
        // Its splitting leaves out what a failed match covers, without a word.
        if !new.iter().flat_map(|id| self.bytes(*id)).eq(text.as_bytes()) {
            return Err(failed("its tokens do not spell it".to_owned()));
        }
        tokens.extend(new);
        Ok(())
    }

    /// The bytes that a token stands for; empty if there is no such token.
    pub fn bytes(&self, token: u32) -> &[u8] {
        let at = |n: usize| self.starts.get(n).map(|s| *s as usize);
        match (at(token as usize), at(token as usize + 1)) {
            (Some(start), Some(end)) => &self.bytes[start..end],
            _ => &[],
        }
    }

    /// The bytes that a token adds to an answer: none for control tokens.
    pub fn visible_bytes(&self, token: u32) -> &[u8] {
        if self.is_control(token) { &[] } else { self.bytes(token) }
    }

    /// Whether the token steers the model and is no text.
    pub fn is_control(&self, token: u32) -> bool {
        self.control.binary_search(&token).is_ok()
    }

    /// Whether the token ends an answer.
    pub fn is_end(&self, token: u32) -> bool {
        self.ends.binary_search(&token).is_ok()
    }

    /// The text of BOS, for templates; empty if the file names none.
    pub(crate) fn bos_text(&self) -> String {
        self.bos.map(|id| String::from_utf8_lossy(self.bytes(id)).into_owned()).unwrap_or_default()
    }

    /// The text of EOS, for templates; empty if the file names none.
    pub(crate) fn eos_text(&self) -> String {
        self.eos.map(|id| String::from_utf8_lossy(self.bytes(id)).into_owned()).unwrap_or_default()
    }

    /// The prompt with BOS before it, if the file asks for that and it is not there yet.
    pub fn with_bos(&self, mut prompt: Vec<u32>) -> Vec<u32> {
        if let (TruthValue::True, Some(bos)) = (self.add_bos, self.bos)
            && prompt.first() != Some(&bos)
        {
            prompt.insert(0, bos);
        }
        prompt
    }
}

fn refuse_unknown_rules(directory: &Directory, file: &[u8]) -> Result<(), Fault> {
    let remedy = "use a model with a byte-level BPE tokenizer of the SmolLM or Llama 3 family";
    for (name, known) in
        [("tokenizer.ggml.model", &["gpt2"][..]), ("tokenizer.ggml.pre", &PRE_TOKENIZERS[..])]
    {
        let found = directory.string(file, name)?;
        if !found.is_some_and(|found| known.contains(&found)) {
            let problem = format!("tokenizer {}", found.unwrap_or("without a name").escape_debug());
            return Err(Fault::unsupported(format!("field {name}"), problem, remedy));
        }
    }
    Ok(())
}

fn token_id(directory: &Directory, name: &str, vocab: usize) -> Result<Option<u32>, Fault> {
    match directory.unsigned(name)? {
        None => Ok(None),
        // In range, so it fits: vocabularies are bounded by their file.
        Some(id) if id < vocab as u64 && id < u64::from(u32::MAX) => Ok(Some(id as u32)),
        Some(id) => Err(Fault::malformed(format!("field {name}"), format!("{id} is no token of {vocab}"))),
    }
}

/// A header of just the tokenizer's fields, parsed by shimmytok. It allocates by lengths that it reads:
/// these were checked against the file, and no other field reaches it.
fn merges(directory: &Directory, file: &[u8]) -> Result<shimmytok::Tokenizer, Fault> {
    let entries = FIELDS.iter().filter_map(|name| directory.fields.get(*name)).collect::<Vec<_>>();
    let mut header = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    header.extend((entries.len() as u64).to_le_bytes());
    for field in entries {
        header.extend_from_slice(file.get(field.entry.clone()).unwrap_or_default());
    }
    let place = "fields tokenizer.ggml.*";
    shimmytok::Tokenizer::from_bytes(&header).map_err(|e| Fault::malformed(place, e.to_string()))
}

/// The bytes of all tokens, and where each begins. Byte-level BPE writes each byte as one character: the
/// printable ones of Latin-1 as themselves, the other 68 from U+0100 on. Special tokens are plain UTF-8.
fn spell(texts: &[&str], types: &[i32]) -> Result<(Vec<u8>, Vec<u32>), Fault> {
    let place = "field tokenizer.ggml.tokens";
    let (mut bytes, mut starts) = (Vec::new(), vec![0u32]);
    for ((n, text), kind) in texts.iter().enumerate().zip(types) {
        if [TYPE_CONTROL, TYPE_UNKNOWN, TYPE_USER_DEFINED].contains(kind) {
            bytes.extend_from_slice(text.as_bytes());
        } else {
            for c in text.chars() {
                bytes.push(byte_of(c).ok_or_else(|| {
                    Fault::malformed(place, format!("token {n} holds {c:?}, which stands for no byte"))
                })?);
            }
        }
        starts.push(u32::try_from(bytes.len()).map_err(|_| Fault::malformed(place, "spells over 4 GiB"))?);
    }
    Ok((bytes, starts))
}

fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        n @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => u8::try_from(n).ok(),
        n @ 0x100..=0x120 => u8::try_from(n - 0x100).ok(),
        n @ 0x121..=0x142 => u8::try_from(n - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece<'t> {
    /// A special token.
    Special(u32),
    /// What lies between two.
    Text(&'t str),
}

/// Finds certain tokens in a text, from left to right, the longest first.
struct Splitter {
    /// For each first byte, the tokens that begin with it, longest first.
    by_first: Vec<Vec<(String, u32)>>,
}

impl Splitter {
    fn new(texts: &[&str], ids: &[u32]) -> Splitter {
        let mut by_first = vec![Vec::new(); 256];
        for id in ids {
            let text = texts[*id as usize];
            if let Some(first) = text.bytes().next() {
                by_first[usize::from(first)].push((text.to_owned(), *id));
            }
        }
        for tokens in &mut by_first {
            tokens.sort_by_key(|(text, id)| (std::cmp::Reverse(text.len()), *id));
        }
        Splitter { by_first }
    }

    fn edges(&self) -> Vec<char> {
        let texts = self.by_first.iter().flatten().map(|(text, _)| text);
        let mut edges: Vec<char> =
            texts.flat_map(|t| t.chars().next().into_iter().chain(t.chars().last())).collect();
        edges.sort_unstable();
        edges.dedup();
        edges
    }

    fn split<'t>(&self, text: &'t str) -> impl Iterator<Item = Piece<'t>> {
        let mut pieces = Vec::new();
        let (mut done, mut at) = (0, 0);
        let bytes = text.as_bytes();
        while at < bytes.len() {
            let tokens = &self.by_first[usize::from(bytes[at])];
            let found = tokens.iter().find(|(token, _)| bytes[at..].starts_with(token.as_bytes()));
            if let Some((token, id)) = found {
                // Both ends are character boundaries: a token is whole UTF-8.
                pieces.extend((done < at).then(|| Piece::Text(&text[done..at])));
                pieces.push(Piece::Special(*id));
                at += token.len();
                done = at;
            } else {
                at += 1;
            }
        }
        pieces.extend((done < at).then(|| Piece::Text(&text[done..])));
        pieces.into_iter()
    }
}
/// Bytes of text that the tokenizer's regular expressions are given at once. Beyond a million characters of one
/// kind they give up, and what drives them then goes round for ever.
const STRETCH_BYTES_MAX: usize = 64 << 10;

/// Where the next stretch of a text ends: all of a short text; otherwise before a single space between letters
/// or digits, where every pre-tokenizer splits too; and only where no such place is, in the middle of a run.
fn stretch_end(text: &str) -> usize {
    if text.len() <= STRETCH_BYTES_MAX {
        return text.len();
    }
    let bytes = text.as_bytes();
    let splits = |at: &usize| {
        bytes[*at] == b' ' && bytes[*at - 1].is_ascii_alphanumeric() && bytes[*at + 1].is_ascii_alphabetic()
    };
    let place = (STRETCH_BYTES_MAX / 2..STRETCH_BYTES_MAX).rev().find(splits);
    place.unwrap_or_else(|| text.floor_char_boundary(STRETCH_BYTES_MAX))
}
