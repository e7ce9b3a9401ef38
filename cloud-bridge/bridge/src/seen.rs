//! A DeviceStatus as the bridge reads it back: whose it is, and which twin it was made from. Everything else
//! in it may be as it likes, so that one odd object never spoils a list.

use std::borrow::Cow;

use edgebus_linkproto::Hash;
use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope, ObjectMeta};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::mirror::StatusRef;

/// Key in `status.extensions`.
const SEEN: &str = "edgebus.io/seen";

/// What stands in `status.extensions` of a status made from that twin.
pub fn extensions(uid: &str, hash: &Hash) -> Value {
    json!({ SEEN: { "uid": uid, "hash": hash } })
}

/// See the module.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Status {
    #[serde(default)]
    extensions: Option<Extensions>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Extensions {
    #[serde(default, rename = "edgebus.io/seen")]
    seen: Value,
}

impl Seen {
    /// What the mirror keeps of it.
    pub fn about(&self) -> StatusRef {
        let mut owners = self.metadata.owner_references.iter().flatten();
        let owner = owners.find(|owner| owner.kind == "Device");
        let extensions = self.status.as_ref().and_then(|s| s.extensions.as_ref());
        let seen = extensions.map(|extensions| &extensions.seen);
        let hash = seen.and_then(|seen| Hash::from_hex(seen["hash"].as_str()?));
        let uid = seen.and_then(|seen| seen["uid"].as_str());
        StatusRef {
            uid: self.metadata.uid.clone().unwrap_or_default(),
            owner: owner.map(|owner| owner.uid.clone()).unwrap_or_default(),
            seen: hash.map(|hash| (uid.unwrap_or_default().to_owned(), hash)),
        }
    }
}

impl Resource for Seen {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(of: &ApiResource) -> Cow<'_, str> {
        of.kind.as_str().into()
    }

    fn group(of: &ApiResource) -> Cow<'_, str> {
        of.group.as_str().into()
    }

    fn version(of: &ApiResource) -> Cow<'_, str> {
        of.version.as_str().into()
    }

    fn plural(of: &ApiResource) -> Cow<'_, str> {
        of.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> StatusRef {
        serde_json::from_value::<Seen>(value).unwrap().about()
    }

    #[test]
    fn what_was_written_is_read_back() {
        let hash = Hash::of_bytes(b"x");
        let about = read(json!({
            "metadata": { "uid": "s", "ownerReferences": [
                { "apiVersion": "v1", "kind": "Other", "name": "o", "uid": "o" },
                { "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "name": "p", "uid": "u" },
            ] },
            "status": { "twins": [], "extensions": extensions("u", &hash) },
        }));
        assert_eq!((about.uid.as_str(), about.owner.as_str()), ("s", "u"));
        assert_eq!(about.seen, Some(("u".to_owned(), hash)));
    }

    #[test]
    fn an_odd_status_is_read_as_one_that_says_nothing() {
        for status in [
            json!(null),
            json!({}),
            json!({ "extensions": null }),
            json!({ "extensions": { SEEN: "x" } }),
            json!({ "extensions": { SEEN: { "hash": "zz" } } }),
        ] {
            assert_eq!(
                read(json!({ "metadata": {}, "status": status })),
                StatusRef::default()
            );
        }
    }
}
