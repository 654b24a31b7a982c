// SPDX-License-Identifier: GPL-2.0

//! The live view: `watch` looks at the kernel, `screen` draws what was seen.

pub mod screen;
pub mod watch;
