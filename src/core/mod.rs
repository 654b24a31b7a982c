// SPDX-License-Identifier: GPL-2.0

//! The logic of the balancer without one kernel call.
//!
//! Kbuild compiles these files into the module and cargo compiles them for the host, so that unit
//! and property tests run on the very code that the kernel runs. Nothing here allocates.

pub mod flow;
pub mod hash;
pub mod maglev;
pub mod search;
pub mod slots;
mod sync;
