// SPDX-License-Identifier: GPL-2.0

//! The loaded module and its options, as `/sys/module/ip_vs_mhs` shows them.

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

/// Whether the module is loaded.
pub fn is_loaded() -> bool {
    Path::new(SYS).exists()
}

fn option(name: &str) -> Option<String> {
    let value = fs::read_to_string(format!("{SYS}/parameters/{name}")).ok()?;
    Some(value.trim().to_owned())
}

/// The options of the loaded module; the defaults if it is not loaded.
pub fn config() -> Config {
    let default = Config::default();
    let number = |name| option(name).and_then(|text| text.parse().ok());
    Config {
        size: number("table_size").unwrap_or(default.size),
        key: option("hash_key")
            .and_then(|digits| hash::Key::from_hex(digits.as_bytes()))
            .unwrap_or(default.key),
        balance: number("balance").unwrap_or(default.balance),
    }
}

/// The name under which it is registered as a scheduler: `mhs`, or what `sched_name` said.
pub fn scheduler() -> String {
    option("sched_name").unwrap_or_else(|| "mhs".into())
}

/// Whether the kernel has a scheduler of that name, or a module for it. In doubt it has.
pub fn has_scheduler(name: &str) -> bool {
    let module = format!("ip_vs_{name}");
    if Path::new("/sys/module").join(&module).exists() {
        return true;
    }
    let found = Command::new("modprobe")
        .args(["-q", "-n", &module])
        .status();
    found.map_or(true, |status| status.success())
}
