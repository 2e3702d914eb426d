//! Perplexity against llama.cpp's, over a text that every Debian has.

use switchbox::executor::Numerics;

use crate::model;

const TEXT: &str = "/usr/share/common-licenses/Apache-2.0";
const CONTEXT: usize = 512;
/// llama.cpp's running values.
const GOLDEN: [f64; 4] = [14.1476, 13.2145, 14.3361, 15.9289];
const TOLERANCE: f64 = 0.02;

#[test]
fn perplexity_goldens() {
    let text =
        std::fs::read_to_string(TEXT).expect("Debian's text of the Apache licence (package base-files)");
    let model = model();
    let tokens = model.encode_text(&text).unwrap();
    let running = model.perplexity(&tokens, CONTEXT, Numerics::Auto, 2).unwrap();
    assert_eq!(running.len(), GOLDEN.len());
    for (found, golden) in running.iter().zip(GOLDEN) {
        println!("{found:?}, golden {golden}: {:+.2} %", (found.perplexity / golden - 1.0) * 100.0);
    }
    for (found, golden) in running.iter().zip(GOLDEN) {
        assert!((found.perplexity / golden - 1.0).abs() < TOLERANCE, "{found:?}, golden {golden}");
    }
    if std::env::var_os("SWITCHBOX_REFERENCE").is_some() {
        println!("reference: {:?}", model.perplexity(&tokens, CONTEXT, Numerics::Reference, 2).unwrap());
    }
}
