//! Token counts of a remote node that a client may be billed for (SPEC section 6, last paragraph).
//!
//! A node's signed count only ever lowers a bill: whatever it claims, the box's own count, or the bytes that it saw,
//! are the most that is charged.

/// Tokens that a chat template adds to each message, at most, where the box can't count them itself.
pub const TEMPLATE_TOKENS_PER_MESSAGE: u64 = 16;
/// A node may count the end-of-text token, which never reaches the box.
const UNSEEN_TOKENS: u32 = 1;

/// What the box itself saw of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its tokens, where the box can count them.
    pub tokens: Option<u32>,
    /// Its bytes.
    pub bytes: u64,
}

/// Prompt tokens to bill: the box's own count with the model's template where it has it, else the smaller of the signed
/// count and bytes + 16 a message.
pub fn billed_input(box_count: Option<u32>, signed: u32, body_bytes: u64, messages: u32) -> u32 {
    let template = u64::from(messages) * TEMPLATE_TOKENS_PER_MESSAGE;
    box_count.unwrap_or_else(|| at_most(signed, body_bytes.saturating_add(template)))
}

/// Generated tokens to bill: the smaller of the signed count and the box's own count + 1, else of the signed count and
/// the bytes relayed; and never more than the job allowed, for that is what was held.
pub fn billed_output(signed: u32, seen: Seen, max: u32) -> u32 {
    let counted = match seen.tokens {
        Some(tokens) => signed.min(tokens.saturating_add(UNSEEN_TOKENS)),
        None => at_most(signed, seen.bytes),
    };
    counted.min(max)
}

fn at_most(signed: u32, limit: u64) -> u32 {
    u32::try_from(limit).map_or(signed, |limit| signed.min(limit))
}
