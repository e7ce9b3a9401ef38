//! The processes and commands of an edge node.

use crate::cli::{BrokerArgs, JoinArgs, NodeArgs, ResetArgs, UnitCommand};
use crate::signals::stop_on_signal;
use anyhow::{Context, Result, bail};
use edgebus_bus::NodeName;
use edgebus_client::unit::BadConfig;
use edgebus_link::{JoinSpec, join as enrol};
use edgebus_mapper_sdk as sdk;
use edgebus_warden::Config;
use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

/// Where `join` puts the identity, within the data folder; the warden looks for it there.
const LINK: &str = "link";

/// The mapper that a file of this name is, if it is one of ours.
pub fn mapper(name: &str, args: &[String]) -> Option<ExitCode> {
    match name.strip_prefix("mapper-").unwrap_or(name) {
        "modbus" => Some(sdk::main(edgebus_mapper_modbus::Modbus, args)),
        "virtual" => Some(sdk::main(edgebus_mapper_virtual::Virtual, args)),
        _ => None,
    }
}

/// A unit of the node.
pub fn unit(command: UnitCommand) -> ExitCode {
    use edgebus_client::unit::main;
    if let Some((name, rest)) = command.waits_for_welcome()
        && rest.args.is_empty()
        && std::io::stdin().is_terminal()
    {
        eprintln!(
            "edgebus: {name} is a part of an edge node: `edgebus node` starts it and hands it its name, its token \
             and the address of the bus on standard input.\n\
             By hand, on a bus that runs: edgebus {name} --name NAME --socket RUN_DIR/bus.sock --token-file FILE [--node NODE] [--data-dir FOLDER]"
        );
        return ExitCode::from(crate::USAGE);
    }
    match command {
        UnitCommand::Broker(args) => crate::daemon("info", broker(args)),
        UnitCommand::Link(rest) => one_thread(async move {
            main(&rest.args, |welcome, bus, stop| async move {
                // `join` put the identity into the unit's own folder.
                let own = Path::new(&welcome.data_dir);
                edgebus_link::run(edgebus_link::Config::new(own, own), bus, stop).await
            })
            .await
        }),
        UnitCommand::Edged(rest) => one_thread(async move {
            main(&rest.args, |welcome, bus, stop| async move {
                edgebus_edged::run(edgebus_edged::Config::new(&welcome)?, bus, stop).await
            })
            .await
        }),
        UnitCommand::Devicetwin(rest) => one_thread(async move {
            main(&rest.args, |welcome, bus, stop| async move {
                let config = edgebus_devicetwin::Config {
                    node: Some(welcome.node.parse()?),
                };
                Ok(edgebus_devicetwin::run(config, bus, stop).await?)
            })
            .await
        }),
        UnitCommand::MapperModbus(rest) => sdk::main(edgebus_mapper_modbus::Modbus, &rest.args),
        UnitCommand::MapperVirtual(rest) => sdk::main(edgebus_mapper_virtual::Virtual, &rest.args),
    }
}

fn one_thread(body: impl Future<Output = ExitCode>) -> ExitCode {
    match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(body),
        Err(e) => {
            eprintln!("edgebus: cannot start: {e}");
            ExitCode::FAILURE
        }
    }
}

async fn broker(args: BrokerArgs) -> Result<()> {
    let mut own = edgebus_eventbus::Args::new(args.data_dir, args.run_dir);
    own.tcp = Some(args.tcp);
    own.anonymous_tcp = args.anonymous;
    edgebus_eventbus::broker_main(own).await
}

/// `edgebus node`.
pub async fn node(args: NodeArgs) -> Result<()> {
    let name = match args.node {
        Some(name) => name,
        None => match enrolled_name(&args.data_dir.join(LINK)) {
            Some(name) => name,
            None => host_name()?,
        },
    };
    let name = NodeName::new(name).map_err(|e| BadConfig(e.to_string()))?;
    let exe = std::env::current_exe().context("finding the edgebus executable")?;
    let mut config = Config::new(name, args.data_dir, exe);
    config.run_dir = args.run_dir;
    config.mappers_d = args.mappers_dir;
    config.tcp = args.mqtt.to_string();
    config.anonymous = args.anonymous;
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone()));
    edgebus_warden::run(config, stop).await
}

fn enrolled_name(dir: &Path) -> Option<String> {
    let text = std::fs::read(dir.join("node.json")).ok()?;
    let value: serde_json::Value = serde_json::from_slice(&text).ok()?;
    value.get("node")?.as_str().map(str::to_owned)
}

fn host_name() -> Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .context("reading the host name; say --node NAME")?;
    Ok(name.trim().to_lowercase())
}

/// `edgebus join`.
pub async fn join(args: JoinArgs) -> Result<()> {
    let mut token = String::new();
    // Longer than any token.
    const MOST: u64 = 4096;
    if args.token_file.as_os_str() == "-" {
        if std::io::stdin().is_terminal() {
            eprintln!("Paste the token of `edgebus token create` and press Enter:");
            std::io::stdin()
                .lock()
                .take(MOST)
                .read_line(&mut token)
                .context("reading the token")?;
        } else {
            std::io::stdin()
                .take(MOST)
                .read_to_string(&mut token)
                .context("reading the token")?;
        }
    } else {
        let file = std::fs::File::open(&args.token_file)
            .with_context(|| format!("cannot open {}", args.token_file.display()))?;
        file.take(MOST)
            .read_to_string(&mut token)
            .with_context(|| format!("cannot read {}", args.token_file.display()))?;
    }
    let token = token
        .trim()
        .parse()
        .map_err(|e| BadConfig(format!("the token is no edgebus token: {e}")))?;
    let mut spec = JoinSpec::new(args.server, token, args.data_dir.join(LINK));
    if let Some(name) = args.node {
        spec.node = Some(NodeName::new(name).map_err(|e| BadConfig(e.to_string()))?);
    }
    spec.accept_cluster = args.accept_cluster;
    let node = enrol(spec).await?;
    println!("joined as {node}; `edgebus node` starts it");
    Ok(())
}

/// `edgebus reset`.
pub fn reset(args: &ResetArgs) -> Result<()> {
    if !args.yes {
        if !std::io::stdin().is_terminal() {
            bail!(BadConfig(
                "this forgets the node's keys, and there is no terminal to ask at; say --yes"
                    .into()
            ));
        }
        eprint!(
            "Forget the keys in {}? The node has to join again. [y/N] ",
            args.data_dir.join(LINK).display()
        );
        std::io::stderr().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !answer.trim().eq_ignore_ascii_case("y") {
            println!("nothing was changed");
            return Ok(());
        }
    }
    let had = edgebus_link::reset(&args.data_dir.join(LINK))?;
    println!(
        "{}",
        if had {
            "forgotten; this node belongs to no cloud now"
        } else {
            "this node had not joined"
        }
    );
    Ok(())
}
