// SPDX-License-Identifier: GPL-2.0

//! The kernel's coarse clock.

use super::bindings;

/// Ticks since boot. Costs one load.
///
/// C header: [`include/linux/jiffies.h`](srctree/include/linux/jiffies.h)
#[inline]
pub(crate) fn jiffies() -> u64 {
    // SAFETY: `jiffies` is a word that is always readable; a torn or stale value cannot happen and
    // would do no harm.
    (unsafe { core::ptr::read_volatile(&raw const bindings::jiffies) }) as u64
}

/// Ticks in a second.
pub(crate) const HZ: u64 = kernel::bindings::CONFIG_HZ as u64;
