// SPDX-License-Identifier: GPL-2.0

//! Safe abstractions for IPVS and for what else the kernel crate lacks.
//!
//! All `unsafe` of the module is here; nothing here knows what the scheduler is about.

pub(crate) mod conn;
pub(crate) mod counters;
pub(crate) mod express;
pub(crate) mod genl;
pub(crate) mod hook;
pub(crate) mod netns;
pub(crate) mod params;
pub(crate) mod rcu;
pub(crate) mod scheduler;
pub(crate) mod service;
pub(crate) mod skb;
pub(crate) mod time;
pub(crate) mod work;

#[allow(
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    non_snake_case,
    improper_ctypes,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    clippy::all,
    clippy::as_underscore,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks
)]
pub(crate) mod bindings {
    use kernel::ffi;

    type __kernel_size_t = usize;
    type __kernel_ssize_t = isize;
    type __kernel_ptrdiff_t = isize;

    include!(env!("MHS_BINDINGS"));
}
