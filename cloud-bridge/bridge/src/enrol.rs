//! Admission: who gets a certificate, who may open a link with one, and renewal.
//!
//! ```text
//! POST /v1/enrol:  name valid → request proves its key → token right, alive, for this node → not revoked
//!                  → name free, or the token names it → one use taken → signed → recorded → answered
//! GET /v1/link:    certificate of our CA → CN and O of a node → recorded with this very key → not revoked
//! ```

use std::time::Duration;

use edgebus_bus::NodeName;
use edgebus_linkproto::{EnrolError, EnrolReply, EnrolRequest};
use http::StatusCode;
use jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DynamicObject};

use crate::ca::{Ca, CaError, Issued, Request};
use crate::cluster::call;
use crate::record::{self, Record};
use crate::tls::Peer;
use crate::token::{self, Refused};
use crate::vault::{Leaf, ROLE_NODE, Vault, Wrote};
use crate::{node, rows};

/// Longest node name: its Secret's name must fit too.
const NODE_NAME_MAX: usize = 200;

/// An answer that is not 200.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: EnrolError,
}

impl Answer {
    pub fn new(status: StatusCode, error: &str, why: impl Into<String>) -> Answer {
        Answer {
            status,
            body: EnrolError {
                error: error.to_owned(),
                why: why.into(),
            },
        }
    }
}

/// The API did not answer as it should: for the log in full, to the node in short.
impl From<anyhow::Error> for Answer {
    fn from(error: anyhow::Error) -> Answer {
        tracing::warn!("enrolment: {error:#}");
        let why =
            "the bridge cannot reach the Kubernetes API, or may not write there; its log says more";
        Answer::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", why)
    }
}

impl From<CaError> for Answer {
    fn from(error: CaError) -> Answer {
        let status = match error {
            CaError::Request(_) => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Answer::new(status, "bad-request", error.to_string())
    }
}

/// Everything admission needs.
pub struct Door {
    pub client: Client,
    pub vault: Vault,
    pub ca: Ca,
    pub cluster_id: String,
    pub cert_life: Duration,
}

/// A node that may open a link.
#[derive(Debug, Clone)]
pub struct Admission {
    pub node: NodeName,
    pub record: Record,
    /// Hash of the key it came with.
    pub key_hash: String,
    /// Its certificate has ended: it may renew and do nothing else for long.
    pub in_grace: bool,
}

/// The parts of a request that can be checked without asking anybody.
fn read(ask: &EnrolRequest) -> Result<(NodeName, Request, [u8; 32]), Answer> {
    let bad = |error, why| Answer::new(StatusCode::UNPROCESSABLE_ENTITY, error, why);
    let name =
        NodeName::new(ask.node.as_str()).map_err(|e| bad("forbidden-name", e.to_string()))?;
    if ask.node.len() > NODE_NAME_MAX {
        let why = format!(
            "node name of {} characters, allowed are {NODE_NAME_MAX}",
            ask.node.len()
        );
        return Err(bad("forbidden-name", why));
    }
    let sealing = edgebus_api::seal::public_from_base64(&ask.sealing_pub)
        .map_err(|e| bad("bad-sealing-key", e.to_string()))?;
    Ok((name, Ca::request(&ask.csr_pem)?, sealing))
}

fn refused(refused: &Refused) -> Answer {
    let (status, word) = match refused {
        Refused::Unknown => (StatusCode::UNAUTHORIZED, "bad-token"),
        Refused::Expired(_) => (StatusCode::UNAUTHORIZED, "token-expired"),
        Refused::UsedUp => (StatusCode::FORBIDDEN, "token-used-up"),
        Refused::OtherNode(_) => (StatusCode::FORBIDDEN, "token-for-other-node"),
        Refused::Damaged(_) => (StatusCode::FORBIDDEN, "token-damaged"),
    };
    Answer::new(status, word, refused.to_string())
}

impl Door {
    /// `POST /v1/enrol`.
    pub async fn enrol(&self, ask: EnrolRequest) -> Result<EnrolReply, Answer> {
        let (name, request, sealing) = read(&ask)?;
        let node = name.as_str();
        let id_ok = ask.token_id.len() <= 63
            && ask
                .token_id
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !id_ok || ask.token_secret.len() > 256 {
            return Err(refused(&Refused::Unknown));
        }
        let leaf = self.vault.get(&token::secret_name(&ask.token_id)).await?;
        let admitted = token::check(leaf.as_ref(), &ask.token_secret, node, Timestamp::now())
            .map_err(|e| refused(&e))?;
        if record::revoked(&self.vault).await?.contains(node) {
            return Err(revoked(node));
        }
        let there = self.vault.get(&record::secret_name(node)).await?;
        let before = there.as_ref().and_then(Record::read);
        // The answer to an earlier try was lost on its way: the same key comes with the same token.
        let again = before
            .as_ref()
            .is_some_and(|r| r.key_hash == request.key_hash && r.token_id == ask.token_id);
        if before.is_some() && !again && !admitted.names_node {
            let why = format!(
                "node {node:?} is enrolled already; a token made for it (`edgebus token create --node {node}`) lets it join again"
            );
            return Err(Answer::new(StatusCode::CONFLICT, "name-taken", why));
        }
        if before.is_none() {
            self.not_another_node(node).await?;
        }
        if !again {
            token::consume(&self.vault, &ask.token_id, &ask.token_secret, node)
                .await?
                .map_err(|e| refused(&e))?;
        }
        let key_hash = request.key_hash.clone();
        let issued = self
            .ca
            .sign_node(request, node, Timestamp::now(), self.cert_life)?;
        let record = Record {
            node: node.to_owned(),
            key_hash,
            next_key_hash: String::new(),
            sealing_pub: ask.sealing_pub.trim().to_owned(),
            key_id: edgebus_api::seal::key_id(&sealing),
            serial: issued.serial.clone(),
            until: issued.until.to_string(),
            token_id: ask.token_id,
            joined: Timestamp::now().to_string(),
        };
        self.save(there, &record).await?;
        tracing::info!(node, serial = issued.serial, "enrolled");
        Ok(EnrolReply {
            cert_pem: issued.cert_pem,
            ca_pem: self.ca.cert_pem().to_owned(),
            cluster_id: self.cluster_id.clone(),
            node: node.to_owned(),
        })
    }

    /// A name that a Node which is none of ours has is not given away: its certificate would speak for it.
    async fn not_another_node(&self, node: &str) -> Result<(), Answer> {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &rows::node_resource());
        let found = call(&format!("read node {node}"), api.get_opt(node)).await?;
        let foreign = found.is_some_and(|found| {
            let labels = found.metadata.labels.unwrap_or_default();
            !labels.contains_key(node::EDGE_LABEL)
        });
        if foreign {
            let why = format!(
                "node {node:?} exists in the cluster and is no edge node; choose another name"
            );
            return Err(Answer::new(StatusCode::CONFLICT, "name-taken", why));
        }
        Ok(())
    }

    async fn save(&self, there: Option<Leaf>, record: &Record) -> Result<(), Answer> {
        let wrote = match there {
            Some(mut leaf) => {
                record.write(&mut leaf);
                self.vault.replace(&leaf, ROLE_NODE).await?
            }
            None => {
                let mut leaf = Leaf::new(&record::secret_name(&record.node));
                record.write(&mut leaf);
                self.vault.create(&leaf, ROLE_NODE).await?
            }
        };
        match wrote {
            Wrote::Done => Ok(()),
            Wrote::Lost => {
                let why = format!(
                    "node {:?} was enrolled by somebody else at the same moment",
                    record.node
                );
                Err(Answer::new(StatusCode::CONFLICT, "name-taken", why))
            }
        }
    }

    /// Whether the holder of this certificate may open a link.
    pub async fn admit(&self, peer: &Peer) -> Result<Admission, Answer> {
        let node = peer.node.as_str();
        if record::revoked(&self.vault).await?.contains(node) {
            return Err(revoked(node));
        }
        let leaf = self.vault.get(&record::secret_name(node)).await?;
        let Some((mut leaf, mut record)) = leaf.and_then(|l| Record::read(&l).map(|r| (l, r)))
        else {
            let why = format!(
                "node {node:?} is not enrolled in cluster {}: it joined another one, or was forgotten here",
                self.cluster_id
            );
            return Err(Answer::new(StatusCode::FORBIDDEN, "not-enrolled", why));
        };
        if !record.knows(&peer.key_hash) {
            let why = format!("this key of node {node:?} was replaced by a later join or renewal");
            return Err(Answer::new(StatusCode::FORBIDDEN, "key-replaced", why));
        }
        if record.next_key_hash == peer.key_hash {
            // The renewed certificate works: the one before it ends here.
            record.key_hash = std::mem::take(&mut record.next_key_hash);
            record.write(&mut leaf);
            self.vault.replace(&leaf, ROLE_NODE).await?;
        }
        Ok(Admission {
            node: peer.node.clone(),
            key_hash: peer.key_hash.clone(),
            in_grace: peer.until <= Timestamp::now(),
            record,
        })
    }

    /// A new certificate for an admitted node; its key may be a new one.
    pub async fn renew(&self, node: &NodeName, csr_pem: &str) -> Result<Issued, Answer> {
        let request = Ca::request(csr_pem)?;
        let name = record::secret_name(node.as_str());
        for _ in 0..4 {
            let leaf = self.vault.get(&name).await?;
            let Some((mut leaf, mut record)) = leaf.and_then(|l| Record::read(&l).map(|r| (l, r)))
            else {
                let why = format!("node {:?} is not enrolled any more", node.as_str());
                return Err(Answer::new(StatusCode::FORBIDDEN, "not-enrolled", why));
            };
            let again = Ca::request(csr_pem)?;
            let issued =
                self.ca
                    .sign_node(again, node.as_str(), Timestamp::now(), self.cert_life)?;
            if request.key_hash != record.key_hash {
                record.next_key_hash = request.key_hash.clone();
            }
            record.serial.clone_from(&issued.serial);
            record.until = issued.until.to_string();
            record.write(&mut leaf);
            if self.vault.replace(&leaf, ROLE_NODE).await? == Wrote::Done {
                tracing::info!(node = node.as_str(), serial = issued.serial, "renewed");
                return Ok(issued);
            }
        }
        let why = "the node's record is being written by somebody else; try again";
        Err(Answer::new(StatusCode::SERVICE_UNAVAILABLE, "busy", why))
    }
}

fn revoked(node: &str) -> Answer {
    let (list, own) = (record::REVOKED_SECRET, record::secret_name(node));
    let why = format!(
        "node {node:?} was revoked; its name is free again once it is off the list in Secret {list:?} and Secret {own:?} is deleted"
    );
    Answer::new(StatusCode::FORBIDDEN, "revoked", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(node: &str) -> EnrolRequest {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::default();
        EnrolRequest {
            token_id: "abcd".into(),
            token_secret: "0123456789abcdef".into(),
            node: node.into(),
            csr_pem: params.serialize_request(&key).unwrap().pem().unwrap(),
            sealing_pub: edgebus_api::seal::SealingKey::generate().public_base64(),
        }
    }

    #[test]
    fn what_is_wrong_with_a_request_is_said() {
        assert!(read(&ask("gw-1")).is_ok());
        let long = "x".repeat(201);
        for (ask, word, part) in [
            (ask("Gateway"), "forbidden-name", "\"Gateway\""),
            (ask("a/b"), "forbidden-name", "a/b"),
            (ask(&long), "forbidden-name", "201 characters"),
            (
                EnrolRequest {
                    csr_pem: "nonsense".into(),
                    ..ask("gw")
                },
                "bad-request",
                "request",
            ),
            (
                EnrolRequest {
                    sealing_pub: "AAAA".into(),
                    ..ask("gw")
                },
                "bad-sealing-key",
                "32 bytes",
            ),
        ] {
            let Err(answer) = read(&ask) else {
                panic!("{word}: accepted");
            };
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
            assert_eq!(answer.body.error, word);
            assert!(answer.body.why.contains(part), "{}", answer.body.why);
        }
    }
}
