// SPDX-License-Identifier: GPL-2.0

//! The loaded module and its options, as `/sys/module/ip_vs_mhs` shows them.

use crate::error::{Error, Result};
use mhs_core::{hash, maglev};
use std::{fs, path::Path, process::Command};

const SYS: &str = "/sys/module/ip_vs_mhs";

/// What tables are made with.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Slots.
    pub size: u32,
    pub key: hash::Key,
    /// Percent above its share that a server may get.
    pub balance: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            size: maglev::DEFAULT_SIZE,
            key: hash::DEFAULT_KEY,
            balance: maglev::DEFAULT_BALANCE,
        }
    }
}

/// The options of a table as the kernel shows them.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Slots.
    pub size: u32,
    /// Shown only to who has `CAP_NET_ADMIN` in the initial user namespace: it tells which sources
    /// meet in a slot.
    pub key: Option<hash::Key>,
    /// Percent above its share that a server may get.
    pub balance: u32,
}

impl Options {
    /// All that a table is made with; an error if the key is not shown.
    pub fn config(&self) -> Result<Config> {
        Ok(Config {
            size: self.size,
            key: self.key.ok_or(Error::HiddenKey)?,
            balance: self.balance,
        })
    }
}

impl From<Config> for Options {
    fn from(config: Config) -> Self {
        Self {
            size: config.size,
            key: Some(config.key),
            balance: config.balance,
        }
    }
}

/// Whether the module is loaded.
pub fn is_loaded() -> bool {
    Path::new(SYS).exists()
}

fn option(name: &str) -> Option<String> {
    let value = fs::read_to_string(format!("{SYS}/parameters/{name}")).ok()?;
    Some(value.trim().to_owned())
}

/// The options of the loaded module; the defaults if it is not loaded.
pub fn options() -> Options {
    let default = Config::default();
    if !is_loaded() {
        return default.into();
    }
    let number = |name| option(name).and_then(|text| text.parse().ok());
    Options {
        size: number("table_size").unwrap_or(default.size),
        // Only root of the initial user namespace can read it. Another key would make another table.
        key: option("hash_key").and_then(|digits| hash::Key::from_hex(digits.as_bytes())),
        balance: number("balance").unwrap_or(default.balance),
    }
}

/// The name under which it is registered as a scheduler: `mhs`, or what `sched_name` said.
pub fn scheduler() -> String {
    option("sched_name").unwrap_or_else(|| "mhs".into())
}

/// Whether the kernel has a scheduler of that name, or a module for it. In doubt it has.
pub fn has_scheduler(name: &str) -> bool {
    has_module(&format!("ip_vs_{name}"))
}

/// Whether the kernel has a persistence engine of that name, or a module for it. In doubt it has.
pub fn has_engine(name: &str) -> bool {
    has_module(&format!("ip_vs_pe_{name}"))
}

fn has_module(module: &str) -> bool {
    if Path::new("/sys/module").join(module).exists() {
        return true;
    }
    let found = Command::new("modprobe").args(["-q", "-n", module]).status();
    found.map_or(true, |status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_table_without_the_key() {
        let shown = Options::from(Config::default());
        assert!(shown.config().is_ok());
        let hidden = Options { key: None, ..shown };
        let error = hidden.config().map(|_| ()).unwrap_err();
        assert_eq!(error.status(), 4);
        assert!(error.to_string().contains("hash key"));
    }
}
