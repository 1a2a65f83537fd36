//! Several trackers of one cluster beside a plain model of the whole: random histories of announces, and of an engine and
//! links that fail in every way; time in hand. When all is quiet again, all must know the same.
//!
//! `SEED=n cargo test --test cluster_simulation` replays one history. The nodes run what the daemon runs; only the engine
//! and the connections to it are models.
