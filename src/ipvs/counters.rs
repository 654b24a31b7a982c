// SPDX-License-Identifier: GPL-2.0

//! Counters that each CPU has for itself: counting shares no cache line and takes no lock.
//!
//! C headers: [`include/linux/percpu.h`](srctree/include/linux/percpu.h),
//! [`include/linux/u64_stats_sync.h`](srctree/include/linux/u64_stats_sync.h)

use super::bindings;
use core::ptr::NonNull;
use kernel::prelude::*;

/// `N` counters for each CPU there may be.
///
/// # Invariants
///
/// `counters` is what `mhs_counters_alloc()` returned for `N`.
pub(crate) struct Counters<const N: usize> {
    counters: NonNull<bindings::mhs_counters>,
}

// SAFETY: Any thread may count, read and free.
unsafe impl<const N: usize> Send for Counters<N> {}
// SAFETY: Each CPU writes its own counters only; who reads them sees whole numbers.
unsafe impl<const N: usize> Sync for Counters<N> {}

impl<const N: usize> Counters<N> {
    /// All zero. May sleep.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: No requirements.
        let counters = NonNull::new(unsafe { bindings::mhs_counters_alloc(N as u32) });
        // INVARIANT: As just allocated.
        Ok(Self {
            counters: counters.ok_or(ENOMEM)?,
        })
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::mhs_counters {
        self.counters.as_ptr()
    }

    /// Counts what is rare: not in one go with other counters. Nothing happens unless `i` < `N`.
    pub(crate) fn add(&self, i: usize, by: u64) {
        if i < N {
            // SAFETY: By the type invariants there are `N` counters.
            unsafe { bindings::mhs_counters_add(self.as_ptr(), i as u32, by) };
        }
    }

    /// What was counted on one CPU of [`cpus`].
    pub(crate) fn on(&self, cpu: Cpu) -> [u64; N] {
        let mut counts = [0; N];
        // SAFETY: By the type invariants there are `N` counters for each possible CPU, such as
        // this one, and `counts` has room for as many.
        unsafe {
            bindings::mhs_counters_read(self.as_ptr(), cpu.0, counts.as_mut_ptr(), N as u32);
        }
        counts
    }

    /// What was counted on all CPUs.
    pub(crate) fn sum(&self) -> [u64; N] {
        let mut sum = [0u64; N];
        for cpu in cpus(0) {
            for (sum, count) in sum.iter_mut().zip(self.on(cpu)) {
                *sum = sum.wrapping_add(count);
            }
        }
        sum
    }
}

impl<const N: usize> Drop for Counters<N> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants; nobody counts any more. Any context will do.
        unsafe { bindings::mhs_counters_free(self.as_ptr()) };
    }
}

/// A CPU that there may be.
///
/// # Invariants
///
/// The number is that of a possible CPU.
#[derive(Clone, Copy)]
pub(crate) struct Cpu(u32);

impl Cpu {
    /// Its number.
    pub(crate) fn number(self) -> u32 {
        self.0
    }
}

/// The CPUs that there may be, from number `from` on.
pub(crate) fn cpus(from: u32) -> impl Iterator<Item = Cpu> {
    let mut next = from;
    core::iter::from_fn(move || {
        // SAFETY: No requirements.
        let cpu = unsafe { bindings::mhs_next_cpu(next) };
        next = cpu.checked_add(1)?;
        // INVARIANT: The function returns possible CPUs, or the largest number.
        Some(Cpu(cpu))
    })
}
