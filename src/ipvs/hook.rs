// SPDX-License-Identifier: GPL-2.0

//! The doors: a netfilter hook in LOCAL_IN, just before IPVS, and one in PRE_ROUTING for express
//! mode.
//!
//! C header: [`include/linux/netfilter.h`](srctree/include/linux/netfilter.h)

use super::{
    bindings,
    netns::Netns,
    rcu::{
        RcuArc,
        Reader, //
    },
    skb::Skb,
};
use core::mem::MaybeUninit;
use kernel::{
    error::to_result,
    prelude::*,
    types::Opaque, //
};

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict(u32);

impl Verdict {
    /// It goes on its way through the stack.
    pub(crate) const ACCEPT: Self = Self(bindings::NF_ACCEPT);

    /// It ends here.
    pub(crate) const DROP: Self = Self(bindings::NF_DROP);

    /// It was taken.
    pub(crate) const STOLEN: Self = Self(bindings::NF_STOLEN);

    pub(super) fn from_raw(verdict: u32) -> Self {
        Self(verdict)
    }
}

/// Who stands at the doors.
pub(crate) trait Doors: Send + Sync + 'static {
    /// A packet that comes straight from a device, neither routed nor tracked.
    fn hasten(&self, skb: Skb<'_>, v6: bool, rcu: Reader<'_>) -> Verdict;

    /// A packet for this host that IPVS has not seen yet.
    fn arrive(&self, skb: Skb<'_>, v6: bool, rcu: Reader<'_>) -> Verdict;
}

/// # Safety
///
/// Only for netfilter, with `T` behind `private`.
unsafe extern "C" fn arrive<T: Doors, const V6: bool>(
    private: *mut c_void,
    skb: *mut bindings::sk_buff,
    state: *const bindings::nf_hook_state,
) -> u32 {
    // SAFETY: Netfilter runs hooks in a critical section; the door was referenced by `Hooks` when
    // it began, or the hook would not have been found; the packet is valid, and so is the
    // namespace that netfilter says it is in.
    unsafe {
        let rcu = Reader::assume();
        RcuArc::<T>::borrow_raw(private, rcu)
            .arrive(Skb::from_hook(skb, (*state).net), V6, rcu)
            .0
    }
}

/// # Safety
///
/// Only for netfilter, with `T` behind `private`.
unsafe extern "C" fn hasten<T: Doors, const V6: bool>(
    private: *mut c_void,
    skb: *mut bindings::sk_buff,
    state: *const bindings::nf_hook_state,
) -> u32 {
    // SAFETY: As in `arrive()`.
    unsafe {
        let rcu = Reader::assume();
        RcuArc::<T>::borrow_raw(private, rcu)
            .hasten(Skb::from_device(skb, (*state).net), V6, rcu)
            .0
    }
}

/// Which door.
#[derive(Clone, Copy)]
pub(crate) enum Door {
    /// Just before IPVS, as [`Doors::arrive`] says.
    Arrive,
    /// Before everything else, as [`Doors::hasten`] says.
    Hasten,
}

const COUNT: usize = 2;

/// The operations of a door. Netfilter lists hooks without a lock (`nfnl_hook_dump()`), and may look
/// at these for a grace period after they were taken away.
struct Ops(Opaque<[bindings::nf_hook_ops; COUNT]>);

// SAFETY: They are changed by netfilter alone, under its own lock.
unsafe impl Send for Ops {}
// SAFETY: As above.
unsafe impl Sync for Ops {}

impl Ops {
    fn as_ptr(&self) -> *mut bindings::nf_hook_ops {
        self.0.get().cast()
    }
}

/// A door of one namespace; dropping it takes it away. Packets in flight may still be there for a
/// grace period.
///
/// # Invariants
///
/// The `ops` are registered in `net`, unless that is null, and `doors` is a reference from
/// [`RcuArc::into_raw`].
pub(crate) struct Hooks<T: Doors> {
    net: *mut bindings::net,
    ops: RcuArc<Ops>,
    doors: *mut c_void,
    kind: core::marker::PhantomData<T>,
}

// SAFETY: Hooks may be registered and unregistered by any thread.
unsafe impl<T: Doors> Send for Hooks<T> {}

impl<T: Doors> Hooks<T> {
    /// Opens a door, for IPv4 and IPv6.
    pub(crate) fn register(netns: &Netns, door: Door, doors: RcuArc<T>) -> Result<Self> {
        // SAFETY: The structure consists of numbers, pointers that may be null and an optional
        // function, for all of which zero is a value.
        let blank: bindings::nf_hook_ops = unsafe { MaybeUninit::zeroed().assume_init() };
        // The priorities of IPv6 have the same values as those of IPv4.
        let (hooknum, priority) = match door {
            Door::Arrive => (
                bindings::nf_inet_hooks_NF_INET_LOCAL_IN,
                bindings::mhs_door_MHS_DOOR,
            ),
            Door::Hasten => (
                bindings::nf_inet_hooks_NF_INET_PRE_ROUTING,
                bindings::mhs_door_MHS_DOOR_EXPRESS,
            ),
        };
        let doors = doors.into_raw();
        let op = |hook: bindings::nf_hookfn, pf: u32| bindings::nf_hook_ops {
            hook,
            pf: pf as u8,
            hooknum,
            priority,
            priv_: doors,
            ..blank
        };
        let (v4, v6) = (bindings::NFPROTO_IPV4, bindings::NFPROTO_IPV6);
        let ops = match door {
            Door::Arrive => [
                op(Some(arrive::<T, false>), v4),
                op(Some(arrive::<T, true>), v6),
            ],
            Door::Hasten => [
                op(Some(hasten::<T, false>), v4),
                op(Some(hasten::<T, true>), v6),
            ],
        };
        let ops = RcuArc::new(Ops(Opaque::new(ops)), GFP_KERNEL).inspect_err(|_| {
            // SAFETY: The reference is ours, and nobody has seen it.
            drop(unsafe { RcuArc::<T>::from_raw(doors) });
        })?;
        // INVARIANT: Not registered yet, and `net` is null.
        let mut hooks = Self {
            net: core::ptr::null_mut(),
            ops,
            doors,
            kind: core::marker::PhantomData,
        };
        // SAFETY: The namespace exists, since it has a service, and the operations stay where they
        // are for a grace period after they are unregistered.
        to_result(unsafe {
            bindings::nf_register_net_hooks(netns.net(), hooks.ops.as_ptr(), COUNT as u32)
        })?;
        // INVARIANT: Registered.
        hooks.net = netns.net();
        Ok(hooks)
    }
}

impl<T: Doors> Drop for Hooks<T> {
    fn drop(&mut self) {
        if !self.net.is_null() {
            // SAFETY: By the type invariants they are registered.
            unsafe { bindings::nf_unregister_net_hooks(self.net, self.ops.as_ptr(), COUNT as u32) };
        }
        // SAFETY: By the type invariants the reference is ours; no new packet finds it.
        drop(unsafe { RcuArc::<T>::from_raw(self.doors) });
    }
}
