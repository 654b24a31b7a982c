// SPDX-License-Identifier: GPL-2.0

//! The atomics of [`super::slots`], which `model/` puts others in the place of.

pub(super) use core::sync::atomic::{
    AtomicU32,
    AtomicU8,
    Ordering, //
};
