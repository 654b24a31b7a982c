// SPDX-License-Identifier: GPL-2.0

//! IPVS schedulers.
//!
//! C header: [`include/net/ip_vs.h`](srctree/include/net/ip_vs.h)

use super::{
    bindings,
    rcu::{
        self,
        RcuArc,
        Reader, //
    },
    service::{
        Dest,
        Locked,
        Svc,
        SvcLink, //
    },
    skb::{
        Scheduled,
        Skb, //
    },
};
use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    ptr,
    sync::atomic::{
        AtomicPtr,
        Ordering, //
    },
};
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    types::Opaque, //
};

/// What happened to a server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It was added, for the first time or again.
    Added,
    /// Its weight, its forwarding method or its thresholds may be different.
    Updated,
    /// It was deleted.
    Deleted,
}

/// A scheduler.
///
/// All functions but [`Scheduler::schedule`] are called under the service mutex of the namespace,
/// in process context, and may sleep.
pub(crate) trait Scheduler: Sized + 'static {
    /// What all services of the scheduler share.
    type Context: Send + Sync;

    /// What it keeps for a service.
    type Service: Send + Sync;

    /// A service begins to use the scheduler. It has servers already if it used another one before.
    /// `link` is cut when the service is done.
    fn init(
        context: ArcBorrow<'_, Self::Context>,
        svc: Locked<'_>,
        link: SvcLink,
    ) -> Result<RcuArc<Self::Service>>;

    /// The link of a service.
    fn link(service: &Self::Service) -> &SvcLink;

    /// A service does not use the scheduler any more. All references to servers must be released
    /// before this returns. Packets may still hold `service` for a grace period.
    fn done(
        context: ArcBorrow<'_, Self::Context>,
        svc: Locked<'_>,
        service: &RcuArc<Self::Service>,
    );

    /// The servers of a service changed. There is nobody to report an error to.
    fn changed(
        context: ArcBorrow<'_, Self::Context>,
        svc: Locked<'_>,
        service: &RcuArc<Self::Service>,
        dest: &Dest,
        change: Change,
    );

    /// Chooses the server of a packet for which an entry is to be made. Must not sleep.
    fn schedule<'a>(
        service: &'a Self::Service,
        svc: &'a Svc,
        skb: &Skb<'_>,
        header: Scheduled<'_>,
        rcu: Reader<'a>,
    ) -> Option<&'a Dest>;
}

/// The [`Scheduler::Context`] of the scheduler of this module: IPVS calls back with nothing but a
/// service, which does not know its scheduler yet when it is initialised.
///
/// Null, or what [`Arc::as_ptr`] says of the context of the one [`Registration`] there is.
static CONTEXT: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// The callbacks of a scheduler of type `T`.
///
/// # Invariants
///
/// They are called by IPVS only while a [`Registration<T>`] exists.
struct Adapter<T: Scheduler>(PhantomData<T>);

impl<T: Scheduler> Adapter<T> {
    /// # Safety
    ///
    /// A [`Registration<T>`] must exist for all of `'a`.
    unsafe fn context<'a>() -> ArcBorrow<'a, T::Context> {
        // SAFETY: While there is a registration the pointer is that of its context, which it has a
        // reference to.
        unsafe { ArcBorrow::from_raw(CONTEXT.load(Ordering::Acquire).cast::<T::Context>()) }
    }

    /// # Safety
    ///
    /// Only for IPVS, with a valid service and its mutex held.
    unsafe extern "C" fn init_service(svc: *mut bindings::ip_vs_service) -> c_int {
        from_result(|| {
            // SAFETY: As the caller says; a service keeps the module, and so the registration.
            let (context, locked) =
                unsafe { (Self::context(), Locked::assume(Svc::from_raw(svc))) };
            let service = T::init(context, locked, SvcLink::new(locked))?;
            // SAFETY: `svc` is valid. Packets read the field only after the scheduler was set.
            unsafe { (*svc).sched_data = service.into_raw() };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Only for IPVS, with a valid service of this scheduler and its mutex held.
    unsafe extern "C" fn done_service(svc: *mut bindings::ip_vs_service) {
        // SAFETY: As the caller says. The field was set by `init_service()`; packets that read it
        // already are within the grace period of the object.
        let (context, locked, service) = unsafe {
            (
                Self::context(),
                Locked::assume(Svc::from_raw(svc)),
                RcuArc::<T::Service>::from_raw((*svc).sched_data),
            )
        };
        T::done(context, locked, &service);
        T::link(&service).cut();
    }

    /// # Safety
    ///
    /// Only for IPVS, with a valid server and service of this scheduler, and its mutex held.
    unsafe fn changed(
        svc: *mut bindings::ip_vs_service,
        dest: *mut bindings::ip_vs_dest,
        change: Change,
    ) -> c_int {
        // SAFETY: As the caller says; `sched_data` is a reference that is only looked at.
        let (context, locked, service, dest) = unsafe {
            (
                Self::context(),
                Locked::assume(Svc::from_raw(svc)),
                core::mem::ManuallyDrop::new(RcuArc::<T::Service>::from_raw((*svc).sched_data)),
                Dest::from_raw(dest),
            )
        };
        T::changed(context, locked, &service, dest, change);
        0
    }

    /// # Safety
    ///
    /// See [`Self::changed`].
    unsafe extern "C" fn add_dest(
        svc: *mut bindings::ip_vs_service,
        dest: *mut bindings::ip_vs_dest,
    ) -> c_int {
        // SAFETY: The same requirements.
        unsafe { Self::changed(svc, dest, Change::Added) }
    }

    /// # Safety
    ///
    /// See [`Self::changed`].
    unsafe extern "C" fn upd_dest(
        svc: *mut bindings::ip_vs_service,
        dest: *mut bindings::ip_vs_dest,
    ) -> c_int {
        // SAFETY: The same requirements.
        unsafe { Self::changed(svc, dest, Change::Updated) }
    }

    /// # Safety
    ///
    /// See [`Self::changed`].
    unsafe extern "C" fn del_dest(
        svc: *mut bindings::ip_vs_service,
        dest: *mut bindings::ip_vs_dest,
    ) -> c_int {
        // SAFETY: The same requirements.
        unsafe { Self::changed(svc, dest, Change::Deleted) }
    }

    /// # Safety
    ///
    /// Only for IPVS, in a critical section, with all arguments valid.
    unsafe extern "C" fn schedule(
        svc: *mut bindings::ip_vs_service,
        skb: *const bindings::sk_buff,
        header: *mut bindings::ip_vs_iphdr,
    ) -> *mut bindings::ip_vs_dest {
        // SAFETY: As the caller says; `sched_data` was read after the scheduler, so it is ours.
        let dest = unsafe {
            let rcu = Reader::assume();
            let service = RcuArc::<T::Service>::borrow_raw((*svc).sched_data, rcu);
            T::schedule(
                service,
                Svc::from_raw(svc),
                &Skb::from_raw(skb.cast_mut()),
                Scheduled(&*header),
                rcu,
            )
        };
        dest.map_or(ptr::null_mut(), Dest::as_ptr)
    }
}

/// A registered scheduler. Dropping it unregisters it and waits until nothing of it is left.
///
/// # Invariants
///
/// `scheduler` is registered, and [`CONTEXT`] is `context`.
pub(crate) struct Registration<T: Scheduler> {
    scheduler: Pin<KBox<Opaque<bindings::ip_vs_scheduler>>>,
    // Never looked at here; read through `CONTEXT`.
    _context: Arc<T::Context>,
}

// SAFETY: It may be dropped by any thread.
unsafe impl<T: Scheduler> Send for Registration<T> {}
// SAFETY: A shared reference to it is good for nothing.
unsafe impl<T: Scheduler> Sync for Registration<T> {}

impl<T: Scheduler> Registration<T> {
    /// Registers a scheduler under `name`.
    ///
    /// # Errors
    ///
    /// `EEXIST` if IPVS has a scheduler of that name, `EBUSY` if this module has registered one.
    pub(crate) fn new(
        module: &'static ThisModule,
        name: &'static CStr,
        context: Arc<T::Context>,
    ) -> Result<Self> {
        // SAFETY: The structure consists of numbers, pointers that may be null and optional
        // functions, for all of which zero is a value.
        let blank: bindings::ip_vs_scheduler = unsafe { MaybeUninit::zeroed().assume_init() };
        let scheduler = KBox::pin(
            Opaque::new(bindings::ip_vs_scheduler {
                name: name.as_char_ptr().cast_mut(),
                module: module.as_ptr().cast(),
                init_service: Some(Adapter::<T>::init_service),
                done_service: Some(Adapter::<T>::done_service),
                add_dest: Some(Adapter::<T>::add_dest),
                del_dest: Some(Adapter::<T>::del_dest),
                upd_dest: Some(Adapter::<T>::upd_dest),
                schedule: Some(Adapter::<T>::schedule),
                ..blank
            }),
            GFP_KERNEL,
        )?;
        let entry = scheduler.get();
        // SAFETY: The list head is ours; IPVS wants it empty, that is, pointing to itself.
        unsafe {
            let head = &raw mut (*entry).n_list;
            (*head).next = head;
            (*head).prev = head;
        }
        let pointer = Arc::as_ptr(&context);
        CONTEXT
            .compare_exchange(
                ptr::null_mut(),
                pointer.cast_mut().cast(),
                Ordering::AcqRel,
                Ordering::Acquire,
            )
            .map_err(|_| EBUSY)?;
        // SAFETY: The scheduler is complete and stays where it is until it is unregistered.
        if let Err(error) = to_result(unsafe { bindings::register_ip_vs_scheduler(entry) }) {
            CONTEXT.store(ptr::null_mut(), Ordering::Release);
            // IPVS has one code for every mistake; with a sound structure the name is taken.
            return Err(if error == EINVAL { EEXIST } else { error });
        }
        // INVARIANT: Registered, and the context is in place.
        Ok(Self {
            scheduler,
            _context: context,
        })
    }
}

impl<T: Scheduler> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants it is registered. A service would keep the module, so there
        // is none.
        unsafe { bindings::unregister_ip_vs_scheduler(self.scheduler.get()) };
        let left = rcu::drain();
        if left != 0 {
            pr_err!("{} objects were never freed\n", left);
        }
        CONTEXT.store(ptr::null_mut(), Ordering::Release);
    }
}
