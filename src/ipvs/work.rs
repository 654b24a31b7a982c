// SPDX-License-Identifier: GPL-2.0

//! Work that is done later, in process context, and can be called off for good.
//!
//! The kernel crate's delayed work cannot be cancelled; a service that goes away needs that.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use super::{
    bindings,
    rcu::RcuArc, //
};
use core::{
    ptr,
    sync::atomic::{
        AtomicPtr,
        Ordering, //
    },
};
use kernel::{
    container_of,
    prelude::*,
    types::Opaque, //
};

/// What is done when the time has come.
pub(crate) trait Worker: Send + Sync + 'static {
    /// Does the work. May sleep.
    fn run(&self);
}

/// A `struct delayed_work` for one [`Worker`].
///
/// The worker usually contains its work. That circle is closed by [`DelayedWork::start`] and opened
/// by [`DelayedWork::disable`]; whoever forgets the latter leaks the worker, nothing worse.
///
/// # Invariants
///
/// - `work` is initialised.
/// - `worker` is null, or a reference from [`RcuArc::into_raw`] that this object owns. It is non-null
///   whenever the work can run.
#[pin_data]
pub(crate) struct DelayedWork<T: Worker> {
    #[pin]
    work: Opaque<bindings::delayed_work>,
    worker: AtomicPtr<c_void>,
    kind: core::marker::PhantomData<T>,
}

// SAFETY: Every workqueue function may be called from any thread.
unsafe impl<T: Worker> Send for DelayedWork<T> {}
// SAFETY: Every workqueue function takes the work's own lock.
unsafe impl<T: Worker> Sync for DelayedWork<T> {}

impl<T: Worker> DelayedWork<T> {
    /// Initialises work that does nothing until it is started.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // INVARIANT: Initialised here, and pinned from here on.
            work <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes and pinned; `callback` is the right function
                // for a work that is embedded in a `DelayedWork<T>`.
                unsafe { bindings::mhs_delayed_work_init(slot, Some(Self::callback)) }
            }),
            worker: AtomicPtr::new(ptr::null_mut()),
            kind: core::marker::PhantomData,
        })
    }

    /// Names the worker. To be called once, before the work is armed.
    pub(crate) fn start(&self, worker: RcuArc<T>) {
        let old = self.worker.swap(worker.into_raw(), Ordering::AcqRel);
        debug_assert!(old.is_null());
    }

    /// Has the worker run in `delay` ticks, whatever was asked for before.
    pub(crate) fn arm(&self, delay: u64) {
        if !self.worker.load(Ordering::Acquire).is_null() {
            // SAFETY: By the type invariants the work is initialised.
            unsafe { bindings::mhs_delayed_work_arm(self.work.get(), delay as usize) };
        }
    }

    /// Has the worker run in `delay` ticks, unless it is to run anyway.
    pub(crate) fn arm_if_idle(&self, delay: u64) {
        if !self.worker.load(Ordering::Acquire).is_null() {
            // SAFETY: By the type invariants the work is initialised.
            unsafe { bindings::mhs_delayed_work_arm_if_idle(self.work.get(), delay as usize) };
        }
    }

    /// Has the worker run at once, or once more if it is running. May be called from any context.
    pub(crate) fn kick(&self) {
        self.arm(0);
    }

    /// Waits until the work is neither pending nor running and sees to it that it never will be
    /// again. May sleep; must not be called by the worker itself.
    pub(crate) fn disable(&self) {
        // SAFETY: By the type invariants the work is initialised.
        unsafe { bindings::disable_delayed_work_sync(self.work.get()) };
        let worker = self.worker.swap(ptr::null_mut(), Ordering::AcqRel);
        if !worker.is_null() {
            // SAFETY: By the type invariants the reference is ours, and it was just taken out; the
            // work, disabled, cannot look at it any more.
            drop(unsafe { RcuArc::<T>::from_raw(worker) });
        }
    }

    /// # Safety
    ///
    /// Only for the workqueue, with the `work_struct` of a `DelayedWork<T>`.
    unsafe extern "C" fn callback(work: *mut bindings::work_struct) {
        // SAFETY: The work is the first part of a `delayed_work`, which is embedded as the caller
        // says.
        let this = unsafe {
            let delayed = container_of!(work, bindings::delayed_work, work);
            &*container_of!(Opaque::cast_from(delayed), Self, work)
        };
        let worker = this.worker.load(Ordering::Acquire);
        if worker.is_null() {
            return;
        }
        // SAFETY: By the type invariants this is a reference; `disable()` gives it up only after it
        // has waited for this function to return.
        let worker = core::mem::ManuallyDrop::new(unsafe { RcuArc::<T>::from_raw(worker) });
        worker.run();
    }
}
