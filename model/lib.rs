// SPDX-License-Identifier: GPL-2.0

//! The files of the core that packets and the writer meet in, on loom's atomics: the same text that
//! the kernel compiles, with another `sync` beside it.
//!
//! Loom runs a test once for each order in which its threads may go, and for each value that a load
//! may return by the memory model of C11: also values that no x86 would show.

#[path = "../src/core/hash.rs"]
pub mod hash;
#[path = "../src/core/maglev.rs"]
pub mod maglev;
#[path = "../src/core/slots.rs"]
pub mod slots;

mod sync {
    pub(super) use loom::sync::atomic::{
        AtomicU32,
        AtomicU8,
        Ordering, //
    };
}
