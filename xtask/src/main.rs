//! `cargo xtask`: what cargo alone can't do for this workspace.
//!
//! It owns the set-up of a machine for development, the lab, the demo and the whole test run. It never touches more of
//! the machine than packages, its own cgroups and the target folder; what is missing is named, and nothing is skipped.
#![forbid(unsafe_code)]

mod alerts;
mod bench;
mod bpf;
mod catalog;
mod clients;
mod dashboards;
mod debian;
mod demo;
mod docs;
mod engines;
mod fidelity;
mod fuzz;
#[cfg(test)]
mod helm;
mod image;
#[cfg(test)]
mod imports;
mod lab;
mod links;
mod masking;
mod package;
mod place;
mod sensitive;
mod setup;
mod test;
mod vm;
mod warehouse;
mod watch;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Exit code 2: something about the machine or the arguments is not as it must be.
#[derive(Debug)]
pub struct Refusal(pub String);

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Measure a call's cost beside nginx and mitmproxy, before one and the same upstream.
    Bench(bench::Options),
    /// Build the kernel side's object again, or check that the committed one is what its sources make.
    Bpf {
        /// Change nothing; fail unless the bytes are the same.
        #[arg(long)]
        check: bool,
    },
    /// Compile the AWS catalog from botocore's models and the IAM data, check it, or prove the decoder by it.
    Catalog(catalog::Options),
    /// Write Grafana's dashboards, or check them.
    Dashboards(dashboards::Options),
    /// Show the main job with real clients, and check every claim.
    Demo(demo::Options),
    /// Make the documentation's site, and check its links.
    Docs,
    /// Run moto's own tests directly and through Chaperone: they end the same.
    Fidelity(fidelity::Options),
    /// Feed the readers of what agents send with whatever libFuzzer thinks of.
    Fuzz(fuzz::Options),
    /// Make a disk image that becomes an AMI, boot it and try it; or publish it.
    Image(image::Options),
    /// Run a command as an agent, in namespaces of its own with a fake AWS and the daemon.
    #[command(args_conflicts_with_subcommands = true)]
    Lab(lab::Options),
    /// Hold a lab's namespaces and services (used by `lab`).
    #[command(hide = true)]
    LabKeeper { dir: PathBuf },
    /// Go into a lab and become a command there (used by `lab`).
    #[command(hide = true)]
    LabEnter(lab::enter::Options),
    /// Run the detectors of secrets over samples and ordinary text from outside, and write down what they find.
    Masking(masking::Options),
    /// Make the .deb and the .rpm, with their symbols, the manual and what they are made of.
    Package(package::Options),
    /// Compile from botocore's models which members of answers are masked, or check that.
    Sensitive(sensitive::Options),
    /// Run every test: what CI runs.
    Test(test::Options),
    /// Fill a ClickHouse with a made-up past, and time the questions of docs/queries.md on it.
    Warehouse(warehouse::Options),
    /// Run the kernel tests on other kernels, in virtual machines.
    VmTest(vm::Options),
    /// Run gVisor in a virtual machine, started by an agent and for one.
    VmGvisor(debian::Options),
    /// Run a user's own containers (podman without root, crun, pasta, slirp4netns) in a virtual machine, captured.
    VmRootless(debian::Options),
    /// Install Chaperone under systemd in a virtual machine, restart, kill, starve and reboot it.
    VmSystemd(debian::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Bench(options) => bench::run(&options).map(|()| 0),
        Task::Bpf { check } => bpf::build(&place::root(), check).map(|()| 0),
        Task::Catalog(options) => catalog::run(&options).map(|()| 0),
        Task::Dashboards(options) => dashboards::run(&options).map(|()| 0),
        Task::Demo(options) => demo::run(&options).map(|()| 0),
        Task::Docs => docs::run().map(|()| 0),
        Task::Fidelity(options) => fidelity::run(&options).map(|()| 0),
        Task::Fuzz(options) => fuzz::run(&options).map(|()| 0),
        Task::Image(options) => image::run(&options).map(|()| 0),
        Task::Lab(options) => lab::run(options),
        Task::LabKeeper { dir } => lab::keeper::run(&dir).map(|()| 0),
        Task::LabEnter(options) => lab::enter::run(options),
        Task::Masking(options) => masking::run(&options).map(|()| 0),
        Task::Package(options) => package::run(&options).map(|()| 0),
        Task::Sensitive(options) => sensitive::run(&options).map(|()| 0),
        Task::Test(options) => test::run(&options).map(|()| 0),
        Task::Warehouse(options) => warehouse::run(&options).map(|()| 0),
        Task::VmTest(options) => vm::run(&options).map(|()| 0),
        Task::VmGvisor(options) => debian::run(&debian::GVISOR, &options).map(|()| 0),
        Task::VmRootless(options) => debian::run(&debian::ROOTLESS, &options).map(|()| 0),
        Task::VmSystemd(options) => debian::run(&debian::SYSTEMD, &options).map(|()| 0),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(if error.is::<Refusal>() { 2 } else { 1 })
        }
    }
}
