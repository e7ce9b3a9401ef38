//! The bridge as a whole: one life per cluster. When the API behind the kubeconfig turns out to be another
//! cluster, everything of the old one is dropped and the next life begins; the edges see the new cluster's id
//! and keep what they have.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::away::Away;
use crate::config::Config;
use crate::enrol::Door;
use crate::mirror::Mirror;
use crate::rows::{ROWS, Scope};
use crate::shared::Shared;
use crate::vault::Vault;
use crate::{admin, cluster, http, watch};

/// How often the bridge looks whether the API is still the same cluster's.
const LOOK: Duration = Duration::from_secs(5);
/// What connections get to say goodbye.
const GOODBYE: Duration = Duration::from_secs(20);

/// Serves nodes on `listener` until `stop`.
///
/// # Errors
/// [`cluster::BadKubeconfig`] if there is no usable kubeconfig; others if the API forbids what the bridge cannot do without, or the health address
/// cannot be bound. An API that does not answer is waited for.
pub async fn run(
    config: Config,
    listener: TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let health = match config.health {
        Some(address) => Some(Arc::new(
            TcpListener::bind(address)
                .await
                .with_context(|| format!("health address {address}"))?,
        )),
        None => None,
    };
    // What is wrong with the file now stays wrong. Later, one that is being replaced may be half there.
    if let Err(error) = cluster::client(config.kubeconfig.as_deref()).await
        && error.is::<cluster::BadKubeconfig>()
    {
        return Err(error);
    }
    while !stop.is_cancelled() {
        let Some((client, cluster_id)) = reach(&config, &stop).await? else {
            break;
        };
        let life = stop.child_token();
        match begin(&config, client, cluster_id, &life).await {
            Ok(shared) => serve(shared, &listener, health.clone(), &life).await?,
            Err(error)
                if cluster::api_code(&error)
                    .is_some_and(|code| matches!(code, 400 | 403 | 422)) =>
            {
                return Err(error);
            }
            Err(error) => {
                tracing::warn!("starting: {error:#}; trying again");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
    }
    Ok(())
}

/// A client for an API that answers. The kubeconfig is read anew each time: it may have been replaced.
async fn reach(
    config: &Config,
    stop: &CancellationToken,
) -> anyhow::Result<Option<(Client, String)>> {
    let away = Away::default();
    let mut told = String::new();
    let mut delay = Duration::from_millis(50);
    loop {
        let attempt = async {
            let client = cluster::client(config.kubeconfig.as_deref()).await?;
            let id = cluster::cluster_id(&client).await?;
            anyhow::Ok((client, id))
        };
        let error = tokio::select! {
            found = attempt => match found {
                Ok(found) => {
                    away.answered();
                    return Ok(Some(found));
                }
                Err(error) => error,
            },
            () = stop.cancelled() => return Ok(None),
        };
        if cluster::api_code(&error) == Some(403) {
            return Err(error.context("the bridge must be allowed to read namespace kube-system"));
        }
        let why = format!("{error:#}");
        if cluster::unanswered(&error) {
            away.missed(&why);
        } else if why != told {
            tracing::info!("waiting for the Kubernetes API: {why}");
            told = why;
        }
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = stop.cancelled() => return Ok(None),
        }
        delay = (delay * 2).min(Duration::from_secs(2));
    }
}

/// Everything that must be there before the first node may come.
async fn begin(
    config: &Config,
    client: Client,
    cluster_id: String,
    stop: &CancellationToken,
) -> anyhow::Result<Arc<Shared>> {
    tracing::info!(cluster = cluster_id, "reached the Kubernetes API");
    cluster::ensure_namespace(&client, &config.namespace).await?;
    if config.install_crds {
        cluster::ensure_crds(&client, stop).await?;
    }
    let vault = Vault::new(&client, &config.namespace);
    let ca = admin::load_or_make_ca(&vault, &cluster_id).await?;
    let lists: Vec<usize> = ROWS
        .iter()
        .map(|row| watch::namespaces(config, row.scope).len())
        .collect();
    let mirror = Mirror::new(&lists, watch::namespaces(config, Scope::Objects).len());
    let door = Door {
        client: client.clone(),
        vault,
        ca,
        cluster_id,
        cert_life: config.cert_life,
    };
    Ok(Arc::new(Shared::new(config.clone(), client, door, mirror)))
}

async fn serve(
    shared: Arc<Shared>,
    listener: &TcpListener,
    health: Option<Arc<TcpListener>>,
    life: &CancellationToken,
) -> anyhow::Result<()> {
    let tasks = shared.tasks.clone();
    watch::spawn(&shared, &tasks, life);
    tasks.spawn(look(shared.clone(), life.clone()));
    if let Some(health) = health {
        tasks.spawn(http::health(
            shared.clone(),
            health,
            tasks.clone(),
            life.clone(),
        ));
    }
    let local = listener.local_addr().context("the listener's address")?;
    let names = shared.config.names.join(", ");
    tracing::info!(%local, names, ca = %shared.door.ca.hash(), "nodes may join and link");
    let served = tokio::select! {
        served = http::nodes(&shared, listener, &tasks, life) => served,
        () = shared.changed.cancelled() => Ok(()),
    };
    life.cancel();
    tasks.close();
    if tokio::time::timeout(GOODBYE, tasks.wait()).await.is_err() {
        tracing::warn!(
            "some connections did not end within {} s",
            GOODBYE.as_secs()
        );
    }
    served
}

/// Notices another cluster even when no watch does, and a kubeconfig that was replaced because of one.
async fn look(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
        let check = async {
            match cluster::cluster_id(&shared.client).await {
                Ok(id) => {
                    shared.api.answered();
                    return id != shared.door.cluster_id;
                }
                Err(error) if cluster::unanswered(&error) => {
                    shared.api.missed(&format!("{error:#}"));
                }
                Err(_) => {}
            }
            // The old credentials fail: do the ones in the file now lead to another cluster?
            let Ok(client) = cluster::client(shared.config.kubeconfig.as_deref()).await else {
                return false;
            };
            cluster::cluster_id(&client).await.is_ok()
        };
        let other = tokio::select! {
            other = check => other,
            () = stop.cancelled() => return,
        };
        if other && !shared.changed.is_cancelled() {
            tracing::error!(
                was = shared.door.cluster_id,
                "cluster changed or its credentials did; starting over, nothing was deleted"
            );
            shared.changed.cancel();
        }
    }
}
