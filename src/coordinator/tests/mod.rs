//! The core against a small world: transcripts of single stories, and random ones with a full recount.

mod properties;
mod reviewed;
mod stories;
mod world;
