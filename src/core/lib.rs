// SPDX-License-Identifier: GPL-2.0

//! The files that the kernel module is built from, as a crate for the host's tests.
#![no_std]

#[path = "mod.rs"]
mod root;
pub use root::*;
