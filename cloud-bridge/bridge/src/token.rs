//! Join tokens: made, listed and deleted by an operator, used up by nodes. Only a salted hash of the secret
//! is stored, and a use is counted by compare-and-swap, so two nodes never share the last one.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use edgebus_bus::NodeName;
use edgebus_linkproto::{Hash, JoinToken};
use jiff::{SignedDuration, Timestamp};

use crate::ca::{hex, random};
use crate::vault::{Leaf, ROLE_TOKEN, Vault, Wrote};
use crate::{admin, config};

/// How long an expired token is kept.
const KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What a token is to allow.
#[derive(Debug, Clone)]
pub struct TokenSpec {
    /// Namespace of the bridge.
    pub namespace: String,
    /// How long it may be used.
    pub life: Duration,
    /// How many nodes may join with it.
    pub uses: u32,
    /// Only this node may join with it; may then also join again.
    pub node: Option<NodeName>,
}

impl Default for TokenSpec {
    fn default() -> Self {
        TokenSpec {
            namespace: config::NAMESPACE.to_owned(),
            life: Duration::from_secs(24 * 3600),
            uses: 1,
            node: None,
        }
    }
}

/// A token as listed: never its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInfo {
    pub id: String,
    pub expires: String,
    pub uses_left: u32,
    pub node: Option<String>,
    pub expired: bool,
}

/// Why a token does not admit. The text goes to whoever tries, so it tells a guesser nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("no token has this id and secret; `edgebus token create` makes a new one")]
    Unknown,
    #[error("the token expired at {0}; `edgebus token create` makes a new one")]
    Expired(String),
    #[error(
        "the token has been used as often as it allowed; `edgebus token create` makes a new one"
    )]
    UsedUp,
    #[error("the token is for node {0:?} only")]
    OtherNode(String),
    #[error("the token in the cluster is damaged: {0}")]
    Damaged(&'static str),
}

/// Makes a token and answers its text form, which is nowhere stored.
pub async fn token_create(kubeconfig: Option<PathBuf>, spec: TokenSpec) -> anyhow::Result<String> {
    anyhow::ensure!(
        !spec.life.is_zero() && spec.uses > 0,
        "a token must live for some time and admit at least one node; asked for were {} s and {} uses",
        spec.life.as_secs(),
        spec.uses
    );
    let (_, vault, ca) = admin::open(kubeconfig.as_deref(), &spec.namespace).await?;
    let id = hex(&random::<5>());
    let secret = hex(&random::<16>());
    let token = JoinToken::new(ca.hash(), &id, &secret).context("make a token")?;
    sweep(&vault, Timestamp::now()).await?;
    let leaf = stored(&id, &secret, &spec, Timestamp::now());
    match vault.create(&leaf, ROLE_TOKEN).await? {
        Wrote::Done => Ok(token.to_string()),
        Wrote::Lost => anyhow::bail!("a token {id} exists already; try again"),
    }
}

/// Old tokens go when a new one is made; until then their error still says what became of them.
async fn sweep(vault: &Vault, now: Timestamp) -> anyhow::Result<()> {
    for leaf in vault.list(ROLE_TOKEN).await? {
        if outlived(&leaf, now) {
            vault.delete(&leaf).await?;
        }
    }
    Ok(())
}

fn outlived(leaf: &Leaf, now: Timestamp) -> bool {
    let expires = leaf.get("expires").parse::<Timestamp>();
    expires.is_ok_and(|at| now.duration_since(at) > KEPT)
}

/// All tokens, also the expired ones.
pub async fn token_list(
    kubeconfig: Option<PathBuf>,
    namespace: &str,
) -> anyhow::Result<Vec<TokenInfo>> {
    let (_, vault, _) = admin::open(kubeconfig.as_deref(), namespace).await?;
    let now = Timestamp::now();
    let leaves = vault.list(ROLE_TOKEN).await?;
    Ok(leaves.iter().map(|leaf| info(leaf, now)).collect())
}

/// Deletes a token; false if there was none.
pub async fn token_delete(
    kubeconfig: Option<PathBuf>,
    namespace: &str,
    id: &str,
) -> anyhow::Result<bool> {
    let (_, vault, _) = admin::open(kubeconfig.as_deref(), namespace).await?;
    match vault.get(&secret_name(id)).await? {
        Some(leaf) => vault.delete(&leaf).await,
        None => Ok(false),
    }
}

pub fn secret_name(id: &str) -> String {
    format!("edgebus-token-{id}")
}

fn stored(id: &str, secret: &str, spec: &TokenSpec, now: Timestamp) -> Leaf {
    let salt = hex(&random::<16>());
    let life = SignedDuration::try_from(spec.life).unwrap_or(SignedDuration::MAX);
    let expires = now.checked_add(life).unwrap_or(Timestamp::MAX);
    let mut leaf = Leaf::new(&secret_name(id));
    leaf.set("id", id);
    leaf.set("hash", salted(&salt, secret));
    leaf.set("salt", salt);
    leaf.set("expires", expires.to_string());
    leaf.set("uses-left", spec.uses.to_string());
    if let Some(node) = &spec.node {
        leaf.set("node", node.as_str());
    }
    leaf
}

fn info(leaf: &Leaf, now: Timestamp) -> TokenInfo {
    let expires = leaf.get("expires");
    TokenInfo {
        id: leaf.get("id").to_owned(),
        expires: expires.to_owned(),
        uses_left: leaf.get("uses-left").parse().unwrap_or(0),
        node: Some(leaf.get("node"))
            .filter(|n| !n.is_empty())
            .map(str::to_owned),
        expired: expires.parse::<Timestamp>().is_ok_and(|at| at <= now),
    }
}

fn salted(salt: &str, secret: &str) -> String {
    // The secret is 128 random bits: nothing to slow down a guesser with is needed.
    Hash::of_bytes(format!("{salt}:{secret}").as_bytes()).to_hex()
}

/// Equal, in a time that depends on the length only.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0u8, |acc, (a, b)| acc | (a ^ b)) == 0
}

/// What a token said to a node that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// The token names this node: a name that is taken may be taken over.
    pub names_node: bool,
}

/// Whether the token admits that node now. Does not count the use.
pub fn check(
    leaf: Option<&Leaf>,
    secret: &str,
    node: &str,
    now: Timestamp,
) -> Result<Admitted, Refused> {
    // The same work is done for an id that does not exist.
    let (salt, hash) = leaf.map_or(("", ""), |leaf| (leaf.get("salt"), leaf.get("hash")));
    let right = same(salted(salt, secret).as_bytes(), hash.as_bytes());
    let Some(leaf) = leaf.filter(|_| right) else {
        return Err(Refused::Unknown);
    };
    let expires = leaf.get("expires");
    match expires.parse::<Timestamp>() {
        Ok(at) if at <= now => return Err(Refused::Expired(expires.to_owned())),
        Ok(_) => {}
        Err(_) => return Err(Refused::Damaged("its expiry is no time")),
    }
    let only = leaf.get("node");
    if !only.is_empty() && only != node {
        return Err(Refused::OtherNode(only.to_owned()));
    }
    Ok(Admitted {
        names_node: !only.is_empty(),
    })
}

/// Takes one use off; the caller writes the leaf back.
pub fn take_use(leaf: &mut Leaf) -> Result<(), Refused> {
    let left: u32 = leaf
        .get("uses-left")
        .parse()
        .map_err(|_| Refused::Damaged("its count of uses is no number"))?;
    let left = left.checked_sub(1).ok_or(Refused::UsedUp)?;
    leaf.set("uses-left", left.to_string());
    Ok(())
}

/// Reads, checks and counts a use.
pub async fn consume(
    vault: &Vault,
    id: &str,
    secret: &str,
    node: &str,
) -> anyhow::Result<Result<Admitted, Refused>> {
    for _ in 0..8 {
        let mut leaf = vault.get(&secret_name(id)).await?;
        let admitted = match check(leaf.as_ref(), secret, node, Timestamp::now()) {
            Ok(admitted) => admitted,
            Err(refused) => return Ok(Err(refused)),
        };
        let Some(leaf) = leaf.as_mut() else {
            return Ok(Err(Refused::Unknown));
        };
        if let Err(refused) = take_use(leaf) {
            return Ok(Err(refused));
        }
        if vault.replace(leaf, ROLE_TOKEN).await? == Wrote::Done {
            return Ok(Ok(admitted));
        }
    }
    anyhow::bail!("token {id} is being used by too many nodes at once; try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(uses: u32, node: Option<&str>) -> Leaf {
        let spec = TokenSpec {
            uses,
            node: node.map(|n| NodeName::new(n).unwrap()),
            ..TokenSpec::default()
        };
        stored("abcd", "0123456789abcdef", &spec, Timestamp::now())
    }

    #[test]
    fn the_right_secret_admits_and_is_not_stored() {
        let leaf = token(1, None);
        let now = Timestamp::now();
        assert!(!format!("{:?}", leaf.data).contains("0123456789abcdef"));
        let admitted = check(Some(&leaf), "0123456789abcdef", "gw", now).unwrap();
        assert!(!admitted.names_node);
        assert_eq!(
            check(Some(&leaf), "0123456789abcdeF", "gw", now),
            Err(Refused::Unknown)
        );
        assert_eq!(check(Some(&leaf), "", "gw", now), Err(Refused::Unknown));
        assert_eq!(
            check(None, "0123456789abcdef", "gw", now),
            Err(Refused::Unknown)
        );
    }

    #[test]
    fn a_token_for_a_node_admits_no_other() {
        let leaf = token(1, Some("gw"));
        let now = Timestamp::now();
        assert!(
            check(Some(&leaf), "0123456789abcdef", "gw", now)
                .unwrap()
                .names_node
        );
        assert_eq!(
            check(Some(&leaf), "0123456789abcdef", "gx", now),
            Err(Refused::OtherNode("gw".into()))
        );
    }

    #[test]
    fn an_expired_token_says_so() {
        let leaf = token(1, None);
        let later = Timestamp::now() + SignedDuration::from_hours(25);
        let refused = check(Some(&leaf), "0123456789abcdef", "gw", later).unwrap_err();
        assert!(matches!(refused, Refused::Expired(_)), "{refused}");
        assert!(info(&leaf, later).expired);
        assert!(!outlived(&leaf, later));
        assert!(outlived(&leaf, later + SignedDuration::from_hours(8 * 24)));
    }

    #[test]
    fn uses_run_out() {
        let mut leaf = token(2, None);
        take_use(&mut leaf).unwrap();
        take_use(&mut leaf).unwrap();
        assert_eq!(take_use(&mut leaf), Err(Refused::UsedUp));
        leaf.set("uses-left", "many");
        assert!(matches!(take_use(&mut leaf), Err(Refused::Damaged(_))));
    }
}
