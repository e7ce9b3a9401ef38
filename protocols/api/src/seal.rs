//! Sealing: HPKE (RFC 9180, X25519, HKDF-SHA256, ChaCha20-Poly1305, base mode) to a node's key, so
//! that secrets lie on the bus, on disk and in backups as ciphertext only. The topic is
//! authenticated with the content: a box moved to another topic does not open.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use sha2::{Digest, Sha256};

/// Says what the keys are used for: a key of this protocol opens nothing of another's.
const INFO: &[u8] = b"edgebus sealed object v1";
/// Length of keys, and of the encapsulated key in front of the ciphertext.
pub const KEY_BYTES: usize = 32;
/// Largest box, in base64: as large as a message may be.
const BOX_BYTES: usize = 2 * 1024 * 1024;

/// Why a box was not made or not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not a public or private key.
    #[error("a sealing key is {KEY_BYTES} bytes (base64: 44 characters) of an X25519 key")]
    BadKey,
    /// Not a box at all.
    #[error("the box is not base64 of {KEY_BYTES} bytes of key and at least 16 of ciphertext")]
    BadBox,
    /// Sealed to another key, for another topic, or changed on the way.
    #[error("the box does not open for {topic:?} with key {key_id}")]
    DoesNotOpen {
        /// The topic it was found at.
        topic: String,
        /// The key that was tried.
        key_id: String,
    },
    /// The plain text was not sealed.
    #[error("sealing for {topic:?} failed")]
    NotSealed {
        /// The topic.
        topic: String,
    },
}

/// A node's sealing key.
#[derive(Clone)]
pub struct SealingKey {
    private: [u8; KEY_BYTES],
    public: [u8; KEY_BYTES],
}

/// The private half stays out of logs.
impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealingKey")
            .field("key_id", &self.id())
            .finish_non_exhaustive()
    }
}

fn bytes(key: &[u8]) -> Result<[u8; KEY_BYTES], SealError> {
    key.try_into().map_err(|_| SealError::BadKey)
}

impl SealingKey {
    /// A new key from the operating system's random numbers.
    pub fn generate() -> Self {
        let (private, public) = X25519HkdfSha256::gen_keypair();
        Self {
            private: private.to_bytes().into(),
            public: public.to_bytes().into(),
        }
    }

    /// From the private half.
    pub fn from_private(private: &[u8]) -> Result<Self, SealError> {
        let private = bytes(private)?;
        let key = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&private)
            .map_err(|_| SealError::BadKey)?;
        let public = X25519HkdfSha256::sk_to_pk(&key).to_bytes().into();
        Ok(Self { private, public })
    }

    /// From the private half in base64, as a unit's welcome carries it.
    pub fn from_base64(text: &str) -> Result<Self, SealError> {
        let raw = STANDARD
            .decode(text.trim())
            .map_err(|_| SealError::BadKey)?;
        Self::from_private(&raw)
    }

    /// The private half in base64. Keep it secret.
    pub fn private_base64(&self) -> String {
        STANDARD.encode(self.private)
    }

    /// The public half.
    pub fn public(&self) -> [u8; KEY_BYTES] {
        self.public
    }

    /// The public half in base64.
    pub fn public_base64(&self) -> String {
        STANDARD.encode(self.public)
    }

    /// Name of this key: see [`key_id`].
    pub fn id(&self) -> String {
        key_id(&self.public)
    }

    /// Opens what was sealed to this key for `topic`.
    pub fn open(&self, topic: &str, sealed: &str) -> Result<Vec<u8>, SealError> {
        if sealed.len() > BOX_BYTES {
            return Err(SealError::BadBox);
        }
        let raw = STANDARD.decode(sealed).map_err(|_| SealError::BadBox)?;
        if raw.len() < KEY_BYTES + 16 {
            return Err(SealError::BadBox);
        }
        let (encapped, text) = raw.split_at(KEY_BYTES);
        let encapped = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapped)
            .map_err(|_| SealError::BadBox)?;
        let private = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&self.private)
            .map_err(|_| SealError::BadKey)?;
        hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &private,
            &encapped,
            INFO,
            text,
            topic.as_bytes(),
        )
        .map_err(|_| SealError::DoesNotOpen {
            topic: topic.to_owned(),
            key_id: self.id(),
        })
    }
}

/// Name of a key: the first 16 hexadecimal digits of the SHA-256 of its public half.
pub fn key_id(public: &[u8]) -> String {
    Sha256::digest(public)
        .iter()
        .take(8)
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// Reads a public key from base64.
pub fn public_from_base64(text: &str) -> Result<[u8; KEY_BYTES], SealError> {
    let raw = STANDARD
        .decode(text.trim())
        .map_err(|_| SealError::BadKey)?;
    bytes(&raw)
}

/// Seals `plain` to a node's public key for `topic`: base64 of the encapsulated key followed by the
/// ciphertext. Twice the same text gives two different boxes.
pub fn seal(public: &[u8], topic: &str, plain: &[u8]) -> Result<String, SealError> {
    let public =
        <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(public).map_err(|_| SealError::BadKey)?;
    let (encapped, text) =
        hpke::single_shot_seal::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &public,
            INFO,
            plain,
            topic.as_bytes(),
        )
        .map_err(|_| SealError::NotSealed {
            topic: topic.to_owned(),
        })?;
    let mut raw = encapped.to_bytes().to_vec();
    raw.extend_from_slice(&text);
    Ok(STANDARD.encode(raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "sealed/secret/default/plc";

    #[test]
    fn only_the_right_key_opens_it_and_only_at_its_topic() {
        let key = SealingKey::generate();
        let sealed = seal(&key.public(), TOPIC, b"pa55").unwrap();
        assert_eq!(key.open(TOPIC, &sealed).unwrap(), b"pa55");
        assert!(matches!(
            key.open("sealed/secret/default/other", &sealed),
            Err(SealError::DoesNotOpen { .. })
        ));
        assert!(SealingKey::generate().open(TOPIC, &sealed).is_err());
    }

    #[test]
    fn a_changed_or_cut_box_does_not_open_and_nothing_panics() {
        let key = SealingKey::generate();
        let sealed = seal(&key.public(), TOPIC, b"pa55").unwrap();
        let mut raw = STANDARD.decode(&sealed).unwrap();
        let last = raw.len() - 1;
        raw[last] ^= 1;
        assert!(key.open(TOPIC, &STANDARD.encode(&raw)).is_err());
        for bad in ["", "!", "AAAA", &STANDARD.encode([0u8; 64])] {
            assert!(key.open(TOPIC, bad).is_err(), "{bad}");
        }
        assert_eq!(seal(b"short", TOPIC, b""), Err(SealError::BadKey));
        assert!(SealingKey::from_base64("x").is_err());
    }

    #[test]
    fn a_key_survives_its_text_form_and_keeps_its_name() {
        let key = SealingKey::generate();
        let again = SealingKey::from_base64(&key.private_base64()).unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(again.id(), key_id(&key.public()));
        assert_eq!(key.id().len(), 16);
        assert_eq!(
            public_from_base64(&key.public_base64()).unwrap(),
            key.public()
        );
        assert!(!format!("{key:?}").contains(&key.private_base64()));
    }
}
