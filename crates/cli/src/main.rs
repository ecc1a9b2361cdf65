//! The `executr` command.
fn main() {}
