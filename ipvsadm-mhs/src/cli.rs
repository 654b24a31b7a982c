// SPDX-License-Identifier: GPL-2.0

//! The command line. What `ipvsadm` has a word or a letter for is called so here too.

use crate::{
    error::{Error, Result},
    service::{self, Family, Protocol, Service},
};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use std::path::PathBuf;

const EXIT_STATUS: &str = "\
Exit status:
  0  done
  1  the kernel refused, or something else went wrong
  2  the command line makes no sense
  3  the module ip_vs_mhs, or ip_vs, is not loaded
  4  not permitted: CAP_NET_ADMIN is needed
  5  the loaded module is too old for what was asked
  6  no such service, server, scheduler or persistence engine
  7  it is there already
  8  the time given with --timeout is over";

const SERVICE_FORMS: &str = "\
A SERVICE is named with -t, -u, --sctp-service or -f as in ipvsadm, or without a flag as
192.0.2.1:80, [2001:db8::1]:80, tcp:192.0.2.1:http, udp:..., sctp:..., fwmark:7 or fwmark6:7.";

/// The longest that a client may persist, in seconds, as in `ipvsadm`: 31 days. IPVS does not check it,
/// and wraps around.
const PERSISTENCE_MAX: u32 = 31 * 24 * 60 * 60;

/// See inside the stateless IPVS scheduler mhs, and steer it
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_STATUS, max_term_width = 100, infer_subcommands = false)]
pub struct Cli {
    /// Print JSON
    #[arg(short, long, global = true)]
    pub json: bool,

    /// Numbers only: always so, for the sake of ipvsadm's users
    #[arg(short, long, global = true, hide = true)]
    pub numeric: bool,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the services that mhs schedules
    #[command(visible_alias = "ls")]
    List,

    /// Show a service: its servers, their slots and state, what was counted
    #[command(after_help = SERVICE_FORMS)]
    Show(Show),

    /// Show the slots of a service: the old and the new server of each
    #[command(after_help = SERVICE_FORMS)]
    Slots(Slots),

    /// Print what happens from now on: changes, merges, states, failures
    Events(Events),

    /// Watch all services in the terminal
    ///
    /// A bar of stable and unstable slots for each, the time to its next merge, packets a second
    /// without and by an entry; the servers of one, and what happened. Keys: q ends, up and down (or
    /// k and j) choose a service, PgUp and PgDn show more servers, space stops the picture.
    Top(Top),

    /// Print everything that is counted, in the OpenMetrics format
    Metrics,

    #[command(flatten)]
    Change(Change),

    /// Give a service to another scheduler without breaking a connection
    ///
    /// Has every flow pinned by an entry (flag-3), waits a session timeout, so that every live flow
    /// has been seen, and then changes the scheduler.
    #[command(after_help = SERVICE_FORMS)]
    Handover(Handover),

    /// Show express mode, or switch it on or off in this network namespace
    ///
    /// With it, packets of stateless flows leave before they are routed and tracked: most of netfilter
    /// does not see them. At first it is as the module option express says.
    Express(Express),

    /// Say what a change would do, without doing it
    ///
    /// Slots that would move, the share of live flows that would get an entry, and the balance
    /// before and after: computed by the code that the kernel runs.
    Plan(Plan),

    /// Try a fleet and its churn over time
    ///
    /// Entries, unstable slots and broken connections of mhs, of a stateful Maglev and of a plain
    /// hash, under the same flows and the same changes.
    Simulate(Simulate),

    /// Write man pages and shell completions to a directory
    #[command(hide = true)]
    Generate(Generate),
}

/// What changes the configuration, and can be planned.
#[derive(Debug, Subcommand)]
pub enum Change {
    /// Add a service, or with -r a server to a service
    Add(Set),

    /// Edit a service, or with -r a server; what is not said stays as it is
    Edit(Set),

    /// Delete a service, or with -r a server
    Delete(Delete),

    /// Take a server out of service: weight 0, its connections live on
    Drain(Drain),

    /// Put a new server in the place of an old one, which is drained
    Replace(Replace),
}

/// A service as `ipvsadm` names it.
#[derive(Debug, Args)]
pub struct ServiceFlags {
    /// TCP service, ADDRESS:PORT
    #[arg(short = 't', long, value_name = "SERVICE", group = "service", value_hint = ValueHint::Hostname)]
    tcp_service: Option<String>,

    /// UDP service, ADDRESS:PORT
    #[arg(short = 'u', long, value_name = "SERVICE", group = "service", value_hint = ValueHint::Hostname)]
    udp_service: Option<String>,

    /// SCTP service, ADDRESS:PORT
    #[arg(long, value_name = "SERVICE", group = "service", value_hint = ValueHint::Hostname)]
    sctp_service: Option<String>,

    /// Service of a firewall mark
    #[arg(short = 'f', long, value_name = "MARK", group = "service")]
    fwmark_service: Option<String>,

    /// The mark is of IPv6 packets
    #[arg(short = '6', long)]
    ipv6: bool,
}

impl ServiceFlags {
    /// The service, if one was named.
    pub fn get(&self) -> Result<Option<Service>> {
        if self.ipv6 && self.fwmark_service.is_none() {
            return Err(Error::Usage("-6 goes with -f only".into()));
        }
        let flags = [
            (&self.tcp_service, Protocol::Tcp),
            (&self.udp_service, Protocol::Udp),
            (&self.sctp_service, Protocol::Sctp),
        ];
        for (text, protocol) in flags {
            if let Some(text) = text {
                let service = Service::with_protocol(protocol, text);
                return service.map(Some).map_err(Error::Usage);
            }
        }
        let family = match self.ipv6 {
            true => Family::Inet6,
            false => Family::Inet,
        };
        let mark = self.fwmark_service.as_ref();
        let service = mark.map(|text| Service::with_mark(text, family));
        service.transpose().map_err(Error::Usage)
    }

    /// The service that must be named.
    pub fn required(&self) -> Result<Service> {
        let none = || Error::Usage("name a service: -t, -u, --sctp-service or -f".into());
        self.get()?.ok_or_else(none)
    }
}

/// A service, with or without a flag.
#[derive(Debug, Args)]
pub struct ServiceName {
    #[command(flatten)]
    flags: ServiceFlags,

    /// The service
    #[arg(value_name = "SERVICE", conflicts_with = "service")]
    name: Option<String>,
}

impl ServiceName {
    pub fn get(&self) -> Result<service::Name> {
        if let Some(service) = self.flags.get()? {
            return Ok(service::Name::Exact(service));
        }
        let none = || Error::Usage("name a service, for example 192.0.2.1:80".into());
        let name = self.name.as_ref().ok_or_else(none)?;
        service::Name::parse(name).map_err(Error::Usage)
    }
}

#[derive(Debug, Args)]
pub struct Show {
    #[command(flatten)]
    pub service: ServiceName,
}

#[derive(Debug, Args)]
pub struct Slots {
    #[command(flatten)]
    pub service: ServiceName,

    /// Only those whose old and new server differ
    #[arg(long)]
    pub unstable: bool,
}

#[derive(Debug, Args)]
pub struct Events {
    /// End after so many
    #[arg(short, long, value_name = "N")]
    pub count: Option<u64>,

    /// End after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<u32>,
}

#[derive(Debug, Args)]
pub struct Top {
    /// Seconds between two looks
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub delay: f64,
}

/// A time that can be added to any other.
fn seconds(text: &str) -> std::result::Result<u32, String> {
    let range = |_| format!("must be 0 to {}", u32::MAX);
    text.parse().map_err(range)
}

fn persistence(text: &str) -> std::result::Result<u32, String> {
    match text.parse() {
        Ok(seconds) if seconds <= PERSISTENCE_MAX => Ok(seconds),
        _ => Err(format!("must be 0 to {PERSISTENCE_MAX} (31 days)")),
    }
}

fn interval(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be 0.1 to 3600".into()),
    }
}

#[derive(Debug, Args)]
pub struct Set {
    #[command(flatten)]
    pub service: ServiceFlags,

    /// The server, ADDRESS[:PORT]
    #[arg(short = 'r', long, value_name = "SERVER", value_hint = ValueHint::Hostname)]
    pub real_server: Option<String>,

    #[command(flatten, next_help_heading = "Of a service")]
    pub of_service: OfService,

    #[command(flatten, next_help_heading = "Of a server")]
    pub of_server: OfServer,
}

/// Options of a service.
#[derive(Debug, Default, Args)]
#[group(id = "of_service", multiple = true, conflicts_with = "real_server")]
pub struct OfService {
    /// The scheduler; for a new service that of ip_vs_mhs
    #[arg(short = 's', long, value_name = "NAME")]
    pub scheduler: Option<String>,

    /// Flags of the scheduler: mh-port, mh-fallback, flag-1, flag-2, flag-3, sh-port, sh-fallback;
    /// none takes them away
    #[arg(short = 'b', long, value_name = "FLAGS", value_delimiter = ',')]
    pub sched_flags: Option<Vec<String>>,

    /// Persistent: a client keeps its server for so many seconds (360), 31 days at most; 0 takes it
    /// away
    #[arg(short = 'p', long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "360",
        value_parser = persistence)]
    pub persistent: Option<u32>,

    /// Clients that persist together: a mask, for IPv6 the length of a prefix
    #[arg(short = 'M', long, value_name = "MASK")]
    pub netmask: Option<String>,

    /// Persistence engine, for example sip
    #[arg(long, value_name = "ENGINE")]
    pub pe: Option<String>,

    /// Schedule each UDP packet by itself
    #[arg(short = 'o', long)]
    pub ops: bool,

    /// Not any more
    #[arg(long, conflicts_with = "ops")]
    pub no_ops: bool,
}

/// Options of a server.
#[derive(Debug, Default, Args)]
#[group(id = "of_server", multiple = true, requires = "real_server")]
pub struct OfServer {
    /// Direct routing (default)
    #[arg(short = 'g', long, group = "method")]
    pub gatewaying: bool,

    /// Tunnel
    #[arg(short = 'i', long, group = "method")]
    pub ipip: bool,

    /// Masquerading (NAT)
    #[arg(short = 'm', long, group = "method")]
    pub masquerading: bool,

    /// Weight (default 1)
    #[arg(short = 'w', long, value_name = "WEIGHT", value_parser = clap::value_parser!(u32).range(0..=65535))]
    pub weight: Option<u32>,

    /// Upper threshold of entries: above, no new connections
    #[arg(short = 'x', long, value_name = "N")]
    pub u_threshold: Option<u32>,

    /// Lower threshold of entries: below, new connections again
    #[arg(short = 'y', long, value_name = "N")]
    pub l_threshold: Option<u32>,

    /// Header of the tunnel: ipip, gue or gre
    #[arg(long, value_name = "TYPE", value_parser = ["ipip", "gue", "gre"])]
    pub tun_type: Option<String>,

    /// UDP port of gue
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub tun_port: Option<u16>,

    /// No checksum in the tunnel
    #[arg(long, group = "checksum")]
    pub tun_nocsum: bool,

    /// Checksum in the tunnel
    #[arg(long, group = "checksum")]
    pub tun_csum: bool,

    /// Remote checksum in the tunnel
    #[arg(long, group = "checksum")]
    pub tun_remcsum: bool,
}

#[derive(Debug, Args)]
pub struct Delete {
    #[command(flatten)]
    pub service: ServiceFlags,

    /// The server, ADDRESS[:PORT]
    #[arg(short = 'r', long, value_name = "SERVER", value_hint = ValueHint::Hostname)]
    pub real_server: Option<String>,
}

/// How long to wait.
#[derive(Debug, Args)]
pub struct Wait {
    /// Wait until it has no flow left: no slot of the old table, and no entry
    #[arg(long)]
    pub wait: bool,

    /// Wait so many seconds at most
    #[arg(long, value_name = "SECONDS", requires = "wait", value_parser = seconds)]
    pub timeout: Option<u32>,
}

#[derive(Debug, Args)]
pub struct Drain {
    /// The server, ADDRESS[:PORT]; without a port whatever port it has
    #[arg(value_hint = ValueHint::Hostname)]
    pub server: String,

    /// Only of this service; else of all
    #[command(flatten)]
    pub service: ServiceFlags,

    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
pub struct Replace {
    /// The server that goes, ADDRESS[:PORT]
    #[arg(value_hint = ValueHint::Hostname)]
    pub old: String,

    /// The server that comes; it gets the options of the old one
    #[arg(value_hint = ValueHint::Hostname)]
    pub new: String,

    /// Only of this service; else of all
    #[command(flatten)]
    pub service: ServiceFlags,

    #[command(flatten)]
    pub wait: Wait,

    /// Then delete the old one
    #[arg(long, requires = "wait")]
    pub delete: bool,
}

#[derive(Debug, Args)]
pub struct Express {
    /// What it is to be
    pub switch: Option<Switch>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

#[derive(Debug, Args)]
pub struct Handover {
    #[command(flatten)]
    flags: ServiceFlags,

    /// The service, and the scheduler to come (default mh)
    #[arg(value_name = "SERVICE] [SCHEDULER", num_args = 0..=2)]
    names: Vec<String>,
}

impl Handover {
    /// The service and the scheduler to come.
    pub fn get(&self) -> Result<(service::Name, String)> {
        let usage = |text: &str| Error::Usage(text.into());
        let mut names = self.names.iter();
        let name = match self.flags.get()? {
            Some(service) => service::Name::Exact(service),
            None => {
                let none = || usage("name a service, for example 192.0.2.1:80");
                service::Name::parse(names.next().ok_or_else(none)?).map_err(Error::Usage)?
            }
        };
        let scheduler = names.next().map_or("mh", |name| name);
        match names.next() {
            None => Ok((name, scheduler.to_owned())),
            Some(_) => Err(usage("the service is named twice")),
        }
    }
}

#[derive(Debug, Args)]
pub struct Plan {
    /// Print the server of each slot, too
    #[arg(long)]
    pub table: bool,

    #[command(subcommand)]
    pub change: Change,
}

#[derive(Debug, Clone, Args)]
pub struct Simulate {
    /// Servers of the fleet
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub servers: u32,

    /// Their weights, over and over
    #[arg(long, value_name = "WEIGHTS", default_value = "1", value_delimiter = ',',
        value_parser = clap::value_parser!(u32).range(1..=65535))]
    pub weights: Vec<u32>,

    /// Changes of the fleet in a minute: by turns a server goes and one that went comes back. With
    /// --downtime, servers that go in a minute
    #[arg(long, value_name = "N", default_value = "2", value_parser = nonnegative)]
    pub updates: f64,

    /// How a server goes: drain (weight 0), delete, or fail: it dies with its flows, which are not
    /// counted as broken, and is deleted
    #[arg(long, value_name = "HOW", default_value = "drain", value_parser = ["drain", "delete", "fail"])]
    pub removal: String,

    /// As with net.ipv4.vs.expire_nodest_conn=1: the entries of a server that fails go with it, and
    /// its slots are merged
    #[arg(long)]
    pub expire_nodest_conn: bool,

    /// How long a server stays away, in seconds: a distribution as of --session
    #[arg(long, value_name = "DISTRIBUTION")]
    pub downtime: Option<String>,

    /// New connections in a second
    #[arg(long, value_name = "N", default_value = "500", value_parser = positive)]
    pub rate: f64,

    /// How long sessions last, in seconds: fixed:60, exp:60 (mean), pareto:1.5,10 (shape, least),
    /// lognormal:30,1.5 (median, sigma) or steps:0.9=10,1=60 (90 % of them 10, the others 60)
    #[arg(long, value_name = "DISTRIBUTION", default_value = "exp:60")]
    pub session: String,

    /// Seconds between two packets of a session, at least
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = positive)]
    pub gap: f64,

    /// Packets of a session, if it has not always one when --gap is over: a distribution as of
    /// --session. They are spread evenly
    #[arg(long, value_name = "DISTRIBUTION")]
    pub packets: Option<String>,

    /// Session timeout of IPVS, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "900", value_parser = positive)]
    pub timeout: f64,

    /// How long an entry stays after its session ended, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = nonnegative)]
    pub linger: f64,

    /// Have a stateful balancer, too, whose table has only so many entries
    #[arg(long, value_name = "ENTRIES", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,

    /// Slots of a table
    #[arg(long, value_name = "SLOTS", default_value = "16381", value_parser = table_size)]
    pub table_size: u32,

    /// Percent that a server may get above its share
    #[arg(long, value_name = "PERCENT", default_value = "5", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub balance: u32,

    /// How long, in minutes
    #[arg(long, value_name = "MINUTES", default_value = "60", value_parser = positive)]
    pub duration: f64,

    /// Another seed makes other flows and changes
    #[arg(long, value_name = "N", default_value = "1")]
    pub seed: u64,

    /// Draw what happened over time into this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub svg: Option<PathBuf>,

    /// Write the flows and changes into this file, as JSON, for others to do the same with packets:
    /// of each flow start, end and time between packets, in milliseconds, the address of a client
    /// that is in its slot, and what mhs makes of it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub plan: Option<PathBuf>,
}

fn number(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number <= 1e9 => Ok(number),
        _ => Err("must be a number up to 1000000000".into()),
    }
}

fn positive(text: &str) -> std::result::Result<f64, String> {
    match number(text)? {
        number if number > 0.0 => Ok(number),
        _ => Err("must be more than 0".into()),
    }
}

fn nonnegative(text: &str) -> std::result::Result<f64, String> {
    match number(text)? {
        number if number >= 0.0 => Ok(number),
        _ => Err("must be 0 or more".into()),
    }
}

fn table_size(text: &str) -> std::result::Result<u32, String> {
    let sizes = mhs_core::maglev::SIZES;
    match text.parse() {
        Ok(size) if sizes.contains(&size) => Ok(size),
        _ => Err(format!("must be one of {sizes:?}")),
    }
}

#[derive(Debug, Args)]
pub struct Generate {
    /// Where to
    #[arg(value_hint = ValueHint::DirPath)]
    pub directory: PathBuf,
}

/// Whoever forgets `action` for a flag finds out here, before any user does.
#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn clap_is_content() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_service_is_named_once() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("x show -t 192.0.2.1:80").is_ok());
        assert!(parse("x show 192.0.2.1:80").is_ok());
        assert!(parse("x show -t 192.0.2.1:80 -u 192.0.2.1:80").is_err());
        assert!(parse("x show -t 192.0.2.1:80 192.0.2.1:80").is_err());
        let named = |line: &str| match parse(line).unwrap().command {
            Command::Show(show) => show.service.get().map(|name| name.to_string()),
            _ => unreachable!(),
        };
        assert_eq!(named("x show -f 7 -6").unwrap(), "FWM 7 IPv6");
        assert!(named("x show -6 192.0.2.1:80").is_err());
        assert!(named("x show -6 -t 192.0.2.1:80").is_err());
    }

    #[test]
    fn options_go_with_what_they_are_of() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("x add -t 192.0.2.1:80 -s mhs -b mh-port,flag-3").is_ok());
        assert!(parse("x add -t 192.0.2.1:80 -p").is_ok());
        assert!(parse("x add -t 192.0.2.1:80 -p 60 -M 255.255.255.0").is_ok());
        assert!(parse("x add -t 192.0.2.1:80 -r 192.0.2.11:80 -g -w 3 -x 10 -y 5").is_ok());
        assert!(
            parse("x add -t 192.0.2.1:80 -r 192.0.2.11:80 -i --tun-type gue --tun-port 6080")
                .is_ok()
        );
        assert!(parse("x add -t 192.0.2.1:80 -w 3").is_err());
        assert!(parse("x add -t 192.0.2.1:80 -r 192.0.2.11:80 -s mhs").is_err());
        assert!(parse("x add -t 192.0.2.1:80 -r 192.0.2.11:80 -g -m").is_err());
        assert!(parse("x add -t 192.0.2.1:80 -r 192.0.2.11:80 -w -1").is_err());
        assert!(parse("x add -t 192.0.2.1:80 -r 192.0.2.11:80 -w 65536").is_err());
    }

    #[test]
    fn no_time_is_too_long_to_be_added_up() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        for line in ["x events --timeout", "x drain 192.0.2.11 --wait --timeout"] {
            assert!(parse(&format!("{line} {}", u32::MAX)).is_ok());
            let error = parse(&format!("{line} {}", u64::MAX))
                .unwrap_err()
                .to_string();
            assert!(error.contains("must be 0 to 4294967295"), "{error}");
        }
        let persistent = |seconds| format!("x add -t 192.0.2.1:80 -p {seconds}");
        for seconds in [0, 1, 2_678_400] {
            assert!(parse(&persistent(seconds)).is_ok());
        }
        let error = parse(&persistent(2_678_401)).unwrap_err().to_string();
        assert!(error.contains("must be 0 to 2678400"), "{error}");
    }

    #[test]
    fn handover_takes_both_forms() {
        let parse = |line: &str| match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Handover(handover) => handover.get().map(|(s, to)| format!("{s} to {to}")),
            _ => unreachable!(),
        };
        assert_eq!(
            parse("x handover 192.0.2.1:80").unwrap(),
            "192.0.2.1:80 to mh"
        );
        assert_eq!(
            parse("x handover -t 192.0.2.1:80 rr").unwrap(),
            "TCP 192.0.2.1:80 to rr"
        );
        assert_eq!(
            parse("x handover tcp:192.0.2.1:80 rr").unwrap(),
            "TCP 192.0.2.1:80 to rr"
        );
        assert!(parse("x handover -t 192.0.2.1:80 a b").is_err());
        assert!(parse("x handover").is_err());
    }
}
