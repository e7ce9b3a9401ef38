//! The processes and commands of the cloud side.

use crate::cli::{BridgeArgs, NodesCommand, StandaloneArgs, TokenCommand};
use crate::signals::stop_on_signal;
use crate::table;
use anyhow::{Context, Result, bail};
use edgebus_bridge::TokenSpec;
use edgebus_bus::NodeName;
use edgebus_client::unit::BadConfig;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// `edgebus cloud-bridge`.
pub async fn bridge(args: BridgeArgs) -> Result<()> {
    let mut config = edgebus_bridge::Config {
        kubeconfig: args.kubeconfig,
        names: args.advertise,
        health: args.health,
        namespace: args.namespace,
        secret_namespaces: args.secret_namespaces,
        object_namespaces: args.object_namespaces,
        ..Default::default()
    };
    if let Some(s) = args.cert_life_s {
        config.cert_life = Duration::from_secs(s);
    }
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("listening on {}", args.listen))?;
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone()));
    usable(edgebus_bridge::run(config, listener, stop).await)
}

/// What is wrong with a kubeconfig is wrong with the configuration.
fn usable<T>(outcome: Result<T>) -> Result<T> {
    outcome.map_err(
        |error| match error.downcast::<edgebus_bridge::BadKubeconfig>() {
            Ok(bad) => BadConfig(bad.to_string()).into(),
            Err(error) => error,
        },
    )
}

/// `edgebus standalone`.
pub async fn standalone(args: StandaloneArgs) -> Result<()> {
    let mut config = edgebus_standalone::Config::new(args.data_dir);
    config.listen = args.listen;
    config.sans = args.sans;
    config.kubeconfig = args.kubeconfig;
    config.node_grace = Duration::from_secs(args.node_grace_s);
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("listening on {}", args.listen))?;
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone()));
    edgebus_standalone::run(config, listener, stop).await
}

/// `edgebus token …`.
pub async fn token(command: TokenCommand) -> Result<()> {
    usable(tokens(command).await)
}

async fn tokens(command: TokenCommand) -> Result<()> {
    match command {
        TokenCommand::Create {
            cluster,
            node,
            hours,
            uses,
        } => {
            let node = node
                .map(NodeName::new)
                .transpose()
                .map_err(|e| BadConfig(e.to_string()))?;
            let spec = TokenSpec {
                namespace: cluster.namespace,
                life: Duration::from_secs(u64::from(hours) * 3600),
                uses,
                node,
            };
            println!(
                "{}",
                edgebus_bridge::token_create(cluster.kubeconfig, spec).await?
            );
        }
        TokenCommand::List { cluster } => {
            let tokens = edgebus_bridge::token_list(cluster.kubeconfig, &cluster.namespace).await?;
            let rows: Vec<_> = tokens
                .into_iter()
                .map(|t| {
                    vec![
                        t.id,
                        t.expires,
                        t.uses_left.to_string(),
                        t.node.unwrap_or_else(|| "any".into()),
                        if t.expired { "expired" } else { "" }.into(),
                    ]
                })
                .collect();
            print!(
                "{}",
                table::print(&["ID", "EXPIRES", "USES LEFT", "NODE", ""], &rows)
            );
        }
        TokenCommand::Delete { cluster, id } => {
            if !edgebus_bridge::token_delete(cluster.kubeconfig, &cluster.namespace, &id).await? {
                bail!("there is no token {id:?}");
            }
            println!("deleted");
        }
    }
    Ok(())
}

/// `edgebus nodes …`.
pub async fn nodes(command: NodesCommand) -> Result<()> {
    usable(enrolled(command).await)
}

async fn enrolled(command: NodesCommand) -> Result<()> {
    match command {
        NodesCommand::List { cluster } => {
            let nodes = edgebus_bridge::node_list(cluster.kubeconfig, &cluster.namespace).await?;
            let rows: Vec<_> = nodes
                .into_iter()
                .map(|n| {
                    vec![
                        n.node,
                        n.cert_until,
                        n.key_id,
                        if n.revoked { "revoked" } else { "" }.into(),
                    ]
                })
                .collect();
            print!(
                "{}",
                table::print(&["NODE", "CERTIFICATE UNTIL", "SEALING KEY", ""], &rows)
            );
        }
        NodesCommand::Revoke { cluster, node } => {
            if !edgebus_bridge::node_revoke(cluster.kubeconfig, &cluster.namespace, &node).await? {
                bail!("no node {node:?} has enrolled; `edgebus nodes list` shows those that have");
            }
            println!("{node} is shut out");
        }
        NodesCommand::Forget { cluster, node } => {
            if !edgebus_bridge::node_forget(cluster.kubeconfig, &cluster.namespace, &node).await? {
                bail!("no node {node:?} has enrolled");
            }
            println!("{node} is forgotten");
        }
    }
    Ok(())
}
