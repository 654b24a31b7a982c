// SPDX-License-Identifier: GPL-2.0

//! `delete`: services and servers.

use crate::{
    cli::Delete,
    error::{Error, Result},
    ipvs::Ipvs,
    server::Server,
};

pub fn run(delete: &Delete) -> Result<()> {
    let service = delete.service.required()?;
    match &delete.real_server {
        None => Ipvs::connect()?.delete_service(&service),
        Some(text) => {
            let server = Server::parse(text, &service).map_err(Error::Usage)?;
            Ipvs::connect()?.delete_server(&service, &server)
        }
    }
}
