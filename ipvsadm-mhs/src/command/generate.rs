// SPDX-License-Identifier: GPL-2.0

//! `generate`: man pages and shell completions, for `make tool`.

use crate::{
    cli::{Cli, Generate},
    error::{Error, Result},
};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::{fs, path::Path};

/// Of the manual: commands of the administrator, as `ipvsadm(8)`.
const SECTION: &str = "8";

pub fn run(generate: &Generate) -> Result<()> {
    let (man, completions) = (
        generate.directory.join("man"),
        generate.directory.join("completions"),
    );
    for directory in [&man, &completions] {
        let shown = directory.display().to_string();
        fs::create_dir_all(directory).map_err(Error::io(shown))?;
    }
    // A page a command, but `plan add` and its like are described by those of `add` and its like.
    let mut command = Cli::command();
    command.build();
    page(&command, &man)?;
    for sub in command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
    {
        page(sub, &man)?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut command = Cli::command();
        let written = clap_complete::generate_to(shell, &mut command, "ipvsadm-mhs", &completions);
        written.map_err(Error::io(completions.display().to_string()))?;
    }
    Ok(())
}

fn page(command: &Command, directory: &Path) -> Result<()> {
    let name = command
        .get_display_name()
        .unwrap_or("ipvsadm-mhs")
        .to_owned();
    let path = directory.join(format!("{name}.{SECTION}"));
    let shown = path.display().to_string();
    // Leaked, for clap keeps names as long as the program runs.
    let name: &'static str = name.leak();
    let mut text = Vec::new();
    Man::new(command.clone().name(name))
        .section(SECTION)
        .manual("IPVS")
        .render(&mut text)
        .and_then(|()| fs::write(&path, text))
        .map_err(Error::io(shown))
}
