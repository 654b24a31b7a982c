// SPDX-License-Identifier: GPL-2.0

//! `generate`: man pages and shell completions, for `make tool`.

use crate::{
    cli::{Cli, Generate},
    error::{Error, Result},
};
use clap::CommandFactory;
use clap_complete::Shell;
use std::fs;

pub fn run(generate: &Generate) -> Result<()> {
    let (man, completions) = (
        generate.directory.join("man"),
        generate.directory.join("completions"),
    );
    for directory in [&man, &completions] {
        let shown = directory.display().to_string();
        fs::create_dir_all(directory).map_err(Error::io(shown))?;
    }
    let failed = |error| Error::Io(man.display().to_string(), error);
    clap_mangen::generate_to(Cli::command(), &man).map_err(failed)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut command = Cli::command();
        let written = clap_complete::generate_to(shell, &mut command, "ipvsadm-mhs", &completions);
        written.map_err(Error::io(completions.display().to_string()))?;
    }
    Ok(())
}
