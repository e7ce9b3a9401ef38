//! Service account tokens: JSON web tokens signed with this server's own key (HS256). A token
//! is good as long as its service account is the same one.

use super::User;
use crate::error::{ApiError, Result};
use crate::meta::{map_at, text, uid};
use crate::registry::SERVICE_ACCOUNTS;
use crate::store::{Key, Obj, Store};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const KEY_BYTES: usize = 32;
const DEFAULT_SECONDS: i64 = 3600;
const SHORTEST_SECONDS: i64 = 600;
const LONGEST_SECONDS: i64 = 1 << 32;

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("cannot read the token key {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the token key {path} has {size} bytes instead of {KEY_BYTES}")]
    Size { path: PathBuf, size: usize },
    #[error("cannot write the token key {path}")]
    Write {
        path: PathBuf,
        source: crate::pki::FileError,
    },
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

/// Mints and verifies tokens.
pub struct Tokens {
    key: [u8; KEY_BYTES],
}

impl Tokens {
    /// Loads the key from `path`, or makes one there.
    pub fn open(path: &Path) -> std::result::Result<Tokens, TokenError> {
        match std::fs::read(path) {
            Ok(bytes) => {
                let size = bytes.len();
                let key = bytes.try_into().map_err(|_| TokenError::Size {
                    path: path.to_owned(),
                    size,
                })?;
                Ok(Tokens { key })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut key = [0; KEY_BYTES];
                getrandom::fill(&mut key).map_err(TokenError::Random)?;
                crate::pki::write_private(path, &key).map_err(|source| TokenError::Write {
                    path: path.to_owned(),
                    source,
                })?;
                Ok(Tokens { key })
            }
            Err(source) => Err(TokenError::Read {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// HMAC-SHA256 (RFC 2104).
    fn mac(&self, message: &[u8]) -> [u8; 32] {
        let mut block = [0u8; 64];
        block[..KEY_BYTES].copy_from_slice(&self.key);
        let pad = |with: u8| block.map(|b| b ^ with);
        let inner = Sha256::new()
            .chain_update(pad(0x36))
            .chain_update(message)
            .finalize();
        Sha256::new()
            .chain_update(pad(0x5c))
            .chain_update(inner)
            .finalize()
            .into()
    }

    /// Answers a TokenRequest for a service account: the request with its status.
    pub fn request(&self, account: &Obj, mut request: Value) -> Result<Value> {
        let seconds = request["spec"]["expirationSeconds"]
            .as_i64()
            .unwrap_or(DEFAULT_SECONDS);
        if !(SHORTEST_SECONDS..=LONGEST_SECONDS).contains(&seconds) {
            let cause = crate::schema::Cause::invalid(
                "spec.expirationSeconds",
                &seconds.to_string(),
                "may not specify a duration less than 10 minutes",
            );
            return Err(ApiError::invalid(
                "authentication.k8s.io",
                "TokenRequest",
                "",
                &[cause],
            ));
        }
        let now = jiff::Timestamp::now();
        let until = jiff::Timestamp::from_second(now.as_second() + seconds).unwrap_or(now);
        let (ns, name) = (
            text(&account.value, "/metadata/namespace"),
            text(&account.value, "/metadata/name"),
        );
        let audiences = match request["spec"]["audiences"].as_array() {
            Some(list) if !list.is_empty() => Value::Array(list.clone()),
            _ => json!([ISSUER]),
        };
        let claims = json!({
            "aud": audiences,
            "exp": until.as_second(),
            "iat": now.as_second(),
            "nbf": now.as_second(),
            "iss": ISSUER,
            "jti": uuid::Uuid::new_v4().to_string(),
            "kubernetes.io": {
                "namespace": ns,
                "serviceaccount": {"name": name, "uid": uid(&account.value)},
            },
            "sub": format!("system:serviceaccount:{ns}:{name}"),
        });
        let token = self.sign(&claims);
        request["kind"] = json!("TokenRequest");
        request["apiVersion"] = json!("authentication.k8s.io/v1");
        request["metadata"] = json!({"name": name, "namespace": ns,
            "creationTimestamp": crate::time::seconds(now)});
        let spec = map_at(&mut request, "spec");
        spec.insert("audiences".into(), audiences);
        spec.insert("expirationSeconds".into(), json!(seconds));
        request["status"] = json!({"token": token,
            "expirationTimestamp": crate::time::seconds(until)});
        Ok(request)
    }

    fn sign(&self, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!(
            "{}.{}",
            part(&json!({"alg": "HS256", "typ": "JWT"})),
            part(claims)
        );
        let signature = URL_SAFE_NO_PAD.encode(self.mac(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// The claims of a token that this server signed and that has not expired.
    fn claims(&self, token: &str) -> Option<Value> {
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let wanted = self.mac(signed.as_bytes());
        // Compared in constant time, so that a signature cannot be guessed byte by byte.
        let difference = wanted
            .iter()
            .zip(&signature)
            .fold(0, |sum, (a, b)| sum | (a ^ b));
        if signature.len() != wanted.len() || difference != 0 {
            return None;
        }
        let (header, claims) = signed.split_once('.')?;
        let json = |part: &str| -> Option<Value> {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
        };
        if json(header)?["alg"] != "HS256" {
            return None;
        }
        let claims = json(claims)?;
        let now = jiff::Timestamp::now().as_second();
        (claims["exp"].as_i64()? > now).then_some(claims)
    }

    /// The user of a token; `None` if it is not good (any more).
    pub async fn verify(&self, store: &Store, token: &str) -> Result<Option<User>> {
        let Some(claims) = self.claims(token) else {
            return Ok(None);
        };
        let ns = text(&claims, "/kubernetes.io/namespace");
        let name = text(&claims, "/kubernetes.io/serviceaccount/name");
        let key = Key::new(&SERVICE_ACCOUNTS.into(), ns, name);
        let Some(account) = store.get(&key).await? else {
            return Ok(None);
        };
        if uid(&account.value) != text(&claims, "/kubernetes.io/serviceaccount/uid") {
            return Ok(None);
        }
        Ok(Some(User::authenticated(
            format!("system:serviceaccount:{ns}:{name}"),
            uid(&account.value).to_owned(),
            vec![
                "system:serviceaccounts".into(),
                format!("system:serviceaccounts:{ns}"),
            ],
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_until_it_expires_or_is_changed() {
        let tokens = Tokens { key: [7; 32] };
        let now = jiff::Timestamp::now().as_second();
        let good = tokens.sign(&json!({"exp": now + 60, "sub": "me"}));
        assert_eq!(tokens.claims(&good).unwrap()["sub"], "me");
        let old = tokens.sign(&json!({"exp": now - 1}));
        assert!(tokens.claims(&old).is_none());
        let other = Tokens { key: [8; 32] };
        assert!(other.claims(&good).is_none());
        for bad in ["", ".", "a.b.c", &good[1..], &good[..good.len() - 1]] {
            assert!(tokens.claims(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_mac_is_hmac_sha256() {
        // RFC 4231 test case 2 has a 4-byte key; zero padding makes it a 32-byte one.
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let mac = Tokens { key }.mac(b"what do ya want for nothing?");
        assert_eq!(mac[..4], [0x5b, 0xdc, 0xc1, 0x46]);
    }
}
