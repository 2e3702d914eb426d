//! The `switchbox` command, built so that the rig can plant bugs in it and see its system calls.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    switchbox::cli::main()
}
