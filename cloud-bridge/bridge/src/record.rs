//! What is remembered of an enrolled node, in one Secret each, and of revoked ones, in one Secret together.
//! The Node object is no part of it: deleting that re-admits nobody.

use std::collections::BTreeSet;

use crate::vault::{Leaf, ROLE_REVOKED, Vault, Wrote};

/// Name of the Secret with the revoked nodes.
pub const REVOKED_SECRET: &str = "edgebus-revoked";

/// An enrolled node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    pub node: String,
    /// SHA-256 of the public key, hex: the only key a certificate may carry.
    pub key_hash: String,
    /// The key of a renewal whose certificate has not been used yet.
    pub next_key_hash: String,
    /// X25519 public key, base64.
    pub sealing_pub: String,
    pub key_id: String,
    /// Serial number of the newest certificate, hex.
    pub serial: String,
    /// When it ends.
    pub until: String,
    /// The token it joined with.
    pub token_id: String,
    pub joined: String,
}

pub fn secret_name(node: &str) -> String {
    format!("edgebus-node-{node}")
}

impl Record {
    pub fn read(leaf: &Leaf) -> Option<Record> {
        let text = |key: &str| leaf.get(key).to_owned();
        let record = Record {
            node: text("node"),
            key_hash: text("key-hash"),
            next_key_hash: text("next-key-hash"),
            sealing_pub: text("sealing-pub"),
            key_id: text("key-id"),
            serial: text("serial"),
            until: text("until"),
            token_id: text("token-id"),
            joined: text("joined"),
        };
        (!record.node.is_empty() && !record.key_hash.is_empty()).then_some(record)
    }

    pub fn write(&self, leaf: &mut Leaf) {
        for (key, value) in [
            ("node", &self.node),
            ("key-hash", &self.key_hash),
            ("next-key-hash", &self.next_key_hash),
            ("sealing-pub", &self.sealing_pub),
            ("key-id", &self.key_id),
            ("serial", &self.serial),
            ("until", &self.until),
            ("token-id", &self.token_id),
            ("joined", &self.joined),
        ] {
            leaf.set(key, value.as_str());
        }
    }

    /// Whether a certificate with this key is the node's.
    pub fn knows(&self, key_hash: &str) -> bool {
        !key_hash.is_empty() && (self.key_hash == key_hash || self.next_key_hash == key_hash)
    }
}

/// Names of revoked nodes.
pub async fn revoked(vault: &Vault) -> anyhow::Result<BTreeSet<String>> {
    let leaf = vault.get(REVOKED_SECRET).await?;
    Ok(leaf
        .map(|leaf| names(leaf.get("nodes")))
        .unwrap_or_default())
}

pub fn names(text: &str) -> BTreeSet<String> {
    let words = text.split_whitespace();
    words.map(str::to_owned).collect()
}

/// Adds a node to the list or takes it off.
pub async fn revoke(vault: &Vault, node: &str, on: bool) -> anyhow::Result<()> {
    for _ in 0..8 {
        let found = vault.get(REVOKED_SECRET).await?;
        let fresh = found.is_none();
        let mut leaf = found.unwrap_or_else(|| Leaf::new(REVOKED_SECRET));
        let mut list = names(leaf.get("nodes"));
        let changed = if on {
            list.insert(node.to_owned())
        } else {
            list.remove(node)
        };
        if !changed {
            return Ok(());
        }
        leaf.set("nodes", list.into_iter().collect::<Vec<_>>().join("\n"));
        let wrote = if fresh {
            vault.create(&leaf, ROLE_REVOKED).await?
        } else {
            vault.replace(&leaf, ROLE_REVOKED).await?
        };
        if wrote == Wrote::Done {
            return Ok(());
        }
    }
    anyhow::bail!("secret {REVOKED_SECRET} is being changed by somebody else; try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_secret() {
        let record = Record {
            node: "gw".into(),
            key_hash: "aa".into(),
            sealing_pub: "bb".into(),
            ..Record::default()
        };
        let mut leaf = Leaf::new(&secret_name("gw"));
        record.write(&mut leaf);
        assert_eq!(Record::read(&leaf), Some(record.clone()));
        assert!(record.knows("aa"));
        assert!(!record.knows(""), "an empty next key is no key");
        assert_eq!(Record::read(&Leaf::new("edgebus-node-x")), None);
    }
}
