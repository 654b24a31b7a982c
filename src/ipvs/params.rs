// SPDX-License-Identifier: GPL-2.0

//! The load options as they were given.
//!
//! C header: [`include/linux/moduleparam.h`](srctree/include/linux/moduleparam.h)

use super::bindings;
use kernel::prelude::*;

/// What `insmod` was told, not yet checked.
pub(crate) struct Params {
    /// `table_size`: slots of a service.
    pub(crate) table_size: u32,
    /// `balance`: percent above its share that a server may get.
    pub(crate) balance: u32,
    /// `hash_key`: hexadecimal.
    pub(crate) hash_key: &'static CStr,
    /// `sched_name`.
    pub(crate) sched_name: &'static CStr,
    /// `express`: whether packets may be forwarded before they are routed.
    pub(crate) express: bool,
}

impl Params {
    /// Reads them. To be called when the module is initialised; they never change after.
    pub(crate) fn read() -> Self {
        // SAFETY: The kernel writes the variables before the module is initialised, and never
        // after; strings are terminated, and live as long as the module.
        unsafe {
            Self {
                table_size: bindings::mhs_table_size,
                balance: bindings::mhs_balance,
                hash_key: CStr::from_char_ptr((&raw const bindings::mhs_hash_key).cast()),
                sched_name: CStr::from_char_ptr((&raw const bindings::mhs_sched_name).cast()),
                express: bindings::mhs_express,
            }
        }
    }
}
