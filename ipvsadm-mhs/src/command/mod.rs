// SPDX-License-Identifier: GPL-2.0

//! The commands, one a file.

pub mod delete;
pub mod drain;
pub mod events;
pub mod express;
pub mod generate;
pub mod handover;
pub mod list;
pub mod metrics;
pub mod plan;
pub mod replace;
pub mod set;
pub mod show;
pub mod simulate;
pub mod slots;
pub mod top;
