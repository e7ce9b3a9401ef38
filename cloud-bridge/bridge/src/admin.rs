//! What an operator does to enrolment from outside the bridge, and the one place that makes the CA.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::Timestamp;
use kube::Client;

use crate::ca::Ca;
use crate::cluster;
use crate::record::{self, Record};
use crate::vault::{Leaf, ROLE_CA, ROLE_NODE, Vault, Wrote};

const CA_SECRET: &str = "edgebus-ca";

/// Reaches the cluster and makes what is missing: whoever comes first, the bridge or `token create`, wins.
pub async fn open(
    kubeconfig: Option<&Path>,
    namespace: &str,
) -> anyhow::Result<(Client, Vault, Ca)> {
    let client = cluster::client(kubeconfig).await?;
    cluster::ensure_namespace(&client, namespace).await?;
    let vault = Vault::new(&client, namespace);
    let about = cluster::cluster_id(&client).await?;
    let ca = load_or_make_ca(&vault, &about).await?;
    Ok((client, vault, ca))
}

/// The CA of this cluster.
pub async fn load_or_make_ca(vault: &Vault, cluster_id: &str) -> anyhow::Result<Ca> {
    for _ in 0..4 {
        if let Some(leaf) = vault.get(CA_SECRET).await? {
            return Ca::load(leaf.get("ca.crt"), leaf.get("ca.key"))
                .with_context(|| format!("secret {CA_SECRET}"));
        }
        let about: String = cluster_id.chars().take(8).collect();
        let ca = Ca::generate(&about, Timestamp::now())?;
        let mut leaf = Leaf::new(CA_SECRET);
        leaf.set("ca.crt", ca.cert_pem());
        leaf.set("ca.key", ca.key_pem());
        if vault.create(&leaf, ROLE_CA).await? == Wrote::Done {
            tracing::info!(sha256 = %ca.hash(), "made the enrolment CA");
            return Ok(ca);
        }
    }
    anyhow::bail!("secret {CA_SECRET} comes and goes; somebody else writes it")
}

/// A node as enrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    pub node: String,
    pub cert_until: String,
    pub key_id: String,
    pub revoked: bool,
}

/// Every node that has enrolled.
pub async fn node_list(
    kubeconfig: Option<PathBuf>,
    namespace: &str,
) -> anyhow::Result<Vec<NodeInfo>> {
    let (_, vault, _) = open(kubeconfig.as_deref(), namespace).await?;
    let revoked = record::revoked(&vault).await?;
    let leaves = vault.list(ROLE_NODE).await?;
    let info = leaves.iter().filter_map(|leaf| {
        let record = Record::read(leaf)?;
        Some(NodeInfo {
            revoked: revoked.contains(&record.node),
            node: record.node,
            cert_until: record.until,
            key_id: record.key_id,
        })
    });
    Ok(info.collect())
}

/// Shuts a node out, at once and for good: until [`node_forget`], no token admits its name. False if no node of
/// that name has enrolled: then nothing is changed.
pub async fn node_revoke(
    kubeconfig: Option<PathBuf>,
    namespace: &str,
    node: &str,
) -> anyhow::Result<bool> {
    let (_, vault, _) = open(kubeconfig.as_deref(), namespace).await?;
    let there = vault.get(&record::secret_name(node)).await?.is_some();
    if there {
        record::revoke(&vault, node, true).await?;
    }
    Ok(there)
}

/// Forgets that a node ever enrolled: its certificates end, its name is free again. False if nobody had it.
pub async fn node_forget(
    kubeconfig: Option<PathBuf>,
    namespace: &str,
    node: &str,
) -> anyhow::Result<bool> {
    let (_, vault, _) = open(kubeconfig.as_deref(), namespace).await?;
    let there = match vault.get(&record::secret_name(node)).await? {
        Some(leaf) => vault.delete(&leaf).await?,
        None => false,
    };
    record::revoke(&vault, node, false).await?;
    Ok(there)
}
