//! Files that nobody should send: each is refused by name, and none makes anything panic.

use proptest::prelude::*;
use switchbox::executor::gguf::Directory;
use switchbox::executor::{ChatMessage, Forward, Model, Numerics, Rows, Wanted};
use switchbox_kernels::WeightType;

use crate::synthetic::{self, File, Value};

type Change = fn(&mut File);

/// What is changed, and what the refusal must say.
const CASES: &[(Change, &str)] = &[
    (|f| f.version = 1, "GGUF version 1"),
    (|f| f.version = 3u32.swap_bytes(), "big endian"),
    (|f| f.field_count = Some(u64::MAX), "field count: 18446744073709551615 is more than"),
    (|f| f.tensor_count = Some(60_000), "tensor count: 60000 do not fit"),
    (|f| f.field_count = Some(1_000), "of field"),
    (|f| f.tensor_count = Some(1_000), "of tensor"),
    (|f| f.fields.push(("general.name".into(), Value::U32(1))), "field general.name: appears twice"),
    (|f| f.set("x", Value::Raw(13, vec![])), "field x: value type 13 does not exist"),
    (|f| f.set("x", Value::Raw(7, vec![2])), "field x: boolean of value 2"),
    (
        |f| f.set("x", Value::Raw(8, u64::MAX.to_le_bytes().to_vec())),
        "field x: needs 18446744073709551615 bytes",
    ),
    (|f| f.set("x", Value::Raw(8, [&1u64.to_le_bytes()[..], &[0xff]].concat())), "field x: is not UTF-8"),
    (|f| f.set("x", array(8, u64::MAX)), "field x: 18446744073709551615 strings do not fit"),
    (|f| f.set("x", array(10, u64::MAX / 8 + 1)), "field x: needs 18446744073709551615 bytes"),
    (|f| f.set("x", array(9, 1)), "field x: an array of arrays"),
    (|f| f.set("x", array(77, 1)), "field x: value type 77 does not exist"),
    (|f| f.fields.push((String::new(), Value::U32(1))), "a name of 0 bytes"),
    (|f| f.fields.push(("n".repeat(2_000), Value::U32(1))), "a name of 2000 bytes"),
    (|f| f.set("general.alignment", Value::U32(48)), "field general.alignment: 48 is no power of two"),
    (|f| f.set("general.alignment", Value::Text("x".into())), "field general.alignment: is a string"),
    (|f| f.set("general.architecture", Value::Text("qwen3".into())), "architecture qwen3"),
    (|f| f.set("general.architecture", Value::U32(3)), "field general.architecture: is an unsigned"),
    (|f| f.remove("general.architecture"), "field general.architecture: is absent"),
    (|f| f.remove("llama.block_count"), "field llama.block_count: is absent"),
    (|f| f.set("llama.block_count", Value::U32(0)), "field llama.block_count: 0 is not within"),
    (
        |f| f.set("llama.block_count", Value::U32(u32::MAX)),
        "field llama.block_count: 4294967295 is not within",
    ),
    (|f| f.set("llama.block_count", Value::U32(3)), "tensor blk.2.attn_norm.weight: is absent"),
    (
        |f| f.set("llama.block_count", Value::U32(1)),
        "tensor blk.1.attn_k.weight: is not part of a dense llama",
    ),
    (|f| f.set("llama.embedding_length", Value::U32(32)), "tensor token_embd.weight: has dimensions"),
    (|f| f.set("llama.attention.head_count", Value::U32(0)), "field llama.attention.head_count: 0"),
    (|f| f.set("llama.attention.head_count", Value::U32(5)), "5 query heads are not shared"),
    (|f| f.set("llama.attention.head_count_kv", Value::U32(0)), "head_count_kv: 0 is not within"),
    (|f| f.set("llama.rope.dimension_count", Value::U32(15)), "dimension_count: 15 is odd"),
    (|f| f.set("llama.attention.head_count_kv", Value::U32(3)), "4 query heads are not shared evenly by 3"),
    (|f| f.set("llama.attention.head_count_kv", Value::I32s(vec![2, 2])), "is an array of I32"),
    (|f| f.set("llama.attention.key_length", Value::U32(1_000)), "field llama.attention.key_length: 1000"),
    (|f| f.set("llama.attention.value_length", Value::U32(8)), "values of 8 beside keys of 16"),
    (|f| f.set("llama.attention.layer_norm_rms_epsilon", Value::F32(f32::NAN)), "epsilon: NaN is not within"),
    (|f| f.remove("llama.attention.layer_norm_rms_epsilon"), "epsilon: is absent"),
    (|f| f.set("llama.rope.freq_base", Value::F32(-1.0)), "field llama.rope.freq_base: -1 is not within"),
    (|f| f.set("llama.rope.dimension_count", Value::U32(18)), "field llama.rope.dimension_count: 18"),
    (|f| f.set("llama.rope.scaling.type", Value::Text("yarn".into())), "scaling yarn"),
    (|f| f.set("llama.expert_count", Value::U32(8)), "a mixture of experts"),
    (|f| f.tensor("output_norm.weight").dims = vec![], "0 dimensions"),
    (|f| f.tensor("output_norm.weight").dims = vec![1; 5], "5 dimensions"),
    (|f| f.tensor("output_norm.weight").dims = vec![0], "dimensions [0]"),
    (|f| f.tensor("output_norm.weight").dims = vec![65], "beyond the end of the file"),
    (|f| f.tensor("output_norm.weight").dims = vec![32], "has dimensions [32], expected [64]"),
    (|f| f.tensor("blk.0.attn_q.weight").dims = vec![1 << 40, 1 << 40], "overflow"),
    (|f| f.tensor("blk.0.attn_q.weight").dims = vec![63, 64], "rows of 63 are no whole blocks of Q4_1"),
    (|f| f.tensor("blk.0.attn_q.weight").dims = vec![64, 63], "expected [64, 64]"),
    (|f| f.tensor("blk.0.attn_q.weight").kind = 12, "tensor blk.0.attn_q.weight: weights of type Q4_K"),
    (|f| f.tensor("blk.0.attn_q.weight").kind = 99, "tensor type 99 does not exist"),
    (|f| f.tensor("blk.0.attn_q.weight").offset = Some(8), "offset 8 is not aligned to 32"),
    (|f| f.tensor("blk.0.attn_q.weight").offset = Some(u64::MAX - 31), "beyond the end of the file"),
    (|f| f.tensor("blk.0.attn_q.weight").name = "blk.0.attn_k.weight".into(), "attn_k.weight: appears twice"),
    (|f| f.tensor("blk.0.attn_q.weight").name = "blk.0.attn_q.bias".into(), "blk.0.attn_q.weight: is absent"),
    (|f| f.set("tokenizer.ggml.model", Value::Text("t5".into())), "tokenizer t5"),
    (|f| f.set("tokenizer.ggml.pre", Value::Text("new-one".into())), "tokenizer new-one"),
    (|f| f.remove("tokenizer.ggml.pre"), "tokenizer without a name"),
    (|f| f.remove("tokenizer.ggml.tokens"), "field tokenizer.ggml.tokens: is absent"),
    (|f| f.set("tokenizer.ggml.tokens", Value::I32s(vec![1])), "is an array of I32"),
    (|f| f.set("tokenizer.ggml.tokens", Value::Texts(vec!["a".into(); 264])), "Duplicate tokens"),
    (|f| f.set("tokenizer.ggml.token_type", Value::I32s(vec![1])), "1 types for 264 tokens"),
    (|f| f.set("tokenizer.ggml.merges", Value::Texts(vec!["zz zz".into()])), "unknown left token"),
    (|f| f.set("tokenizer.ggml.eos_token_id", Value::U32(264)), "eos_token_id: 264 is no token of 264"),
    (|f| f.set("tokenizer.ggml.unknown_token_id", Value::U32(u32::MAX)), "is no token of 264"),
    (|f| f.set("tokenizer.chat_template", Value::U32(1)), "field tokenizer.chat_template: is an unsigned"),
];

fn array(kind: u32, count: u64) -> Value {
    Value::Raw(9, [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat())
}

#[test]
fn each_fault_is_named() {
    for (n, (change, expected)) in CASES.iter().enumerate() {
        let mut file = synthetic::file(WeightType::Q4_1);
        change(&mut file);
        let error = file.open().err().unwrap_or_else(|| panic!("case {n} was opened: {expected}"));
        let text = error.to_string();
        assert!(text.contains(expected), "case {n}: {text:?} does not say {expected:?}");
        assert!(text.contains(".gguf") && text.contains(';'), "no file or remedy in {text:?}");
    }
    let error = synthetic::open(b"PK\x03\x04 and so on").unwrap_err().to_string();
    assert!(error.contains("does not begin with GGUF"), "{error}");
    assert!(synthetic::open(b"").is_err());
    assert!(
        Model::open(std::path::Path::new("/nonexistent/model.gguf"))
            .unwrap_err()
            .to_string()
            .contains("cannot open")
    );
}

#[test]
fn both_versions_open() {
    for version in [2, 3] {
        let mut file = synthetic::file(WeightType::F32);
        file.version = version;
        let model = file.open().unwrap();
        assert_eq!(model.facts().name, "tiny");
        assert_eq!(model.facts().quantisation, "F32 x20");
    }
}

#[test]
fn every_truncation_is_refused() {
    let bytes = synthetic::file(WeightType::Q8_0).bytes();
    for end in 0..bytes.len().min(6_000) {
        assert!(Directory::parse(&bytes[..end]).is_err(), "cut at {end}");
    }
    for end in (6_000..bytes.len()).step_by(97) {
        assert!(Directory::parse(&bytes[..end]).is_err(), "cut at {end}");
    }
    let real = std::fs::read(crate::model_path()).unwrap();
    assert!(Directory::parse(&real).is_ok());
    for end in (0..real.len()).step_by(real.len() / 300) {
        assert!(Directory::parse(&real[..end]).is_err(), "cut at {end}");
    }
    for end in (0..1_800_000).step_by(9_973) {
        assert!(Directory::parse(&real[..end]).is_err(), "cut at {end}");
    }
}

/// Opens the bytes and, if that works, uses everything that the file had a say in.
fn exercise(bytes: &[u8]) {
    let Ok(model) = synthetic::open(bytes) else { return };
    let _ = model.encode_chat(&[ChatMessage { role: "user", content: "the <|im_end|>" }]);
    let Ok(prompt) = model.encode_text("in the end") else { return };
    let mut forward = Forward::new(Numerics::Auto.arithmetic(), 1).unwrap();
    let mut kv = model.kv_cache();
    let batch = &mut [Rows { tokens: &prompt, kv: &mut kv, wanted: Wanted::Last }];
    assert_eq!(forward.run(&model, batch).len(), model.shape().vocab);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn flipped_bytes_never_panic(
        flips in prop::collection::vec((0usize..8_000, any::<u8>()), 1..4),
        anywhere in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut bytes = synthetic::file(WeightType::Q4_0).bytes();
        for (at, byte) in flips {
            bytes[at] ^= byte;
        }
        if let Some((at, byte)) = anywhere {
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
        }
        exercise(&bytes);
    }
}
