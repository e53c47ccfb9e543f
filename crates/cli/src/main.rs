//! The `firecrest` program.
fn main() {}
