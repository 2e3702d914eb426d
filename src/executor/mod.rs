//! Built-in inference: GGUF models on the CPU.
