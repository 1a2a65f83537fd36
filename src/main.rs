//! The daemon: arguments, then the order of starting and stopping.

fn main() {}
