//! Enrolment, the edge's side: from a token to a certificate for this node.
//!
//! ```text
//! token = CA hash, id, secret ──► TLS: the chain must end in a CA with that hash
//! new TLS key, new sealing key ─► POST /v1/enrol: token, name, CSR (signed by the key), sealing key's public half
//! certificate, CA, cluster ─────► checked against hash, key and name, then written, node.json last
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use edgebus_api::seal::SealingKey;
use edgebus_bus::{NameError, NodeName};
use edgebus_linkproto::{ENROL_PATH, EnrolError, EnrolReply, EnrolRequest, Hash, JoinToken};
use jiff::Timestamp;
use thiserror::Error;
use tokio::time::timeout;

use crate::dial::{self, DialError, Server};
use crate::files::{self, FilesError, Pinned};
use crate::http::{self, HttpError};
use crate::identity::{self, IdentityError};
use crate::tls::{self, TlsSetupError};

/// What `edgebus join` was given.
#[derive(Debug)]
pub struct JoinSpec {
    /// `host`, `host:port` or `https://host:port` of cloud-bridge.
    pub server: String,
    pub token: JoinToken,
    /// The name to join as; the machine's host name if none is given.
    pub node: Option<NodeName>,
    /// Where the node's keys go.
    pub dir: PathBuf,
    /// Join again, also to another cluster than the one pinned. What the old one put on the bus stays until
    /// the new one's lists are complete.
    pub accept_cluster: bool,
    /// For the whole exchange.
    pub within: Duration,
}

impl JoinSpec {
    pub fn new(server: impl Into<String>, token: JoinToken, dir: impl Into<PathBuf>) -> JoinSpec {
        JoinSpec {
            server: server.into(),
            token,
            node: None,
            dir: dir.into(),
            accept_cluster: false,
            within: Duration::from_secs(30),
        }
    }
}

#[derive(Debug, Error)]
pub enum JoinError {
    #[error(
        "this node is joined already, as {node} to {server}; `edgebus reset` forgets that, \
         `edgebus join --accept-cluster` joins anew and keeps what is on the bus"
    )]
    Joined { node: String, server: String },
    #[error("the machine's host name is no node name; give one with --node")]
    HostName(#[source] NameError),
    #[error("the machine's host name cannot be read; give one with --node")]
    NoHostName(#[source] std::io::Error),
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    TlsSetup(#[from] TlsSetupError),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("asking {server} for a certificate")]
    Http {
        server: String,
        #[source]
        source: HttpError,
    },
    #[error("{server} did not answer within {waited:?}")]
    Timeout { server: String, waited: Duration },
    #[error("{server} refused ({status} {error}): {why}")]
    Refused {
        server: String,
        status: u16,
        error: String,
        why: String,
    },
    #[error("the answer of {server} is not right: {why}")]
    Answer { server: String, why: String },
}

/// Makes this machine a node of the cluster behind `server`. The name it got.
pub async fn join(spec: JoinSpec) -> Result<NodeName, JoinError> {
    let server = Server::parse(&spec.server)?;
    let before = match Pinned::load(&spec.dir) {
        Ok(before) if !spec.accept_cluster => {
            return Err(JoinError::Joined {
                node: before.node,
                server: before.server,
            });
        }
        Ok(before) => Some(before),
        Err(e) if e.is_missing() => None,
        Err(e) => return Err(e.into()),
    };
    let node = match (&spec.node, &before) {
        (Some(node), _) => node.clone(),
        (None, Some(before)) => NodeName::new(&before.node).map_err(JoinError::HostName)?,
        (None, None) => host_name()?,
    };
    // Made before the token is used up, taken away again if that was in vain.
    let missing = files::missing_dirs(&spec.dir);
    files::make_dir(&spec.dir)?;
    let joined = enrol(&spec, &server, node).await;
    if joined.is_err() {
        for dir in missing {
            // Only what is empty goes; what stays does no harm.
            drop(std::fs::remove_dir(dir));
        }
    }
    joined
}

async fn enrol(spec: &JoinSpec, server: &Server, node: NodeName) -> Result<NodeName, JoinError> {
    let sealing = sealing_key(spec)?;
    let (key_pem, csr_pem) = identity::request(node.as_str())?;
    let request = EnrolRequest {
        token_id: spec.token.id.clone(),
        token_secret: spec.token.secret.clone(),
        node: node.to_string(),
        csr_pem,
        sealing_pub: sealing.public_base64(),
    };
    let reply = match timeout(spec.within, ask(server, spec.token.ca, &request)).await {
        Ok(reply) => reply?,
        Err(_) => {
            let server = server.to_string();
            return Err(JoinError::Timeout {
                server,
                waited: spec.within,
            });
        }
    };
    check(server, &spec.token, &reply, &key_pem, node.as_str())?;
    // node.json is what makes a joined node: gone while the others change.
    files::remove(&spec.dir, files::PINNED)?;
    identity::discard(&spec.dir)?;
    files::write(
        &spec.dir,
        files::SEALING,
        &format!("{}\n", sealing.private_base64()),
    )?;
    files::write(&spec.dir, files::KEY, &key_pem)?;
    files::write(&spec.dir, files::CERT, &reply.cert_pem)?;
    files::write(&spec.dir, files::CA, &reply.ca_pem)?;
    Pinned {
        node: node.to_string(),
        server: server.to_string(),
        cluster_id: reply.cluster_id,
        joined_at: Timestamp::now().to_string(),
    }
    .save(&spec.dir)?;
    Ok(node)
}

/// Forgets the node's identity: keys, certificates, pins, and what it still had to say. What is on the bus
/// stays. False if there was none.
pub fn reset(dir: &std::path::Path) -> Result<bool, FilesError> {
    let joined = dir.join(files::PINNED).exists();
    for name in files::ALL {
        files::remove(dir, name)?;
    }
    Ok(joined)
}

/// The sealing key survives joining again, so that what lies sealed on the bus still opens.
fn sealing_key(spec: &JoinSpec) -> Result<SealingKey, JoinError> {
    match files::read_secret(&spec.dir, files::SEALING) {
        Ok(text) => SealingKey::from_base64(&text).map_err(|e| {
            let why = e.to_string();
            IdentityError::Pem {
                file: files::SEALING,
                why,
            }
            .into()
        }),
        Err(e) if e.is_missing() => Ok(SealingKey::generate()),
        Err(e) => Err(e.into()),
    }
}

async fn ask(
    server: &Server,
    ca_hash: Hash,
    request: &EnrolRequest,
) -> Result<EnrolReply, JoinError> {
    let config = Arc::new(tls::joining(ca_hash)?);
    let mut stream = dial::tls(server, config).await?;
    let body = serde_json::to_vec(request).map_err(|e| JoinError::Answer {
        server: server.to_string(),
        why: e.to_string(),
    })?;
    let (status, answer) = http::post_json(&mut stream, &server.to_string(), ENROL_PATH, &body)
        .await
        .map_err(|source| JoinError::Http {
            server: server.to_string(),
            source,
        })?;
    if status == 200 {
        return serde_json::from_slice(&answer).map_err(|e| JoinError::Answer {
            server: server.to_string(),
            why: e.to_string(),
        });
    }
    let refusal = serde_json::from_slice(&answer).unwrap_or_else(|_| EnrolError {
        error: "unknown".into(),
        why: String::from_utf8_lossy(&answer).chars().take(200).collect(),
    });
    Err(JoinError::Refused {
        server: server.to_string(),
        status,
        error: refusal.error,
        why: refusal.why,
    })
}

/// What came must be what was asked for: nothing of it is taken on trust.
fn check(
    server: &Server,
    token: &JoinToken,
    reply: &EnrolReply,
    key_pem: &str,
    node: &str,
) -> Result<(), JoinError> {
    let wrong = |why: String| JoinError::Answer {
        server: server.to_string(),
        why,
    };
    let ca = identity::certs(files::CA, &reply.ca_pem)?;
    if Hash::of_bytes(&ca[0]) != token.ca {
        return Err(wrong("its CA is not the one in the token".into()));
    }
    let chain = identity::certs(files::CERT, &reply.cert_pem)?;
    identity::check_cert(files::CERT, &chain[0], key_pem, node)?;
    if reply.cluster_id.is_empty() || reply.cluster_id.len() > 128 {
        return Err(wrong(format!("cluster id {:?}", reply.cluster_id)));
    }
    if reply.node != node {
        return Err(wrong(format!(
            "it is for node {:?}, asked was {node:?}",
            reply.node
        )));
    }
    Ok(())
}

fn host_name() -> Result<NodeName, JoinError> {
    let name =
        std::fs::read_to_string("/proc/sys/kernel/hostname").map_err(JoinError::NoHostName)?;
    NodeName::new(name.trim().to_ascii_lowercase()).map_err(JoinError::HostName)
}
