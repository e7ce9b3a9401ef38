//! Enrolment over HTTPS: the join token and the JSON documents of `POST /v1/enrol`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Hash;

/// Where a node asks for its certificate. The endpoint's TLS chain there must carry the CA certificate itself
/// (leaf first, then the CA): a joining node knows the CA by its hash only and has nothing else to check with.
pub const ENROL_PATH: &str = "/v1/enrol";
/// Where the WebSocket of the link is.
pub const LINK_PATH: &str = "/v1/link";
/// WebSocket subprotocol of the link.
pub const SUBPROTOCOL: &str = "edgebus.link.v1";

/// `edgebus1.<SHA-256 of the CA certificate, hex>.<id>.<secret>`: what `edgebus token create` prints.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 over the DER bytes of the CA certificate, which must be in the endpoint's TLS chain.
    pub ca: Hash,
    /// Names the Secret; not secret itself.
    pub id: String,
    pub secret: String,
}

/// Why a text is no join token. The secret is never part of the message.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TokenError {
    #[error("a join token has four parts, edgebus1.<ca hash>.<id>.<secret>; this one has {0}")]
    Parts(usize),
    #[error("a join token starts with edgebus1, this one with {0:?}")]
    Version(String),
    #[error("the CA hash in a join token is 64 hexadecimal digits, this one is {0:?}")]
    CaHash(String),
    #[error("the id in a join token is 4 to 63 of a-z, 0-9 and '-', this one is {0:?}")]
    Id(String),
    #[error("the secret in a join token is 16 to 128 of A-Z, a-z, 0-9, '-' and '_'")]
    Secret,
}

impl JoinToken {
    pub fn new(ca: Hash, id: &str, secret: &str) -> Result<JoinToken, TokenError> {
        let id_ok = (4..=63).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !id_ok {
            return Err(TokenError::Id(id.chars().take(80).collect()));
        }
        let secret_ok = (16..=128).contains(&secret.len())
            && secret
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !secret_ok {
            return Err(TokenError::Secret);
        }
        Ok(JoinToken {
            ca,
            id: id.to_owned(),
            secret: secret.to_owned(),
        })
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<JoinToken, TokenError> {
        let parts: Vec<&str> = text.trim().split('.').take(6).collect();
        let [version, ca, id, secret] = parts[..] else {
            return Err(TokenError::Parts(parts.len()));
        };
        if version != "edgebus1" {
            return Err(TokenError::Version(version.chars().take(20).collect()));
        }
        let ca =
            Hash::from_hex(ca).ok_or_else(|| TokenError::CaHash(ca.chars().take(80).collect()))?;
        JoinToken::new(ca, id, secret)
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "edgebus1.{}.{}.{}", self.ca, self.id, self.secret)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken(edgebus1.{:?}.{}.…)", self.ca, self.id)
    }
}

/// Body of the request.
#[derive(Clone, Serialize, Deserialize)]
pub struct EnrolRequest {
    pub token_id: String,
    pub token_secret: String,
    /// The name asked for; the certificate is for exactly the name the token authorises.
    pub node: String,
    /// PKCS #10, PEM: its signature proves possession of the key.
    pub csr_pem: String,
    /// X25519 public key to which secrets for this node are sealed, base64.
    pub sealing_pub: String,
}

/// Body of the answer with status 200.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EnrolReply {
    /// Certificate chain, leaf first.
    pub cert_pem: String,
    pub ca_pem: String,
    /// uid of kube-system, to be pinned.
    pub cluster_id: String,
    pub node: String,
}

/// Body of an answer with status 4xx or 5xx.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EnrolError {
    /// A short word for programs: `bad-token`, `name-taken`, `forbidden-name`, …
    pub error: String,
    /// A sentence for people.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_form() {
        let token = JoinToken::new(Hash::of_bytes(b"ca"), "abcd", "0123456789abcdef").unwrap();
        assert_eq!(token.to_string().parse::<JoinToken>().unwrap(), token);
        assert!(!format!("{token:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn a_bad_token_says_which_part_is_wrong() {
        let ca = Hash::of_bytes(b"ca").to_hex();
        for (text, part) in [
            ("", "four parts"),
            ("a.b.c.d.e.f.g.h", "four parts"),
            ("kubeadm.a.b.c", "starts with edgebus1"),
            ("edgebus1.zz.abcd.0123456789abcdef", "CA hash"),
            (&format!("edgebus1.{ca}.É.0123456789abcdef"), "id"),
            (&format!("edgebus1.{ca}.abcd.short"), "secret"),
        ] {
            let error = text.parse::<JoinToken>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
