//! The `vmtorrent` command.

fn main() {}
