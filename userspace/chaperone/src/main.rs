//! The one binary: configuration, start-up order and the command line. It holds no logic of its own: what it does is
//! in the rooms, and what it can't do it says, with an exit code that means something.

#![forbid(unsafe_code)]

mod approvals;
mod ask;
mod budgets;
mod cli;
mod commands;
mod config;
mod console;
mod container_trust;
mod daemon;
mod disable;
mod doctor;
mod enrolment;
mod explain;
mod in_force;
mod login;
mod manual;
mod mask;
mod masking;
mod metadata;
mod metrics;
mod network_admin;
mod output;
mod pending_cgroups;
mod placeholders;
mod policy;
mod provision;
mod register;
mod roles;
mod run;
mod sandbox;
mod setup;
mod show;
mod stop;
mod warehouse;

use std::process::ExitCode;

use chaperone_query::QueryError;
use clap::{CommandFactory, Parser};

use crate::{
    cli::{Cli, Command},
    config::ConfigError,
};

/// Against glibc's: a fifth less CPU per call, and a fifth less resident memory, also after large objects. Its settings
/// are in `.cargo/config.toml`, where it is built: two arenas, and what is free goes back to the kernel after a second.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Something is wrong with what was asked, or with the configuration.
const BAD_INPUT: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chaperone: {}", output::clean_lines(&format!("{error:#}")));
            let bad_input = error.downcast_ref::<ConfigError>().is_some()
                || error.downcast_ref::<chaperone_capture::CaptureError>().is_some()
                || error.downcast_ref::<explain::BadRequest>().is_some()
                || error.downcast_ref::<mask::BadMask>().is_some()
                || matches!(error.downcast_ref(), Some(QueryError::NotHere(_) | QueryError::NoFraming));
            ExitCode::from(if bad_input { BAD_INPUT } else { 1 })
        }
    }
}

/// `chaperone calls | head` ends when head has enough.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { config, json, command } = cli;
    match command {
        Command::Approvals(what) => approvals::run(&config, &what, json),
        Command::Agents => commands::agents(&config, json),
        Command::Ask(asked) => ask::run(&config, &asked, json),
        Command::Calls(filter) => commands::calls(&config, &filter, json),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "chaperone", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Commands(of) => commands::commands(&config, &of, json),
        Command::Config(what) => commands::config(&config, &what, json),
        Command::Connections(of) => commands::connections(&config, &of, json),
        Command::Daemon => {
            start_log();
            daemon::run(&config)
        }
        Command::Disable { unrecorded } => disable::run(&config, unrecorded),
        Command::Doctor(asked) if asked.agent.is_some() => doctor::agent(&config, &asked, json),
        Command::Doctor(_) => doctor::run(&config, json),
        Command::Explain(what) => explain::run(&what, json),
        Command::Enter { cgroup, user, command } => run::enter(&cgroup, user.as_deref(), &command),
        Command::Manual { folder } => manual::write(&folder),
        Command::Mask(what) => mask::run(&what, json),
        Command::OciHook => container_trust::hook(&config),
        Command::OciRuntime { arguments } => container_trust::runtime(&config, &arguments),
        Command::Probe => setup::probe(),
        Command::Policy(what) => policy::run(&config, &what, json),
        Command::Provision(what) => provision::run(&what),
        Command::Reload => commands::reload(&config, json),
        Command::Register(what) => register::run(&config, &what, json),
        Command::Resume { of } => stop::resume(&config, &of, json),
        Command::Run(what) => run::run(&config, &what),
        Command::Runtimes => doctor::runtimes(),
        Command::Sessions { warehouse } => commands::sessions(&config, warehouse, json),
        Command::Setup(what) => setup::run(&config, &what, json),
        Command::Show { call, body, warehouse } => show::run(&config, call, body, warehouse, json),
        Command::Stop { of, kill, reason } => stop::stop(&config, &of, kill, &reason, json),
        Command::Status => commands::status(&config, json),
        Command::Tail(filter) => commands::tail(&config, &filter, json),
        Command::Trust(what) => commands::trust(&config, &what, json),
        Command::Warehouse(what) => warehouse::run(&config, &what, json),
        Command::Verify { dir, key } => commands::verify(&config, dir, key.as_deref(), json),
    }
}

/// The AWS SDK's crates that handle credentials and signatures.
const SDK: [&str; 8] = [
    "aws_config",
    "aws_credential_types",
    "aws_runtime",
    "aws_sdk_sso",
    "aws_sdk_ssooidc",
    "aws_sdk_sts",
    "aws_sigv4",
    "aws_smithy_runtime",
];

/// To standard error, where journald and the lab collect it; `CHAPERONE_LOG=debug` tells more.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("CHAPERONE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // The SDK names access keys at `info`, and more below: not even a key's id belongs into a log, whatever is asked for.
    let filter = SDK.iter().fold(filter, |filter, name| match format!("{name}=warn").parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    });
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}
