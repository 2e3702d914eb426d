//! The core against a small world: transcripts of single stories, and random ones with a full recount.

mod credits;
mod fallback;
mod fleet;
mod integrity;
mod keys;
mod operator;
mod placement;
mod properties;
mod recovery;
mod retention;
mod reviewed;
mod sessions;
mod standing;
mod stopping;
mod stories;
mod subclouds;
mod world;
