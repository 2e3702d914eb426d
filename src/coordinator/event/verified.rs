//! What a node says, once it is proven that it did. A test of the sources sees to it that only `wire::verify`, and the
//! seam to the box's own node, make one.

/// A statement of a node whose origin is proven. Only `wire::verify` (remote nodes) and
/// [`Verified::local`] (the box's own node, which needs no signature) make one.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// A statement of the box's own node: it came over a channel of this process.
    pub fn local(statement: T) -> Self {
        Self(statement)
    }

    /// A statement whose signature was checked just now: for `wire::verify` and nobody else, which a test of the
    /// sources sees to.
    pub(crate) fn proven(statement: T) -> Self {
        Self(statement)
    }

    /// The statement itself.
    pub fn into_inner(self) -> T {
        self.0
    }
}
