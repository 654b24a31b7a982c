// SPDX-License-Identifier: GPL-2.0

//! The load options, checked.

use crate::{
    ipvs::params::Params,
    pure::{
        hash::Key,
        maglev, //
    },
};
use kernel::prelude::*;

/// What services are made with.
#[derive(Clone, Copy)]
pub(crate) struct Config {
    /// Slots of a service.
    pub(crate) size: u32,
    /// The key of all hashes.
    pub(crate) key: Key,
    /// Percent above its share that a server may get.
    pub(crate) balance: u32,
    /// Whether packets may be forwarded before they are routed.
    pub(crate) express: bool,
}

impl Config {
    /// Checks the options; what is wrong is logged.
    pub(crate) fn new(params: &Params) -> Result<Self> {
        let size = params.table_size;
        if !maglev::SIZES.contains(&size) {
            pr_err!("table_size={}: must be one of {:?}\n", size, maglev::SIZES);
            return Err(EINVAL);
        }
        let balance = params.balance;
        if balance > 100 {
            pr_err!("balance={}: must be 0 to 100 (percent)\n", balance);
            return Err(EINVAL);
        }
        let digits = params.hash_key.to_bytes();
        let Some(key) = Key::from_hex(digits) else {
            pr_err!(
                "hash_key has {} characters or other than 0-9, a-f: must be 32 hex digits\n",
                digits.len()
            );
            return Err(EINVAL);
        };
        Ok(Self {
            size,
            key,
            balance,
            express: params.express,
        })
    }
}

/// Checks the name of the scheduler, as IPVS and its tools store it.
pub(crate) fn name(params: &Params) -> Result<&'static CStr> {
    let name = params.sched_name.to_bytes();
    let sound = |c: &u8| c.is_ascii_alphanumeric() || b"-_".contains(c);
    if !(1..=15).contains(&name.len()) || !name.iter().all(sound) {
        pr_err!("sched_name: must be 1 to 15 letters, digits, - or _\n");
        return Err(EINVAL);
    }
    Ok(params.sched_name)
}
