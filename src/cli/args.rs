//! The arguments of the command line. Help texts are part of the interface: each command has one line on what it does,
//! and examples of its use.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::check::CheckArgs;
use super::probe::ProbeArgs;
use crate::demo::DemoOptions;
use crate::model::Address;
use crate::telemetry::{LogFormat, LogOptions};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "roundsman",
    version,
    about = "A reverse proxy and load balancer that sends requests only to upstreams that its health checker has found healthy.",
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Examples:
  roundsman run --listen 127.0.0.1:8080 --to 127.0.0.1:3001,127.0.0.1:3002
  roundsman run roundsman.toml
  roundsman status

Exit status: 0 ok; 1 run-time failure; 2 usage, or no such pool or upstream; 78 bad configuration."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy until it is stopped
    #[command(after_help = "Examples:
  roundsman run roundsman.toml
  roundsman run --listen 0.0.0.0:8080 --to 10.0.0.1:8080,10.0.0.2:8080

Signals: HUP reloads the configuration. TERM, INT and QUIT let requests in flight finish, then stop; a second one, more than a
second later, stops at once. USR1 reopens log files; USR2 is ignored.")]
    Run(RunArgs),
    /// Check a configuration file: show every mistake, or what each pool does
    #[command(after_help = "Examples:
  roundsman check roundsman.toml
  roundsman check roundsman.toml --format json | jq -r '.[].message'

If the file is valid, it prints for each pool what is probed, how often, and how long a dead upstream can go unnoticed.
Exit status: 0 if the file is valid, 78 if not.")]
    Check(CheckArgs),
    /// Show pools and upstreams of the running process
    #[command(after_help = "Examples:
  roundsman status
  roundsman status api --watch
  roundsman status --unhealthy
  roundsman status --json | jq '.pools.api.upstreams[] | select(.eligible | not)'
  roundsman status --admin unix:/run/roundsman.sock

ERRORS counts requests that failed at the upstream: no connection, a broken connection, or a 5xx response. LATENCY is the mean
time to the head of its responses; before the first request, the duration of its last check.")]
    Status(StatusArgs),
    /// Show what happened to pools and upstreams: what became unhealthy, when and why
    #[command(after_help = "Examples:
  roundsman events
  roundsman events --follow
  roundsman events --pool api --since 10m
  roundsman events --json --follow | jq 'select(.kind == \"transition\")'")]
    Events(EventsArgs),
    /// Explain the state of a pool or an upstream: its last probes step by step, and what comes next
    #[command(after_help = "Examples:
  roundsman explain
  roundsman explain api
  roundsman explain api 10.0.0.1:8080
  roundsman explain api 10.0.0.1:8080 --json | jq '.checks[].steps'

Exit status: 0 ok, 1 if the process cannot be reached, 2 if there is no such pool or upstream.")]
    Explain(ExplainArgs),
    /// Run the checks of an upstream once, without a running process, and show them step by step
    #[command(after_help = "Examples:
  roundsman probe api 10.0.0.1:8080 --config roundsman.toml
  roundsman probe --url http://127.0.0.1:8080/healthz --expect-json '$.status=healthy'
  roundsman probe --url https://10.0.0.1/ready --ca-file ca.pem --header 'Authorization: Bearer x'
  roundsman probe --url http://10.0.0.1:8080/health --user monitor --password-file pw \\
      --expect-body-not-contains degraded --expect-json '$.lag<=10' --max-duration 800ms
  roundsman probe --url tcp://10.0.0.1:6379 --send 'PING\\r\\n' --expect +PONG --fail-on -NOAUTH
  roundsman probe --url tcp://10.0.0.1:5432 --preset postgresql

With --url it tries a check that is not in the configuration yet, and prints the lines to add. Secrets are never printed.
Exit status: 0 if it passes, 1 if it fails, 2 if there is no such pool or upstream, 78 for a bad configuration.")]
    Probe(ProbeArgs),
    /// Make the running process reload its configuration, and show the result
    #[command(after_help = "Examples:
  roundsman reload --dry-run && roundsman reload

A refused configuration changes nothing: every mistake is printed, and the exit status is 78.")]
    Reload(ReloadArgs),
    /// Send an upstream no new requests; those in flight finish
    #[command(after_help = "Examples:
  roundsman drain api 10.0.0.1:8080 --reason 'kernel upgrade'
  roundsman drain --all-pools 10.0.0.1:8080 --for 30m
  roundsman drain --all-pools 10.0.0.1:8080 --wait --timeout 2m && systemctl restart app

An order survives reloads and ends with the process. To make it permanent, set admin = \"draining\" in the file.
An order that would leave a pool without a serving upstream is refused, unless you give --force.
--wait waits for the requests of the pools that are ordered, tunnels (WebSocket) included.
Exit status: 0 ok, 1 if it is refused, the process cannot be reached, or requests are in flight after --timeout, 2 if there is
no such pool or upstream.")]
    Drain(DrainArgs),
    /// End a drain
    #[command(after_help = "Examples:
  roundsman undrain api 10.0.0.1:8080

Exit status: 0 ok, 1 if it is refused or the process cannot be reached, 2 if there is no such pool or upstream.")]
    Undrain(OrderArgs),
    /// Send an upstream no requests until it is enabled
    #[command(after_help = "Examples:
  roundsman disable api unix:/run/app.sock
  roundsman disable --all-pools 10.0.0.1:8080 --wait --timeout 2m && systemctl stop app

An order survives reloads and ends with the process. To make it permanent, set admin = \"disabled\" in the file.
An order that would leave the pool without a serving upstream is refused, unless you give --force.
--wait waits for the requests of the pools that are ordered, tunnels (WebSocket) included.
Exit status: 0 ok, 1 if it is refused, the process cannot be reached, or requests are in flight after --timeout, 2 if there is
no such pool or upstream.")]
    Disable(DisableArgs),
    /// Let an upstream take requests again, if its checks pass
    #[command(after_help = "Examples:
  roundsman enable api 10.0.0.1:8080

Exit status: 0 ok, 1 if it is refused or the process cannot be reached, 2 if there is no such pool or upstream.")]
    Enable(OrderArgs),
    /// Give an upstream another weight than the file does
    #[command(after_help = "Examples:
  roundsman weight api 10.0.0.1:8080 10
  roundsman weight api 10.0.0.1:8080 1 --for 1h --reason 'new version'

An order survives reloads and ends with the process. To make it permanent, set the weight in the file.
Exit status: 0 ok, 1 if the process cannot be reached, 2 if there is no such pool or upstream.")]
    Weight(WeightArgs),
    /// Print the JSON Schema of the configuration, for editors
    #[command(after_help = "Examples:
  roundsman schema > roundsman.schema.json")]
    Schema,
    /// Run a demo: three backends on the loopback, steady traffic, and a scripted series of failures
    #[command(after_help = "Examples:
  roundsman demo
  roundsman demo --script

On a terminal, keys: 1 2 3 kill or revive a backend, s slow, e errors, r reload, q quit.
Otherwise, and with --script, it runs the script, prints the figures, and fails if a request failed that should not have.")]
    Demo(DemoArgs),
}

/// A configuration file, as a plain argument or an option.
#[derive(Debug, Clone, Default, Args)]
pub struct FileArgs {
    /// The configuration file [default: roundsman.toml, else /etc/roundsman/roundsman.toml]
    #[arg(value_name = "FILE", conflicts_with = "config")]
    pub file: Option<PathBuf>,
    /// The same, as an option
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl FileArgs {
    /// The file; `None` if neither form was given.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_deref().or(self.config.as_deref())
    }
}

/// `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Which configuration.
    #[command(flatten)]
    pub file: FileArgs,
    /// Listen here, without a file: "ip:port", "[v6]:port" or "unix:/path"
    #[arg(
        long,
        value_name = "ADDR",
        value_parser = crate::config::listen_argument,
        conflicts_with_all = ["config", "file"],
        requires = "to"
    )]
    pub listen: Option<Address>,
    /// The upstreams, separated by commas
    #[arg(
        long,
        value_name = "ADDR,ADDR",
        value_delimiter = ',',
        value_parser = crate::config::upstream_argument,
        conflicts_with_all = ["config", "file"],
        requires = "listen"
    )]
    pub to: Vec<Address>,
    /// How it logs.
    #[command(flatten)]
    pub log: LogArgs,
}

/// How a process logs.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// How log lines look [default: human on a terminal, else json]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormatArg>,
    /// error, warn, info, debug, trace or off, or directives as in RUST_LOG [default: RUST_LOG, else info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormatArg {
    /// For people
    Human,
    /// One JSON object per line
    Json,
}

impl LogArgs {
    /// The same as options of `telemetry`.
    pub fn options(&self) -> LogOptions {
        let format = self.log_format.map(|format| match format {
            LogFormatArg::Human => LogFormat::Human,
            LogFormatArg::Json => LogFormat::Json,
        });
        LogOptions { format, level: self.log_level.clone() }
    }
}

/// How to find the running process.
#[derive(Debug, Clone, Args)]
pub struct ProcessArgs {
    /// Its admin address: "ip:port", "[v6]:port" or "unix:/path" [default: [admin] of the configuration file]
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<Address>,
    /// A file with its admin token
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The configuration file of that process [default: roundsman.toml, else /etc/roundsman/roundsman.toml]
    #[arg(long, short, value_name = "FILE", conflicts_with = "admin")]
    pub config: Option<PathBuf>,
}

/// The configuration file as a plain argument, for commands without another one.
#[derive(Debug, Args)]
pub struct PlainFileArgs {
    /// The configuration file of that process, as with --config
    #[arg(value_name = "FILE", conflicts_with_all = ["config", "admin"])]
    pub file: Option<PathBuf>,
    /// Which process.
    #[command(flatten)]
    process: ProcessArgs,
}

impl PlainFileArgs {
    /// How to find the process, whichever way its file was given.
    pub fn process(&self) -> ProcessArgs {
        let process = self.process.clone();
        ProcessArgs { config: process.config.or_else(|| self.file.clone()), ..process }
    }
}

/// `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Only this pool
    pub pool: Option<String>,
    /// Only pools and upstreams that are not healthy or take no requests
    #[arg(long, short)]
    pub unhealthy: bool,
    /// Repeat every second until interrupted
    #[arg(long, short)]
    pub watch: bool,
    /// Print the JSON of the admin API
    #[arg(long)]
    pub json: bool,
    /// Which process.
    #[command(flatten)]
    pub process: ProcessArgs,
}

/// `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
    /// Wait for new events until interrupted
    #[arg(long, short)]
    pub follow: bool,
    /// Only events of this pool
    #[arg(long, short, value_name = "POOL")]
    pub pool: Option<String>,
    /// Only events newer than this: 90s, 10m or 2h
    #[arg(long, short, value_name = "DURATION", value_parser = crate::model::written::duration_argument)]
    pub since: Option<Duration>,
    /// Only events with a number greater than this
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub after: u64,
    /// Which process.
    #[command(flatten)]
    pub process: PlainFileArgs,
}

/// `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The pool [default: the only one, else those in trouble]
    pub pool: Option<String>,
    /// The upstream: its address or host name [default: the whole pool]
    pub upstream: Option<String>,
    /// Print the JSON of the admin API
    #[arg(long)]
    pub json: bool,
    /// Which process.
    #[command(flatten)]
    pub process: ProcessArgs,
}

/// `reload`.
#[derive(Debug, Args)]
pub struct ReloadArgs {
    /// Only validate the file in the running process, without applying it
    #[arg(long)]
    pub dry_run: bool,
    /// Print the JSON of the admin API
    #[arg(long)]
    pub json: bool,
    /// Which process.
    #[command(flatten)]
    pub process: PlainFileArgs,
}

/// `drain`, `undrain`, `disable`, `enable`.
#[derive(Debug, Args)]
pub struct OrderArgs {
    /// The pool; with --all-pools leave it out
    pub pool: String,
    /// The upstream's address, as status shows it
    #[arg(required_unless_present = "all_pools")]
    pub upstream: Option<String>,
    /// In every pool that has the upstream: in all of them or in none
    #[arg(long)]
    pub all_pools: bool,
    /// Do it even if fewer than min_healthy upstreams, or none, would be left to serve
    #[arg(long)]
    pub force: bool,
    /// How long, and why.
    #[command(flatten)]
    pub terms: OrderTerms,
}

/// How long an order may last: 1s to 365d, as the API has it.
fn order_time(text: &str) -> Result<Duration, String> {
    let time = crate::model::written::duration_argument(text)?;
    let allowed = Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 3_600);
    if allowed.contains(&time) { Ok(time) } else { Err("it must be from 1s to 365d".to_owned()) }
}

/// What every order may have.
#[derive(Debug, Args)]
pub struct OrderTerms {
    /// End the order by itself after this time
    #[arg(long = "for", value_name = "DURATION", value_parser = order_time)]
    pub lasts: Option<Duration>,
    /// The reason, for the log and events
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
    /// Which process.
    #[command(flatten)]
    pub process: ProcessArgs,
}

impl OrderArgs {
    /// The pool, unless every pool is meant, and the upstream.
    ///
    /// # Errors
    /// There are too many arguments.
    pub fn place(&self) -> Result<(Option<&str>, &str), String> {
        match (self.all_pools, &self.upstream) {
            (false, Some(upstream)) => Ok((Some(&self.pool), upstream)),
            // The only argument.
            (true, None) => Ok((None, &self.pool)),
            (true, Some(_)) => Err("with --all-pools give the upstream alone, without a pool".to_owned()),
            (false, None) => Err("the upstream is missing".to_owned()),
        }
    }
}

/// `drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// The order.
    #[command(flatten)]
    pub order: OrderArgs,
    /// Wait until nothing is in flight there, and print what is
    #[arg(long)]
    pub wait: bool,
    /// How long sessions (`sticky`) may go on there, and how long to wait at most
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "5m",
        value_parser = crate::model::written::duration_argument
    )]
    pub timeout: Duration,
}

/// `disable`.
#[derive(Debug, Args)]
pub struct DisableArgs {
    /// The order.
    #[command(flatten)]
    pub order: OrderArgs,
    /// Wait until nothing is in flight there, and print what is
    #[arg(long)]
    pub wait: bool,
    /// How long to wait at most
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "5m",
        requires = "wait",
        value_parser = crate::model::written::duration_argument
    )]
    pub timeout: Duration,
}

/// `weight`.
#[derive(Debug, Args)]
pub struct WeightArgs {
    /// The pool
    pub pool: String,
    /// The upstream's address, as status shows it
    pub upstream: String,
    /// The weight, 1 to 1000
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub weight: u32,
    /// How long, and why.
    #[command(flatten)]
    pub terms: OrderTerms,
}

/// `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Run the script and exit, even on a terminal
    #[arg(long)]
    pub script: bool,
    /// Print the generated configuration first
    #[arg(long)]
    pub show_config: bool,
}

impl DemoArgs {
    /// The same as options of `demo`.
    pub fn options(&self) -> DemoOptions {
        DemoOptions { script: self.script, show_config: self.show_config }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Command, ErrorKind> {
        let words = std::iter::once("roundsman").chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.command).map_err(|error| error.kind())
    }

    #[test]
    fn the_command_line_is_consistent_and_every_command_has_a_help_text() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }

    #[test]
    fn run_takes_a_file_or_two_addresses_and_not_both() {
        let Ok(Command::Run(run)) = parse("run --listen 127.0.0.1:80 --to 10.0.0.1:80,10.0.0.2:80") else {
            panic!("it is good");
        };
        assert_eq!(
            (run.listen.map(|a| a.to_string()).as_deref(), run.to.len(), run.file.path()),
            (Some("127.0.0.1:80"), 2, None)
        );
        assert!(matches!(parse("run"), Ok(Command::Run(_))));
        assert_eq!(parse("run --listen 127.0.0.1:80").err(), Some(ErrorKind::MissingRequiredArgument));
        assert_eq!(parse("run --to 10.0.0.1:80").err(), Some(ErrorKind::MissingRequiredArgument));
        assert_eq!(parse("run --listen nonsense --to 10.0.0.1:80").err(), Some(ErrorKind::ValueValidation));
        let both = parse("run --config a.toml --listen 127.0.0.1:80 --to 10.0.0.1:80");
        assert_eq!(both.err(), Some(ErrorKind::ArgumentConflict));
    }

    #[test]
    fn a_file_is_given_once_as_an_argument_or_as_an_option() {
        fn file_of(command: Command) -> Option<PathBuf> {
            match command {
                Command::Run(args) => args.file.path().map(Path::to_path_buf),
                Command::Check(args) => args.file.path().map(Path::to_path_buf),
                Command::Reload(args) => args.process.process().config,
                Command::Events(args) => args.process.process().config,
                Command::Status(args) => args.process.config,
                Command::Explain(args) => args.process.config,
                Command::Drain(args) => args.order.terms.process.config,
                Command::Probe(args) => args.config,
                other => panic!("{other:?}"),
            }
        }
        let file = Some(PathBuf::from("a.toml"));
        for command in ["run", "check", "reload", "events"] {
            assert_eq!(parse(&format!("{command} a.toml")).map(file_of), Ok(file.clone()), "{command}");
            let both = parse(&format!("{command} a.toml -c b.toml"));
            assert_eq!(both.err(), Some(ErrorKind::ArgumentConflict), "{command}");
        }
        for command in ["run", "check", "reload", "events", "status", "explain", "drain api a", "probe api a"] {
            for option in ["-c", "--config"] {
                assert_eq!(parse(&format!("{command} {option} a.toml")).map(file_of), Ok(file.clone()), "{command}");
            }
        }
        for line in ["run a.toml --listen 127.0.0.1:80 --to 10.0.0.1:80", "reload a.toml --admin 127.0.0.1:1"] {
            assert_eq!(parse(line).err(), Some(ErrorKind::ArgumentConflict), "{line}");
        }
        assert!(
            matches!(parse("status api -wu"), Ok(Command::Status(s)) if s.pool.is_some() && s.watch && s.unhealthy)
        );
        assert_eq!(parse("events --since yesterday").err(), Some(ErrorKind::ValueValidation));
    }

    #[test]
    fn an_order_is_for_one_pool_or_for_all_for_a_time_or_for_good() {
        let drain = |line: &str| match parse(line) {
            Ok(Command::Drain(drain)) => Ok(drain),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error),
        };
        let all = drain("drain --all-pools a:1 --for 30m --wait --timeout 2m").expect("it is good");
        assert_eq!((all.order.place(), all.order.terms.lasts), (Ok((None, "a:1")), Some(Duration::from_secs(1_800))));
        assert_eq!((all.wait, all.timeout), (true, Duration::from_secs(120)));
        assert_eq!(drain("drain api a:1 --for 0s").err(), Some(ErrorKind::ValueValidation));
        let one = drain("drain api a:1 --wait").expect("it is good");
        assert_eq!((one.order.terms.lasts, one.timeout), (None, Duration::from_secs(300)));
        assert!(drain("drain api a:1 --all-pools").is_ok_and(|drain| drain.order.place().is_err()));
        assert_eq!(drain("drain api").err(), Some(ErrorKind::MissingRequiredArgument));
        let Ok(Command::Disable(disable)) = parse("disable api a:1 --wait --timeout 2s") else {
            panic!("it is good");
        };
        assert_eq!((disable.wait, disable.timeout), (true, Duration::from_secs(2)));
        assert_eq!(parse("disable api a:1 --timeout 2s").err(), Some(ErrorKind::MissingRequiredArgument));
        assert!(parse("disable api a:1").is_ok());
        let sessions = drain("drain api a:1 --timeout 0s").expect("it needs no --wait");
        assert_eq!((sessions.wait, sessions.timeout), (false, Duration::ZERO));
        assert_eq!(drain("drain api a:1 --for 5").err(), Some(ErrorKind::ValueValidation));
        assert!(matches!(parse("weight api a:1 5"), Ok(Command::Weight(weight)) if weight.weight == 5));
        for number in ["0", "1001", "x", "1.5"] {
            assert_eq!(parse(&format!("weight api a:1 {number}")).err(), Some(ErrorKind::ValueValidation), "{number}");
        }
    }

    #[test]
    fn commands_find_the_process_by_address_or_file() {
        let Ok(Command::Drain(drain)) = parse("drain api [::1]:80 --reason upgrade --admin unix:/run/a.sock") else {
            panic!("it is good");
        };
        assert_eq!(
            (drain.order.place(), drain.order.terms.reason.as_str()),
            (Ok((Some("api"), "[::1]:80")), "upgrade")
        );
        assert_eq!(drain.order.terms.process.admin.map(|a| a.to_string()).as_deref(), Some("unix:/run/a.sock"));
        assert_eq!(parse("status --admin nonsense").err(), Some(ErrorKind::ValueValidation));
        assert_eq!(parse("drain api").err(), Some(ErrorKind::MissingRequiredArgument));
        assert_eq!(parse("status --admin 127.0.0.1:1 --config b").err(), Some(ErrorKind::ArgumentConflict));
        assert_eq!(parse("nonsense").err(), Some(ErrorKind::InvalidSubcommand));
    }
}
