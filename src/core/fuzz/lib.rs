// SPDX-License-Identifier: GPL-2.0

//! What must hold of the core whatever comes.
//!
//! Property tests ask it of inputs made at random, and libFuzzer of inputs that lead to code which no
//! other reached. Those that did are in `corpus/`, a directory for each target, and every run of
//! `cargo test` in the core tries them again.

pub mod flow;
pub mod maglev;
pub mod slots;

use arbitrary::{
    Arbitrary,
    Unstructured, //
};

/// The input that some bytes stand for, if they are enough for one.
fn decode<'a, T: Arbitrary<'a>>(data: &'a [u8]) -> Option<T> {
    T::arbitrary_take_rest(Unstructured::new(data)).ok()
}

/// A packet from its IP header on, as both families read it.
pub fn flow(data: &[u8]) {
    flow::check(false, data);
    flow::check(true, data);
}

/// The slot rules against their model.
pub fn slots(data: &[u8]) {
    if let Some(ops) = decode(data) {
        slots::as_the_model_says(ops);
    }
}

/// Flows through changes: none is broken.
pub fn sessions(data: &[u8]) {
    if let Some((events, late)) = decode::<(Vec<slots::Event>, u64)>(data) {
        slots::no_flow_is_broken(events, late % (slots::T / 2));
    }
}

/// More deadlines than there are epochs for, with timeouts that change: none is early.
pub fn deadlines(data: &[u8]) {
    if let Some(steps) = decode(data) {
        slots::no_deadline_is_early(steps);
    }
}

/// A table by its rule in plain words, and the same in any order of its servers.
pub fn maglev(data: &[u8]) {
    if let Some(input) = decode(data) {
        maglev::check(&input);
    }
}

/// Each target by its name.
pub const TARGETS: [(&str, fn(&[u8])); 5] = [
    ("flow", flow),
    ("slots", slots),
    ("sessions", sessions),
    ("deadlines", deadlines),
    ("maglev", maglev),
];
