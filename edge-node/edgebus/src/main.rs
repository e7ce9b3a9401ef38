//! The multicall executable. Its name or its first word chooses the process; each process does one
//! thing and meets the others only on the bus. One file on disk and in memory: see the README's
//! table of figures.

mod cli;
#[cfg(feature = "cloud")]
mod cloud;
#[cfg(all(feature = "edge", feature = "cloud"))]
mod demo;
#[cfg(feature = "edge")]
mod edge;
mod paths;
#[cfg(any(feature = "edge", feature = "cloud"))]
mod signals;
mod table;
mod visit;

use clap::{CommandFactory, Parser};
use cli::{Cli, Command};
use std::ffi::OsString;
use std::future::Future;
use std::path::Path;
use std::process::ExitCode;

/// Wrong usage or configuration: trying again will not help.
const USAGE: u8 = edgebus_bus::unit::EXIT_CONFIG as u8;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    #[cfg(feature = "edge")]
    if let Some(code) = by_name(&args) {
        return code;
    }
    match Cli::try_parse_from(&args) {
        Ok(cli) => start(cli.command),
        Err(e) => {
            let code = if e.use_stderr() { USAGE } else { 0 };
            match e.print() {
                Ok(()) => ExitCode::from(code),
                Err(_) => ExitCode::FAILURE,
            }
        }
    }
}

/// A mapper of ours stands in `mappers.d/` as a link to this file.
#[cfg(feature = "edge")]
fn by_name(args: &[OsString]) -> Option<ExitCode> {
    let name = Path::new(args.first()?).file_name()?.to_str()?;
    let rest: Vec<String> = args
        .get(1..)?
        .iter()
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    edge::mapper(name, &rest)
}

fn start(command: Command) -> ExitCode {
    match command {
        #[cfg(all(feature = "edge", feature = "cloud"))]
        Command::Demo(args) => daemon("warn", demo::run(args)),
        #[cfg(feature = "edge")]
        Command::Node(args) => daemon("info", edge::node(args)),
        #[cfg(feature = "edge")]
        Command::Join(args) => small(edge::join(args)),
        #[cfg(feature = "edge")]
        Command::Reset(args) => small(async move { edge::reset(&args) }),
        Command::Get(args) => small(async move { visit::get(&args).await }),
        Command::Sub(args) => small(async move { visit::sub(&args).await }),
        Command::Pub(args) => small(async move { visit::publish(&args).await }),
        Command::Explain { topic } => end(visit::explained(topic.as_deref())),
        #[cfg(feature = "cloud")]
        Command::CloudBridge(args) => daemon("info", cloud::bridge(args)),
        #[cfg(feature = "cloud")]
        Command::Standalone(args) => daemon("info", cloud::standalone(args)),
        #[cfg(feature = "cloud")]
        Command::Token(command) => small(cloud::token(command)),
        #[cfg(feature = "cloud")]
        Command::Nodes(command) => small(cloud::nodes(command)),
        Command::Completion { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "edgebus",
                &mut std::io::stdout(),
            );
            ExitCode::SUCCESS
        }
        #[cfg(feature = "edge")]
        Command::Unit(unit) => edge::unit(unit),
    }
}

/// A command that ends by itself: quiet, on one thread.
fn small(body: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    edgebus_client::log::start("warn");
    end(on_one_thread(body))
}

/// A process that stays.
fn daemon(level: &str, body: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    edgebus_client::log::start(level);
    end(on_one_thread(body))
}

fn on_one_thread(body: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(body)
}

/// Maps an error to its exit code, and says it once.
fn end(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // A reader that has seen enough (`| head`) is no failure.
            let pipe = e
                .downcast_ref::<std::io::Error>()
                .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe);
            if pipe {
                return ExitCode::SUCCESS;
            }
            eprintln!("edgebus: {e:#}");
            let usage = e.is::<edgebus_client::unit::BadConfig>();
            if usage {
                ExitCode::from(USAGE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}
