// SPDX-License-Identifier: GPL-2.0

//! A generic netlink family: requests, dumps of many messages, events.
//!
//! Attributes are checked against the policies of `genl_gen.c`, which is made from the
//! specification of the family, before anything here sees them.
//!
//! C headers: [`include/net/genetlink.h`](srctree/include/net/genetlink.h),
//! [`include/net/netlink.h`](srctree/include/net/netlink.h)

use super::{
    bindings,
    netns::Netns,
    rcu::RcuArc,
    work::{
        DelayedWork,
        Worker, //
    },
};
use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    ptr::{
        self,
        NonNull, //
    },
    sync::atomic::{
        AtomicBool,
        Ordering, //
    },
};
use kernel::{
    container_of,
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    sync::Arc,
    transmute::AsBytes,
    types::Opaque, //
};

/// What all callbacks of a family share, and which callbacks those are.
///
/// # Safety
///
/// Every callback in [`Context::operations`] must be one that [`operations!`](operations) made for
/// this type.
pub(crate) unsafe trait Context: Send + Sync + Sized + 'static {
    /// The operations as netlink sees them.
    fn operations() -> &'static [bindings::genl_split_ops];
}

/// A family with one multicast group, for events, that takes `CAP_NET_ADMIN` in the user namespace
/// of the network namespace to join.
///
/// # Invariants
///
/// `family` is initialised, does not change but for what netlink keeps in it, and `group` is what
/// it points to.
#[pin_data]
pub(crate) struct Family<T: Context> {
    #[pin]
    family: Opaque<bindings::genl_family>,
    group: bindings::genl_multicast_group,
    registered: AtomicBool,
    #[pin]
    context: T,
}

// SAFETY: Netlink takes its own locks.
unsafe impl<T: Context> Send for Family<T> {}
// SAFETY: As above; the rest is `Sync` or never changes.
unsafe impl<T: Context> Sync for Family<T> {}

fn name<const N: usize>(name: &CStr) -> [u8; N] {
    let mut array = [0; N];
    for (to, &from) in array.iter_mut().zip(name.to_bytes()).take(N - 1) {
        *to = from;
    }
    array
}

impl<T: Context> Family<T> {
    /// A family that nobody knows of yet, see [`Registration`].
    pub(crate) fn new(
        module: &'static ThisModule,
        family: &CStr,
        version: u32,
        group: &CStr,
        context: impl PinInit<T>,
    ) -> Result<Arc<Self>> {
        // SAFETY: The structure consists of numbers, pointers that may be null and optional
        // functions, for all of which zero is a value.
        let mut raw: bindings::genl_family = unsafe { MaybeUninit::zeroed().assume_init() };
        let operations = T::operations();
        raw.name = name(family);
        raw.version = version;
        raw.set_netnsok(1);
        raw.set_parallel_ops(1);
        raw.module = module.as_ptr().cast();
        raw.split_ops = operations.as_ptr();
        raw.n_split_ops = u8::try_from(operations.len())?;
        raw.n_mcgrps = 1;
        let group = bindings::genl_multicast_group {
            name: name(group),
            flags: bindings::mhs_genl_MHS_GENL_CAP_NET_ADMIN as u8,
        };
        // INVARIANT: Complete but for the pointer to the group.
        let this = Arc::pin_init(
            pin_init!(Self {
                family: Opaque::new(raw),
                group,
                registered: AtomicBool::new(false),
                context <- context,
            }),
            GFP_KERNEL,
        )?;
        // SAFETY: Nobody else has the family yet.
        unsafe { (*this.family.get()).mcgrps = &this.group };
        // INVARIANT: Complete; an `Arc` does not move.
        Ok(this)
    }

    /// What its callbacks share.
    pub(crate) fn context(&self) -> &T {
        &self.context
    }

    /// The family of a request.
    ///
    /// # Safety
    ///
    /// `family` must be that of a callback of `T`, which netlink calls while it is registered.
    unsafe fn of<'a>(family: *const bindings::genl_family) -> &'a Self {
        let family = Opaque::cast_from(family);
        // SAFETY: By the safety requirements and those of [`Context`] the structure is embedded in
        // a `Family<T>`, whose registration has a reference.
        unsafe { &*container_of!(family, Self, family) }
    }

    /// Whether anybody in a namespace waits for events.
    pub(crate) fn has_listeners(&self, netns: &Netns) -> bool {
        if !self.registered.load(Ordering::Acquire) {
            return false;
        }
        // SAFETY: Family and namespace are valid, and the family has a group.
        unsafe { bindings::mhs_genl_has_listeners(self.family.get(), netns.net()) }
    }

    /// Sends an event to those in a namespace who wait for it. Does not sleep. Where there is no
    /// memory, or a listener cannot keep up, an event is lost, and whoever misses it reads
    /// `ENOBUFS` instead.
    pub(crate) fn send(
        &self,
        netns: &Netns,
        command: u8,
        fill: impl FnOnce(&mut Message<'_>) -> Result,
    ) {
        if !self.has_listeners(netns) {
            return;
        }
        let family = self.family.get();
        let packet = Packet::new(false).and_then(|packet| {
            packet.fill(0, 0, family, 0, command, fill)?;
            Ok(packet)
        });
        // SAFETY: Family and namespace are valid, and the family has a group; the packet is ours to
        // give away.
        unsafe {
            match packet {
                Ok(packet) => {
                    bindings::mhs_genlmsg_multicast(family, netns.net(), packet.into_raw());
                }
                Err(_) => bindings::mhs_genl_lost(family, netns.net()),
            }
        }
    }
}

/// A family that user space can talk to, soon after this was made. Dropping it waits for requests
/// that are being answered; a dump that is not at its end keeps the module, so there is none.
///
/// Often a module is loaded because a request to IPVS, which is of generic netlink too, names its
/// scheduler. That request holds up every registration until it is done, and waits for the module to
/// be initialised. So the family is registered by a work of its own.
pub(crate) struct Registration<T: Context>(RcuArc<Registrar<T>>);

#[pin_data]
struct Registrar<T: Context> {
    family: Arc<Family<T>>,
    #[pin]
    work: DelayedWork<Registrar<T>>,
}

impl<T: Context> Worker for Registrar<T> {
    fn run(&self) {
        // SAFETY: The family is complete and stays where it is until it is unregistered.
        match to_result(unsafe { bindings::genl_register_family(self.family.family.get()) }) {
            Ok(()) => self.family.registered.store(true, Ordering::Release),
            Err(error) => pr_err!("no netlink family: error {}\n", error.to_errno()),
        }
    }
}

impl<T: Context> Registration<T> {
    /// Has a family registered. Should that fail it is logged, and nobody can ask.
    pub(crate) fn new(family: Arc<Family<T>>) -> Result<Self> {
        let registrar = RcuArc::pin_init(
            try_pin_init!(Registrar {
                family,
                work <- DelayedWork::new(),
            }? Error),
            GFP_KERNEL,
        )?;
        registrar.work.start(registrar.clone());
        registrar.work.kick();
        Ok(Self(registrar))
    }
}

impl<T: Context> Drop for Registration<T> {
    fn drop(&mut self) {
        self.0.work.disable();
        if self.0.family.registered.swap(false, Ordering::AcqRel) {
            // SAFETY: It is registered: the work, which is over, said so.
            unsafe { bindings::genl_unregister_family(self.0.family.family.get()) };
        }
    }
}

/// A buffer for messages that is ours.
///
/// # Invariants
///
/// `skb` is valid and ours.
struct Packet {
    skb: NonNull<bindings::sk_buff>,
}

impl Packet {
    /// Where there is no `may_sleep`, any context will do.
    fn new(may_sleep: bool) -> Result<Self> {
        // SAFETY: No requirements, but for the context.
        let skb = unsafe { bindings::mhs_genlmsg_new(may_sleep) };
        // INVARIANT: The function returns a fresh one, or null.
        Ok(Self {
            skb: NonNull::new(skb).ok_or(ENOMEM)?,
        })
    }

    /// Puts a message into it.
    fn fill(
        &self,
        portid: u32,
        seq: u32,
        family: *const bindings::genl_family,
        flags: u32,
        command: u8,
        fill: impl FnOnce(&mut Message<'_>) -> Result,
    ) -> Result {
        // SAFETY: The buffer is valid and ours, the family valid as the callers have it.
        unsafe {
            Message::add(
                self.skb.as_ptr(),
                (portid, seq),
                family,
                flags,
                command,
                fill,
                |_| (),
            )
        }
    }

    fn into_raw(self) -> *mut bindings::sk_buff {
        core::mem::ManuallyDrop::new(self).skb.as_ptr()
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        // SAFETY: By the type invariants it is ours.
        unsafe { bindings::mhs_genlmsg_free(self.skb.as_ptr()) };
    }
}

/// A message that is being written. Everything fails with `EMSGSIZE` when there is no room, and
/// then the whole message is taken back.
///
/// # Invariants
///
/// `skb` is valid for `'a`, and nobody else writes to it.
pub(crate) struct Message<'a> {
    skb: *mut bindings::sk_buff,
    lifetime: PhantomData<&'a mut bindings::sk_buff>,
}

impl Message<'_> {
    /// Adds a message to `skb`: all that `fill` puts in, or nothing. `finish` gets the header of
    /// one that is complete.
    ///
    /// # Safety
    ///
    /// `skb` and `family` must be valid, and nobody else may write to `skb`.
    unsafe fn add(
        skb: *mut bindings::sk_buff,
        (portid, seq): (u32, u32),
        family: *const bindings::genl_family,
        flags: u32,
        command: u8,
        fill: impl FnOnce(&mut Message<'_>) -> Result,
        finish: impl FnOnce(*mut c_void),
    ) -> Result {
        // SAFETY: As the caller says.
        let header =
            unsafe { bindings::genlmsg_put(skb, portid, seq, family, flags as c_int, command) };
        if header.is_null() {
            return Err(EMSGSIZE);
        }
        // INVARIANT: As the caller says.
        let mut message = Message {
            skb,
            lifetime: PhantomData,
        };
        match fill(&mut message) {
            Ok(()) => {
                // SAFETY: `header` is that of the last message in `skb`.
                unsafe { bindings::mhs_genlmsg_end(skb, header) };
                finish(header);
                Ok(())
            }
            Err(error) => {
                // SAFETY: As above.
                unsafe { bindings::mhs_genlmsg_cancel(skb, header) };
                Err(error)
            }
        }
    }

    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, attr: u32, bytes: &[u8]) -> Result {
        let len = u16::try_from(bytes.len()).map_err(|_| EMSGSIZE)?;
        // SAFETY: By the type invariants the buffer is ours to write to; `bytes` has `len` bytes.
        to_result(unsafe {
            bindings::nla_put(
                self.skb,
                attr as c_int,
                c_int::from(len),
                bytes.as_ptr().cast(),
            )
        })
    }

    /// A `u16` in host order.
    pub(crate) fn u16(&mut self, attr: u32, value: u16) -> Result {
        self.bytes(attr, &value.to_ne_bytes())
    }

    /// A `u16` in network order.
    pub(crate) fn be16(&mut self, attr: u32, value: u16) -> Result {
        self.bytes(attr, &value.to_be_bytes())
    }

    /// A `u32` in host order.
    pub(crate) fn u32(&mut self, attr: u32, value: u32) -> Result {
        self.bytes(attr, &value.to_ne_bytes())
    }

    /// A `uint`: as few as 4 bytes if that is enough, else 8.
    pub(crate) fn uint(&mut self, attr: u32, value: u64) -> Result {
        match u32::try_from(value) {
            Ok(value) => self.u32(attr, value),
            Err(_) => self.bytes(attr, &value.to_ne_bytes()),
        }
    }

    /// Something that is there, or is not.
    pub(crate) fn flag(&mut self, attr: u32, value: bool) -> Result {
        if value {
            self.bytes(attr, &[])
        } else {
            Ok(())
        }
    }

    /// A string.
    pub(crate) fn string(&mut self, attr: u32, value: &CStr) -> Result {
        self.bytes(attr, value.to_bytes_with_nul())
    }

    /// An array of numbers in host order.
    pub(crate) fn array<E>(&mut self, attr: u32, values: &[E]) -> Result
    where
        [E]: AsBytes,
    {
        self.bytes(attr, values.as_bytes())
    }

    /// Attributes inside an attribute.
    pub(crate) fn nest(&mut self, attr: u32, fill: impl FnOnce(&mut Self) -> Result) -> Result {
        // SAFETY: By the type invariants the buffer is ours to write to.
        let nest = unsafe { bindings::mhs_nla_nest_start(self.skb, attr as c_int) };
        if nest.is_null() {
            return Err(EMSGSIZE);
        }
        fill(self)?;
        // SAFETY: The nest is open, and the last one there is.
        unsafe { bindings::mhs_nla_nest_end(self.skb, nest) };
        Ok(())
    }
}

/// An attribute of a request.
///
/// # Invariants
///
/// `attr` is valid for `'a`, as are the bytes that it says it has.
#[derive(Clone, Copy)]
pub(crate) struct Attr<'a> {
    attr: NonNull<bindings::nlattr>,
    lifetime: PhantomData<&'a bindings::nlattr>,
}

impl<'a> Attr<'a> {
    /// # Safety
    ///
    /// `attr` must be null, or valid for `'a` with all its bytes.
    unsafe fn from_raw(attr: *const bindings::nlattr) -> Option<Self> {
        // INVARIANT: By the safety requirements.
        NonNull::new(attr.cast_mut()).map(|attr| Self {
            attr,
            lifetime: PhantomData,
        })
    }

    /// What is in it.
    pub(crate) fn bytes(self) -> &'a [u8] {
        const HEADER: usize = size_of::<bindings::nlattr>();
        // SAFETY: By the type invariants the attribute is valid and has as many bytes, header
        // included, as it says.
        unsafe {
            let len = usize::from(self.attr.as_ref().nla_len).saturating_sub(HEADER);
            core::slice::from_raw_parts(self.attr.as_ptr().cast::<u8>().add(HEADER), len)
        }
    }

    fn read<const N: usize>(self) -> Option<[u8; N]> {
        self.bytes().first_chunk().copied()
    }

    /// A `u16` in host order.
    pub(crate) fn u16(self) -> Option<u16> {
        self.read().map(u16::from_ne_bytes)
    }

    /// A `u16` in network order.
    pub(crate) fn be16(self) -> Option<u16> {
        self.read().map(u16::from_be_bytes)
    }

    /// A `u32` in host order.
    pub(crate) fn u32(self) -> Option<u32> {
        self.read().map(u32::from_ne_bytes)
    }

    /// The first attribute of a kind inside this one.
    pub(crate) fn find(self, attr: u32) -> Option<Self> {
        // SAFETY: By the type invariants the attribute is valid; the function looks for none that
        // is not whole inside it.
        unsafe {
            Self::from_raw(bindings::mhs_nla_find_nested(
                self.attr.as_ptr(),
                attr as c_int,
            ))
        }
    }
}

/// What user space asks, in a message that follows the policy.
///
/// # Invariants
///
/// `info` is valid for `'a`, and so is the message that it is about, which is in `skb`.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    info: NonNull<bindings::genl_info>,
    skb: NonNull<bindings::sk_buff>,
    lifetime: PhantomData<&'a bindings::genl_info>,
}

impl<'a> Request<'a> {
    /// # Safety
    ///
    /// `info` and `skb` must be what netlink passed to a callback that runs for all of `'a`.
    unsafe fn from_raw(
        info: *const bindings::genl_info,
        skb: *const bindings::sk_buff,
    ) -> Result<Self> {
        // INVARIANT: By the safety requirements.
        Ok(Self {
            info: NonNull::new(info.cast_mut()).ok_or(EINVAL)?,
            skb: NonNull::new(skb.cast_mut()).ok_or(EINVAL)?,
            lifetime: PhantomData,
        })
    }

    /// IPVS in the namespace of the socket.
    pub(crate) fn netns(&self) -> Result<&'a Netns> {
        // SAFETY: By the type invariants `info` is valid; its socket keeps the namespace, which has
        // an IPVS, or none if that could not be set up.
        unsafe {
            let ipvs = bindings::mhs_genl_ipvs(self.info.as_ptr());
            if ipvs.is_null() {
                // Linux 7.2 has no name for it.
                return Err(Error::from_errno(-(kernel::bindings::EOPNOTSUPP as i32)));
            }
            Ok(Netns::from_raw(ipvs))
        }
    }

    /// Whether whoever asks may change the network of the whole machine, not just that of a user
    /// namespace.
    pub(crate) fn is_root(&self) -> bool {
        // SAFETY: By the type invariants `skb` is a message of netlink.
        unsafe { bindings::mhs_genl_is_root(self.skb.as_ptr()) }
    }

    /// The first attribute of a kind.
    pub(crate) fn attr(&self, attr: u32) -> Option<Attr<'a>> {
        // SAFETY: By the type invariants the message is valid; the function looks for none that is
        // not whole inside it.
        unsafe { Attr::from_raw(bindings::mhs_genl_attr(self.info.as_ptr(), attr as c_int)) }
    }

    /// Tells user space what is wrong, and with which attribute. Returns `error`.
    pub(crate) fn fail(
        &self,
        error: Error,
        attr: Option<Attr<'_>>,
        message: &'static CStr,
    ) -> Error {
        let attr = attr.map_or(ptr::null(), |attr| attr.attr.as_ptr().cast_const());
        // SAFETY: By the type invariants `info` is valid, and the attribute is part of its message.
        unsafe { bindings::mhs_genl_fail(self.info.as_ptr(), attr, message.as_char_ptr()) };
        error
    }

    /// Tells user space which attribute is missing in `nest`, or in the message. Returns `EINVAL`.
    pub(crate) fn missing(&self, nest: Option<Attr<'_>>, attr: u32) -> Error {
        let nest = nest.map_or(ptr::null(), |nest| nest.attr.as_ptr().cast_const());
        // SAFETY: By the type invariants `info` is valid, and the attribute is part of its message.
        unsafe { bindings::mhs_genl_missing(self.info.as_ptr(), nest, attr as c_int) };
        EINVAL
    }
}

/// An answer in one message.
pub(crate) trait Do {
    /// That of the family.
    type Context: Context;

    /// Answers a request. May sleep.
    fn answer(
        family: &Family<Self::Context>,
        request: Request<'_>,
        message: &mut Message<'_>,
    ) -> Result;
}

/// An answer in many messages, from its beginning to its end. It may be left alone for any time in
/// between, while user space reads on or does not.
pub(crate) trait Dump: Sized + Send {
    /// That of the family.
    type Context: Context;

    /// Begins to answer a request. May sleep.
    fn start(family: &Family<Self::Context>, request: Request<'_>) -> Result<Self>;

    /// Goes on: adds messages until all are there, or until one has no room: then it is called
    /// again, so the error of [`Batch::message`] is to be passed on. May sleep.
    fn go_on(&mut self, family: &Family<Self::Context>, batch: &mut Batch<'_>) -> Result;
}

/// A part of a dump that goes to user space in one piece.
///
/// # Invariants
///
/// `skb` and `cb` are valid for `'a`, and nobody else writes to `skb`.
pub(crate) struct Batch<'a> {
    skb: *mut bindings::sk_buff,
    cb: *mut bindings::netlink_callback,
    /// What is answered.
    pub(crate) request: Request<'a>,
}

impl Batch<'_> {
    /// Says which state of things the dump has come to, in a number that is not 0. Should that
    /// differ from the last, user space learns by the next message, or by the end of the dump, that
    /// the dump is not consistent.
    pub(crate) fn at(&mut self, generation: u32) {
        // SAFETY: By the type invariants the pointer is valid.
        let cb = unsafe { &mut *self.cb };
        cb.seq = generation;
        if cb.prev_seq == 0 {
            cb.prev_seq = generation;
        }
    }

    /// Adds a message about things as they were [`Batch::at`] `generation`.
    pub(crate) fn message(
        &mut self,
        generation: u32,
        fill: impl FnOnce(&mut Message<'_>) -> Result,
    ) -> Result {
        // SAFETY: By the type invariants all pointers are valid; the header is that of a message
        // that was just completed.
        unsafe {
            let info = self.request.info.as_ref();
            Message::add(
                self.skb,
                (info.snd_portid, info.snd_seq),
                info.family,
                bindings::NLM_F_MULTI,
                (*info.genlhdr).cmd,
                fill,
                |header| {
                    (*self.cb).seq = generation;
                    bindings::mhs_genl_check_consistent(self.cb, header);
                },
            )
        }
    }
}

/// # Safety
///
/// Only for netlink, as the `doit` of an operation of the context of `D`.
pub(crate) unsafe fn doit<D: Do>(
    skb: *mut bindings::sk_buff,
    info: *mut bindings::genl_info,
) -> c_int {
    from_result(|| {
        // SAFETY: As the caller says.
        let (family, request) = unsafe {
            (
                Family::<D::Context>::of((*info).family),
                Request::from_raw(info, skb)?,
            )
        };
        let packet = Packet::new(true)?;
        // SAFETY: As the caller says.
        let (portid, seq, command) =
            unsafe { ((*info).snd_portid, (*info).snd_seq, (*(*info).genlhdr).cmd) };
        packet.fill(portid, seq, family.family.get(), 0, command, |message| {
            D::answer(family, request, message)
        })?;
        // SAFETY: As the caller says; the packet is ours to give away.
        to_result(unsafe { bindings::mhs_genlmsg_reply(packet.into_raw(), info) })?;
        Ok(0)
    })
}

/// The request that a dump answers.
///
/// # Safety
///
/// `cb` must be what netlink passed to a callback that runs for all of `'a`.
unsafe fn request<'a>(cb: *mut bindings::netlink_callback) -> Result<Request<'a>> {
    // SAFETY: As the caller says; see `genl_dumpit_info()`. The message is kept for the whole dump.
    unsafe {
        let dump = (*cb).data.cast::<bindings::genl_dumpit_info>();
        Request::from_raw(&raw const (*dump).info, (*cb).skb)
    }
}

/// # Safety
///
/// Only for netlink, as the `start` of an operation of the context of `D` whose other callbacks are
/// [`dumpit`] and [`done`] of the same `D`.
pub(crate) unsafe fn start<D: Dump>(cb: *mut bindings::netlink_callback) -> c_int {
    from_result(|| {
        // SAFETY: As the caller says.
        let (family, request) = unsafe {
            let request = request(cb)?;
            let family = request.info.as_ref().family;
            (Family::<D::Context>::of(family), request)
        };
        let state = KBox::new(D::start(family, request)?, GFP_KERNEL)?;
        // SAFETY: The callback is valid, and has room for a pointer.
        unsafe { *bindings::mhs_genl_state(cb) = KBox::into_raw(state).cast() };
        Ok(0)
    })
}

/// # Safety
///
/// See [`start`]. Netlink makes one call at a time, after [`start`] succeeded.
pub(crate) unsafe fn dumpit<D: Dump>(
    skb: *mut bindings::sk_buff,
    cb: *mut bindings::netlink_callback,
) -> c_int {
    from_result(|| {
        // SAFETY: As the caller says.
        let (family, request) = unsafe {
            let request = request(cb)?;
            let family = request.info.as_ref().family;
            (Family::<D::Context>::of(family), request)
        };
        // SAFETY: `start()` left a box there, and `done()` has not taken it yet.
        let state = unsafe { &mut *(*bindings::mhs_genl_state(cb)).cast::<D>() };
        // INVARIANT: As the caller says.
        let mut batch = Batch { skb, cb, request };
        let result = state.go_on(family, &mut batch);
        // SAFETY: As the caller says.
        let len = unsafe { (*skb).len };
        match result {
            // There is more, and the size of what is there says so.
            Err(error) if error == EMSGSIZE && len > 0 => Ok(len as c_int),
            Err(error) => Err(error),
            Ok(()) => Ok(0),
        }
    })
}

/// # Safety
///
/// See [`start`]. Netlink calls this once, last, if [`start`] succeeded.
pub(crate) unsafe fn done<D: Dump>(cb: *mut bindings::netlink_callback) -> c_int {
    // SAFETY: `start()` left a box there, which is nobody else's now.
    drop(unsafe { KBox::from_raw((*bindings::mhs_genl_state(cb)).cast::<D>()) });
    0
}

/// Makes the callbacks that the operations in `genl_gen.c` name, and says that they are those of a
/// [`Context`].
macro_rules! operations {
    (
        $context:ty:
        $(do $doit:ident => $do:ty;)*
        $(dump $start:ident $dumpit:ident $done:ident => $dump:ty;)*
    ) => {
        // SAFETY: The operations are these.
        unsafe impl $crate::ipvs::genl::Context for $context {
            fn operations() -> &'static [$crate::ipvs::bindings::genl_split_ops] {
                // SAFETY: A constant table.
                unsafe { &*(&raw const $crate::ipvs::bindings::ipvs_mhs_nl_ops) }
            }
        }

        $(
            /// # Safety
            ///
            /// Only for netlink.
            #[no_mangle]
            unsafe extern "C" fn $doit(
                skb: *mut $crate::ipvs::bindings::sk_buff,
                info: *mut $crate::ipvs::bindings::genl_info,
            ) -> ::kernel::ffi::c_int {
                const _: fn() = || {
                    fn of<T: $crate::ipvs::genl::Do<Context = $context>>() {}
                    of::<$do>();
                };
                // SAFETY: As the caller says.
                unsafe { $crate::ipvs::genl::doit::<$do>(skb, info) }
            }
        )*

        $(
            /// # Safety
            ///
            /// Only for netlink.
            #[no_mangle]
            unsafe extern "C" fn $start(
                cb: *mut $crate::ipvs::bindings::netlink_callback,
            ) -> ::kernel::ffi::c_int {
                const _: fn() = || {
                    fn of<T: $crate::ipvs::genl::Dump<Context = $context>>() {}
                    of::<$dump>();
                };
                // SAFETY: As the caller says.
                unsafe { $crate::ipvs::genl::start::<$dump>(cb) }
            }

            /// # Safety
            ///
            /// Only for netlink.
            #[no_mangle]
            unsafe extern "C" fn $dumpit(
                skb: *mut $crate::ipvs::bindings::sk_buff,
                cb: *mut $crate::ipvs::bindings::netlink_callback,
            ) -> ::kernel::ffi::c_int {
                // SAFETY: As the caller says.
                unsafe { $crate::ipvs::genl::dumpit::<$dump>(skb, cb) }
            }

            /// # Safety
            ///
            /// Only for netlink.
            #[no_mangle]
            unsafe extern "C" fn $done(
                cb: *mut $crate::ipvs::bindings::netlink_callback,
            ) -> ::kernel::ffi::c_int {
                // SAFETY: As the caller says.
                unsafe { $crate::ipvs::genl::done::<$dump>(cb) }
            }
        )*
    };
}
pub(crate) use operations;
