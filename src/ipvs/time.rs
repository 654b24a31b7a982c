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

/// Nanoseconds since some time in the past.
pub(crate) fn nanoseconds() -> i64 {
    // SAFETY: No requirements.
    unsafe { bindings::ktime_get() }
}

/// How many ticks so many nanoseconds are, rounded up.
pub(crate) fn ticks(nanoseconds: i64) -> u64 {
    const TICK: u64 = 1_000_000_000 / HZ;
    u64::try_from(nanoseconds).unwrap_or(0).div_ceil(TICK)
}

/// How many milliseconds so many ticks are.
pub(crate) fn milliseconds(ticks: u64) -> u64 {
    ticks.saturating_mul(1000) / HZ
}
