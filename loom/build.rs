//! Writes the should-fail variants: the real source text with one mistake put in. Every replacement must match
//! exactly once, so a variant can't outlive the code that it is a mistake in. Does nothing without
//! `--cfg switchbox_loom`.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// A copy of a source file with a mistake in it.
struct Variant {
    name: &'static str,
    source: &'static str,
    edits: &'static [(&'static str, &'static str)],
}

const VARIANTS: &[Variant] = &[
    Variant {
        name: "relaxed_push",
        source: "queue.rs",
        edits: &[(
            "self.pending.fetch_add(1, Ordering::AcqRel)",
            "self.pending.fetch_add(1, Ordering::Relaxed)",
        )],
    },
    Variant {
        name: "relaxed_release",
        source: "queue.rs",
        edits: &[(
            "self.queue.pending.fetch_sub(batch, Ordering::AcqRel)",
            "self.queue.pending.fetch_sub(batch, Ordering::Relaxed)",
        )],
    },
    Variant {
        name: "one_batch",
        source: "queue.rs",
        // The owner leaves after its first batch, whatever came meanwhile.
        edits: &[(
            "            if self.seen == 0 {
                return None;
            }",
            "            self.seen = 0;
            return None;",
        )],
    },
    Variant {
        name: "flag_then_look",
        source: "queue.rs",
        // `pending` is a flag; the owner steps what is there, clears it, looks once more, and if there is
        // something takes it again for another batch. A flag counts nothing, so the depth is without meaning.
        edits: &[
            ("self.pending.load(Ordering::Relaxed)", "0"),
            (
                "                for _ in 0..batch {
                    machine.step(self.queue.pop());
                }",
                "                while let Some(event) = self.queue.ring.pop() {
                    machine.step(event);
                }",
            ),
            (
                "self.pending.fetch_add(1, Ordering::AcqRel) == 0",
                "self.pending.swap(1, Ordering::AcqRel) == 0",
            ),
            (
                "            let before = self.queue.pending.fetch_sub(batch, Ordering::AcqRel);
            self.seen = before - batch;
            if self.seen == 0 {
                return None;
            }",
                "            self.queue.pending.store(0, Ordering::Release);
            if !self.queue.ring.is_empty() && self.queue.pending.swap(1, Ordering::AcqRel) == 0 {
                self.step_batch(batch);
                self.queue.pending.store(0, Ordering::Release);
            }
            self.seen = 0;
            return None;",
            ),
        ],
    },
    Variant {
        name: "room_for_one_more",
        source: "queue.rs",
        edits: &[("if taken == self.max {", "if taken == self.max + 1 {")],
    },
    Variant {
        name: "two_atomics",
        source: "output.rs",
        // The closed bit and the count of what was delivered live in two atomics.
        edits: &[
            ("    gate: AtomicU64,\n", "    gate: AtomicU64,\n    taken: AtomicU64,\n"),
            ("gate: AtomicU64::new(0), ", "gate: AtomicU64::new(0), taken: AtomicU64::new(0), "),
            (
                "            let next = gate.max(u64::from(cursor));
            match self.gate.compare_exchange_weak(gate, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) => gate = now,
            }",
                "            self.taken.fetch_max(u64::from(cursor), Ordering::AcqRel);
            return true;",
            ),
            (
                "let before = self.gate.fetch_or(CLOSED, Ordering::AcqRel);",
                "self.gate.fetch_or(CLOSED, Ordering::AcqRel);
        let before = self.taken.load(Ordering::Acquire);",
            ),
        ],
    },
    Variant {
        name: "look_then_register",
        source: "output.rs",
        // The reader looks for its chunk, lets the lock go, and registers without looking again.
        edits: &[(
            "            let mut written = lock(&self.output.written);
            match written.chunks.get(self.cursor as usize) {",
            "            let seen = lock(&self.output.written).chunks.get(self.cursor as usize).cloned();
            let mut written = lock(&self.output.written);
            match seen.as_ref() {",
        )],
    },
    Variant {
        name: "closed_looked_at_before",
        source: "output.rs",
        // The reader looks at the closed bit before it holds the lock.
        edits: &[
            (
                "            let mut written = lock(&self.output.written);
            match written.chunks.get(self.cursor as usize) {",
                "            let closed = self.is_closed();
            let mut written = lock(&self.output.written);
            match written.chunks.get(self.cursor as usize) {",
            ),
            (
                "None if self.is_closed() => return Poll::Ready(Take::Closed),",
                "None if closed => return Poll::Ready(Take::Closed),",
            ),
        ],
    },
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_CFG_SWITCHBOX_LOOM").is_none() {
        return;
    }
    let sources = Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../src");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    for variant in VARIANTS {
        let path = sources.join(variant.source);
        println!("cargo::rerun-if-changed={}", path.display());
        let mut text = fs::read_to_string(&path).expect("the real source is readable");
        for (from, to) in variant.edits {
            let found = text.matches(from).count();
            assert_eq!(found, 1, "variant {}: {from:?} is {found} times in {}", variant.name, variant.source);
            text = text.replacen(from, to, 1);
        }
        // `include!` takes no inner documentation.
        let text = text.replace("\n//!", "\n//").replacen("//!", "//", 1);
        fs::write(out.join(format!("{}.rs", variant.name)), text).expect("OUT_DIR is writable");
    }
}
