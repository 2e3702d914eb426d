//! Measurements of Switchbox, as ratios against a peer or a floor in the same run.
fn main() {}
