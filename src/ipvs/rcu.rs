// SPDX-License-Identifier: GPL-2.0

//! Objects that readers reach without a lock and that are freed after a grace period.
//!
//! The kernel crate has the read-side guard ([`kernel::sync::rcu`]) but nothing that publishes a
//! pointer. Here: [`Reader`] is the evidence, [`RcuArc`] owns, [`RcuCell`] publishes. Nothing ever
//! waits for a grace period: memory is handed to `call_rcu()`.
//!
//! C header: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)

use super::bindings;
use core::{
    marker::PhantomData,
    ops::Deref,
    ptr,
    sync::atomic::{
        AtomicPtr,
        AtomicUsize,
        Ordering, //
    },
};
use kernel::{
    alloc::Flags,
    container_of,
    prelude::*,
    sync::{
        rcu,
        Refcount, //
    },
    types::{
        NotThreadSafe,
        Opaque, //
    },
};

/// Evidence that an RCU read-side critical section is open for all of `'a`.
///
/// # Invariants
///
/// An RCU read-side critical section of this thread lasts at least as long as `'a`.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(PhantomData<&'a rcu::Guard>, PhantomData<NotThreadSafe>);

impl<'a> Reader<'a> {
    /// Uses a guard as evidence.
    pub(crate) fn new(_guard: &'a rcu::Guard) -> Self {
        // INVARIANT: The guard is borrowed for `'a`, so it cannot be dropped before its end.
        Self(PhantomData, PhantomData)
    }

    /// Takes the caller's word for it.
    ///
    /// # Safety
    ///
    /// The caller must be inside an RCU read-side critical section that lasts for all of `'a`.
    pub(super) unsafe fn assume() -> Self {
        // INVARIANT: By the safety requirements.
        Self(PhantomData, PhantomData)
    }
}

/// How many [`RcuArc`] objects exist, counting those whose grace period is still running.
static LIVE: AtomicUsize = AtomicUsize::new(0);

#[pin_data]
struct Node<T> {
    refs: Refcount,
    head: Opaque<bindings::callback_head>,
    #[pin]
    value: T,
}

/// A reference-counted object whose memory outlives its last reference by a grace period.
///
/// A reader that found the object through an [`RcuCell`] may therefore use it until the end of its
/// critical section without taking a reference.
///
/// # Invariants
///
/// `node` came from `KBox::into_raw()`, is pinned, and this object owns one count of its `refs`.
pub(crate) struct RcuArc<T: Send + Sync + 'static> {
    node: ptr::NonNull<Node<T>>,
}

// SAFETY: The value may be used and dropped by any thread, as `T` allows both.
unsafe impl<T: Send + Sync> Send for RcuArc<T> {}
// SAFETY: Sharing the reference gives out `&T` and clones only, which `T` allows.
unsafe impl<T: Send + Sync> Sync for RcuArc<T> {}

impl<T: Send + Sync + 'static> RcuArc<T> {
    /// Allocates an object and initialises it in place.
    pub(crate) fn pin_init(init: impl PinInit<T, Error>, flags: Flags) -> Result<Self> {
        let node = KBox::pin_init(
            try_pin_init!(Node {
                refs: Refcount::new(1),
                head: Opaque::uninit(),
                value <- init,
            }? Error),
            flags,
        )?;
        LIVE.fetch_add(1, Ordering::Relaxed);
        // SAFETY: The node is never moved out of its allocation, only dropped in place by
        // `reclaim()`.
        let node = KBox::into_raw(unsafe { Pin::into_inner_unchecked(node) });
        // SAFETY: A box is never null.
        let node = unsafe { ptr::NonNull::new_unchecked(node) };
        // INVARIANT: `node` is fresh, with one count, which is ours.
        Ok(Self { node })
    }

    /// Allocates an object.
    pub(crate) fn new(value: T, flags: Flags) -> Result<Self> {
        // SAFETY: The closure writes a valid value to the slot, where it stays, and cannot fail.
        let init = unsafe {
            pin_init::pin_init_from_closure(move |slot: *mut T| {
                slot.write(value);
                Ok::<(), Error>(())
            })
        };
        Self::pin_init(init, flags)
    }

    /// Whether both are the same object.
    pub(crate) fn ptr_eq(&self, other: &Self) -> bool {
        self.node == other.node
    }

    /// Hands the reference over to C.
    pub(super) fn into_raw(self) -> *mut c_void {
        let node = self.node.as_ptr();
        core::mem::forget(self);
        node.cast()
    }

    /// Takes a reference back from C.
    ///
    /// # Safety
    ///
    /// `ptr` must come from [`RcuArc::into_raw`] of the same `T`, and not have been taken back.
    pub(super) unsafe fn from_raw(ptr: *mut c_void) -> Self {
        // SAFETY: `into_raw()` returns non-null pointers only.
        let node = unsafe { ptr::NonNull::new_unchecked(ptr.cast()) };
        // INVARIANT: By the safety requirements the count that `into_raw()` gave away is ours.
        Self { node }
    }

    /// Looks at an object that C holds a reference to.
    ///
    /// # Safety
    ///
    /// `ptr` must come from [`RcuArc::into_raw`] of the same `T`, and must not have been taken back
    /// before the critical section that `_rcu` stands for began.
    pub(super) unsafe fn borrow_raw<'a>(ptr: *mut c_void, _rcu: Reader<'a>) -> &'a T {
        // SAFETY: By the safety requirements the node was referenced when the critical section
        // began, so its grace period cannot end before that section does.
        unsafe { &(*ptr.cast::<Node<T>>()).value }
    }

    /// Frees a node when its grace period is over.
    ///
    /// # Safety
    ///
    /// Only for `call_rcu()`, with the `head` of a node that has no reference left.
    unsafe extern "C" fn reclaim(head: *mut bindings::callback_head) {
        let node = Opaque::cast_from(head.cast_const());
        // SAFETY: `head` is the field of a `Node<T>`, as the caller says.
        let node = unsafe { container_of!(node, Node<T>, head) };
        // SAFETY: The node came from a box and nobody refers to it any more.
        drop(unsafe { KBox::from_raw(node.cast_mut()) });
        LIVE.fetch_sub(1, Ordering::Release);
    }
}

impl<T: Send + Sync + 'static> Clone for RcuArc<T> {
    fn clone(&self) -> Self {
        // SAFETY: By the type invariants the node is alive.
        unsafe { self.node.as_ref() }.refs.inc();
        // INVARIANT: The count just taken belongs to the clone.
        Self { node: self.node }
    }
}

impl<T: Send + Sync + 'static> Deref for RcuArc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariants the node is alive.
        &unsafe { self.node.as_ref() }.value
    }
}

impl<T: Send + Sync + 'static> Drop for RcuArc<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the node is alive.
        let node = unsafe { self.node.as_ref() };
        if node.refs.dec_and_test() {
            // SAFETY: The last count is gone, so `head` is used once; the callback is this module's
            // code, which stays until `drain()` has seen every node freed.
            unsafe { bindings::call_rcu(node.head.get(), Some(Self::reclaim)) };
        }
    }
}

/// A place where an object is published for readers.
///
/// # Invariants
///
/// `ptr` is null, or the cell owns one reference to the node it points to.
pub(crate) struct RcuCell<T: Send + Sync + 'static> {
    ptr: AtomicPtr<Node<T>>,
    owns: PhantomData<RcuArc<T>>,
}

impl<T: Send + Sync + 'static> RcuCell<T> {
    /// An empty place.
    pub(crate) const fn empty() -> Self {
        // INVARIANT: Null.
        Self {
            ptr: AtomicPtr::new(ptr::null_mut()),
            owns: PhantomData,
        }
    }

    /// What is published, for as long as the critical section lasts.
    #[inline]
    pub(crate) fn read<'a>(&self, _rcu: Reader<'a>) -> Option<&'a T> {
        let node = self.ptr.load(Ordering::Acquire);
        // SAFETY: By the type invariants the node was referenced when it was read; the cell gives
        // its reference up only after unpublishing, and the memory stays until the end of the
        // critical section that `_rcu` stands for.
        unsafe { node.as_ref() }.map(|node| &node.value)
    }

    /// Publishes `new` and returns what was there; dropping that frees it after a grace period.
    pub(crate) fn replace(&self, new: Option<RcuArc<T>>) -> Option<RcuArc<T>> {
        let new = new.map_or(ptr::null_mut(), |arc| arc.into_raw().cast());
        let old = self.ptr.swap(new, Ordering::AcqRel);
        // INVARIANT: The reference of the cell moves to the returned object.
        ptr::NonNull::new(old).map(|node| RcuArc { node })
    }
}

impl<T: Send + Sync + 'static> Drop for RcuCell<T> {
    fn drop(&mut self) {
        self.replace(None);
    }
}

/// A point in time, to ask later whether a grace period has passed since.
#[derive(Clone, Copy)]
pub(crate) struct GracePeriod(usize);

impl GracePeriod {
    /// Starts a grace period if none is under way. Does not wait.
    pub(crate) fn start() -> Self {
        // SAFETY: No requirements.
        Self(unsafe { bindings::start_poll_synchronize_rcu() } as usize)
    }

    /// Whether every reader of the time of [`GracePeriod::start`] has finished.
    pub(crate) fn is_over(self) -> bool {
        // SAFETY: The cookie came from `start_poll_synchronize_rcu()`.
        unsafe { bindings::poll_state_synchronize_rcu(self.0) }
    }
}

/// Waits until every object of this module is freed. For module exit, when nothing is published
/// any more. Returns how many are left, which is a leak if it is not 0.
pub(crate) fn drain() -> usize {
    // The callback of one object may drop the last reference to another, which needs a grace
    // period of its own: service -> servers -> server is the longest chain.
    for _ in 0..16 {
        // SAFETY: Module exit is process context and may sleep.
        unsafe {
            bindings::synchronize_rcu();
            bindings::rcu_barrier();
        }
        if LIVE.load(Ordering::Acquire) == 0 {
            break;
        }
    }
    LIVE.load(Ordering::Acquire)
}
