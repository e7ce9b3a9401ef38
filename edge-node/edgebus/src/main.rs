//! The multicall executable.
fn main() {}
