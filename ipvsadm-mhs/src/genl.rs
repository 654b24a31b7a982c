// SPDX-License-Identifier: GPL-2.0

//! Generic netlink: families by name, requests, dumps and events.

use crate::error::{Error, Result};
use neli::{
    attr::Attribute,
    consts::{
        genl::{Cmd, CtrlAttr, CtrlAttrMcastGrp, CtrlCmd, Index, NlAttrType},
        nl::{GenlId, NlmF, NlmsgerrAttr},
        socket::NlFamily,
    },
    err::SocketError,
    genl::{AttrTypeBuilder, GenlAttrHandle, Genlmsghdr, GenlmsghdrBuilder, Nlattr, NlattrBuilder},
    nl::{NlPayload, NlmsghdrBuilder},
    socket::synchronous::NlSocketHandle,
    types::{Buffer, GenlBuffer},
    utils::Groups,
    FromBytes, Size, ToBytes, TypeSize,
};
use std::{
    collections::HashMap,
    fmt::Debug,
    io,
    sync::mpsc::{self, Receiver},
    thread,
};

/// How often a dump is begun anew that the kernel says was overtaken by changes.
const ATTEMPTS: u32 = 20;

pub type Attrs<A> = GenlBuffer<A, Buffer>;

/// Some events; `None` if some were lost.
pub type Events<C, A> = Result<Option<Vec<Genlmsghdr<C, A>>>>;

/// An attribute.
pub fn attr<A, P>(kind: A, payload: P) -> Result<Nlattr<A, Buffer>>
where
    A: NlAttrType + Size,
    P: Size + ToBytes,
{
    let kind = AttrTypeBuilder::default().nla_type(kind).build();
    let kind = kind.map_err(|error| Error::Answer(error.to_string()))?;
    NlattrBuilder::default()
        .nla_type(kind)
        .nla_payload(payload)
        .build()
        .map_err(|error| Error::Answer(error.to_string()))
}

/// An attribute that holds others.
pub fn nest<A, B>(
    kind: A,
    inner: impl IntoIterator<Item = Nlattr<B, Buffer>>,
) -> Result<Nlattr<A, Buffer>>
where
    A: NlAttrType + Size,
    B: NlAttrType,
{
    let mut outer = attr(kind, Buffer::new())?;
    for attr in inner {
        outer = outer.nest(&attr).map_err(answer)?;
    }
    Ok(outer)
}

/// An error in what the kernel sent.
pub fn answer(error: impl std::fmt::Display) -> Error {
    Error::Answer(error.to_string())
}

/// A number, or 0 where the kernel sent none.
pub fn number<A, T>(attrs: &GenlAttrHandle<'_, A>, kind: A) -> Result<Option<T>>
where
    A: NlAttrType + Copy,
    T: FromBytes,
{
    match attrs.get_attribute(kind) {
        Some(attr) => attr.get_payload_as().map(Some).map_err(answer),
        None => Ok(None),
    }
}

/// A string without its terminator.
pub fn string<A>(attrs: &GenlAttrHandle<'_, A>, kind: A) -> Option<String>
where
    A: NlAttrType + Copy,
{
    let attr = attrs.get_attribute(kind)?;
    let bytes: &[u8] = attr.nla_payload().as_ref();
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

/// The bytes of an attribute.
pub fn bytes<'a, A>(attrs: &'a GenlAttrHandle<'_, A>, kind: A) -> Option<&'a [u8]>
where
    A: NlAttrType + Copy,
{
    attrs
        .get_attribute(kind)
        .map(|attr| attr.nla_payload().as_ref())
}

/// The attributes inside an attribute.
pub fn inside<A, B>(attr: &Nlattr<A, Buffer>) -> Result<GenlAttrHandle<'_, B>>
where
    A: NlAttrType,
    B: NlAttrType,
{
    attr.get_attr_handle().map_err(answer)
}

/// A family that the kernel has.
#[derive(Clone, Debug)]
pub struct Family {
    id: u16,
    pub version: u8,
    groups: HashMap<String, u32>,
}

/// A socket for requests, or one for events.
pub struct Genl {
    socket: NlSocketHandle,
    seq: u32,
}

impl Genl {
    pub fn connect() -> Result<Self> {
        let what = "generic netlink";
        let socket = NlSocketHandle::connect(NlFamily::Generic, None, Groups::empty());
        let socket = socket.map_err(|error| socket_error(what, error))?;
        // Without explanations it works as well.
        let _ = socket.enable_ext_ack(true);
        Ok(Self { socket, seq: 0 })
    }

    /// Looks a family up; the kernel loads its module if it can. `None` if there is none.
    pub fn family(&mut self, name: &str) -> Result<Option<Family>> {
        let attrs = [attr(CtrlAttr::FamilyName, name)?].into_iter().collect();
        let ctrl = Family {
            id: GenlId::Ctrl.into(),
            version: 2,
            groups: HashMap::new(),
        };
        let found = self.request(&ctrl, CtrlCmd::Getfamily, NlmF::ACK, attrs, name);
        let found: Vec<Genlmsghdr<CtrlCmd, CtrlAttr>> = match found {
            Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(None),
            found => found?,
        };
        let Some(message) = found.first() else {
            return Ok(None);
        };
        let attrs = message.attrs().get_attr_handle();
        let mut groups = HashMap::new();
        if let Some(all) = attrs.get_attribute(CtrlAttr::McastGroups) {
            for group in inside::<_, Index>(all)?.iter() {
                let group = inside::<_, CtrlAttrMcastGrp>(group)?;
                let id = number(&group, CtrlAttrMcastGrp::Id)?;
                if let (Some(name), Some(id)) = (string(&group, CtrlAttrMcastGrp::Name), id) {
                    groups.insert(name, id);
                }
            }
        }
        let id = number(&attrs, CtrlAttr::FamilyId)?;
        Ok(Some(Family {
            id: id.ok_or_else(|| answer("a family without a number"))?,
            version: number::<_, u32>(&attrs, CtrlAttr::Version)?.unwrap_or(1) as u8,
            groups,
        }))
    }

    /// Sends a request and collects the answer. `what` names it in errors.
    ///
    /// A dump that changes overtook is begun anew, so that what is returned is of one moment.
    pub fn request<C, A>(
        &mut self,
        family: &Family,
        cmd: C,
        flags: NlmF,
        attrs: Attrs<A>,
        what: &str,
    ) -> Result<Vec<Genlmsghdr<C, A>>>
    where
        C: Cmd + Copy + Debug + Size + TypeSize + FromBytes,
        A: NlAttrType + Copy + Debug + Size + TypeSize + FromBytes,
    {
        for _ in 0..ATTEMPTS {
            let reply = self.request_once(family, cmd, flags, attrs.clone(), what)?;
            if let Some(messages) = reply {
                return Ok(messages);
            }
        }
        Err(Error::Unsteady(ATTEMPTS))
    }

    /// `None` if changes overtook the dump.
    fn request_once<C, A>(
        &mut self,
        family: &Family,
        cmd: C,
        flags: NlmF,
        attrs: Attrs<A>,
        what: &str,
    ) -> Result<Option<Vec<Genlmsghdr<C, A>>>>
    where
        C: Cmd + Copy + Debug + Size + TypeSize + FromBytes,
        A: NlAttrType + Copy + Debug + Size + TypeSize + FromBytes,
    {
        self.seq += 1;
        let payload = GenlmsghdrBuilder::default()
            .cmd(cmd)
            .version(family.version)
            .attrs(attrs)
            .build()
            .map_err(answer)?;
        let message = NlmsghdrBuilder::default()
            .nl_type(family.id)
            .nl_flags(NlmF::REQUEST | flags)
            .nl_seq(self.seq)
            .nl_payload(NlPayload::Payload(payload))
            .build()
            .map_err(answer)?;
        let fail = |error| socket_error(what, error);
        self.socket.send(&message).map_err(fail)?;

        let dump = flags.contains(NlmF::DUMP);
        let (mut messages, mut interrupted) = (Vec::new(), false);
        loop {
            let (received, _) = self.socket.recv::<u16, Genlmsghdr<C, A>>().map_err(fail)?;
            for message in received {
                let message = message.map_err(fail)?;
                if *message.nl_seq() != self.seq {
                    continue;
                }
                interrupted |= message.nl_flags().contains(NlmF::DUMP_INTR);
                match message.nl_payload() {
                    NlPayload::Payload(payload) => messages.push(payload.clone()),
                    NlPayload::Err(error) => {
                        return Err(kernel(what, *error.error(), error.ext_ack()));
                    }
                    NlPayload::DumpExtAck(end) if *end.error() != 0 => {
                        return Err(kernel(what, *end.error(), end.ext_ack()));
                    }
                    NlPayload::Ack(_) if dump => (),
                    NlPayload::Ack(_) | NlPayload::Empty | NlPayload::DumpExtAck(_) => {
                        return Ok((!interrupted).then_some(messages));
                    }
                }
            }
        }
    }

    /// Asks for the events of a group from now on; `None` if the family has no such group.
    ///
    /// A thread reads them, so that whoever receives can wait as long as it likes. It ends when the
    /// receiver is gone and one more event comes.
    pub fn listen<C, A>(
        self,
        family: &Family,
        group: &str,
    ) -> Result<Option<Receiver<Events<C, A>>>>
    where
        C: Cmd + Copy + Debug + Size + TypeSize + FromBytes + Send + 'static,
        A: NlAttrType + Copy + Debug + Size + TypeSize + FromBytes + Send + 'static,
    {
        let Some(&id) = family.groups.get(group) else {
            return Ok(None);
        };
        let fail = |error| socket_error("events", error);
        // A burst of changes must not overflow it.
        let _ = self.socket.set_recv_buffer_size(4 << 20);
        let groups = Groups::new_groups(&[id]);
        self.socket.add_mcast_membership(groups).map_err(fail)?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || loop {
            let events = self.events();
            let last = events.is_err();
            if sender.send(events).is_err() || last {
                return;
            }
        });
        Ok(Some(receiver))
    }

    /// Waits for events. `None` if some were lost because they came faster than they were read.
    fn events<C, A>(&self) -> Events<C, A>
    where
        C: Cmd + Copy + Debug + Size + TypeSize + FromBytes,
        A: NlAttrType + Copy + Debug + Size + TypeSize + FromBytes,
    {
        let fail = |error| socket_error("events", error);
        let received = self.socket.recv::<u16, Genlmsghdr<C, A>>();
        let (received, _) = match received {
            Err(SocketError::Io(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                return Ok(None);
            }
            received => received.map_err(fail)?,
        };
        let mut events = Vec::new();
        for message in received {
            if let NlPayload::Payload(payload) = message.map_err(fail)?.nl_payload() {
                events.push(payload.clone());
            }
        }
        Ok(Some(events))
    }
}

fn kernel(what: &str, code: i32, ext_ack: &GenlBuffer<NlmsgerrAttr, Buffer>) -> Error {
    let errno = code.wrapping_neg();
    if errno == libc::EPERM || errno == libc::EACCES {
        return Error::NotPermitted;
    }
    Error::Kernel {
        what: what.to_owned(),
        errno,
        why: string(&ext_ack.get_attr_handle(), NlmsgerrAttr::Msg),
    }
}

fn socket_error(what: &str, error: SocketError) -> Error {
    match error {
        SocketError::Io(error) => match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Error::NotPermitted,
            Some(errno) => Error::Kernel {
                what: what.to_owned(),
                errno,
                why: None,
            },
            None => Error::Io(what.to_owned(), io::Error::from(error.kind())),
        },
        other => answer(other),
    }
}
