// SPDX-License-Identifier: GPL-2.0

//! What can go wrong, in one sentence each, and the exit status it ends with.

use crate::{server::Server, service::Service};
use std::io;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),

    /// The kernel has no IPVS, and none could be loaded.
    #[error("IPVS is not there: load the module ip_vs (modprobe ip_vs)")]
    NoIpvs,

    /// IPVS is there, `ip_vs_mhs` is not.
    #[error("the scheduler mhs is not there: load the module ip_vs_mhs (modprobe ip_vs_mhs)")]
    NoModule,

    /// Not allowed.
    #[error(
        "not permitted: this needs CAP_NET_ADMIN (run it as root, in the right network namespace)"
    )]
    NotPermitted,

    /// What needs the key of a table cannot be computed.
    #[error(
        "not permitted: this needs the hash key, which the kernel shows to root alone (run it as root, \
         not in a user namespace)"
    )]
    HiddenKey,

    /// The module is there, but does not understand what was asked.
    #[error("the loaded module ip_vs_mhs is too old for this: {0}; load a newer one")]
    OldModule(&'static str),

    /// There is no such service.
    #[error("no service {0}")]
    NoService(Service),

    /// There is no service that the name can mean.
    #[error("no service of scheduler mhs has the name {0}")]
    NoServiceNamed(String),

    /// There is such a service, but another scheduler has it.
    #[error("service {0} is scheduled by {1}, not by mhs")]
    NotMhs(Service, String),

    /// The service has no such server.
    #[error("service {0} has no server {1}")]
    NoServer(Service, Server),

    /// No service has a server that the name can mean.
    #[error("no service has the server {0}")]
    NoServerNamed(String),

    /// No such scheduler.
    #[error("no scheduler {0}: the kernel has no module for it")]
    NoScheduler(String),

    /// No such persistence engine.
    #[error("no persistence engine {0}: the kernel has no module for it")]
    NoEngine(String),

    /// What was to be added is there already.
    #[error("{0} is there already")]
    Exists(String),

    /// What was waited for did not happen.
    #[error("{0}")]
    TimedOut(String),

    /// The kernel said no.
    #[error("{what}: {}{}", os(*.errno), .why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default())]
    Kernel {
        /// What was asked for.
        what: String,
        /// Its answer.
        errno: i32,
        /// Its explanation.
        why: Option<String>,
    },

    /// The tables changed again and again while they were read.
    #[error("the kernel's answer changed while it was read, {0} times in a row")]
    Unsteady(u32),

    /// The kernel's answer is not what the specification says.
    #[error("the kernel's answer cannot be understood: {0}")]
    Answer(String),

    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
}

/// The words of the C library for an error, without Rust's number behind them.
fn os(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    let words = text.split(" (os error").next();
    words.unwrap_or(&text).to_owned()
}

impl Error {
    /// The exit status. They are documented in `Documentation/ipvsadm-mhs.rst` and in `--help`; a
    /// number once given keeps its meaning.
    pub fn status(&self) -> u8 {
        match self {
            Self::Kernel { .. } | Self::Unsteady(_) | Self::Answer(_) | Self::Io(..) => 1,
            Self::Usage(_) => 2,
            Self::NoIpvs | Self::NoModule => 3,
            Self::NotPermitted | Self::HiddenKey => 4,
            Self::OldModule(_) => 5,
            Self::NoService(_)
            | Self::NoServiceNamed(_)
            | Self::NotMhs(..)
            | Self::NoServer(..)
            | Self::NoServerNamed(_)
            | Self::NoScheduler(_)
            | Self::NoEngine(_) => 6,
            Self::Exists(_) => 7,
            Self::TimedOut(_) => 8,
        }
    }

    /// An error of the operating system, while doing `what`.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        |error| Self::Io(what.into(), error)
    }

    /// The error number of the kernel, if that is where it comes from.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}
