//! The one place for automation: `cargo xtask <task>`.
fn main() {}
