//! GET of a collection: selectors, pages, resource versions.

use super::Api;
use super::selector::{Fields, Labels};
use crate::error::{ApiError, Result};
use crate::http::Query;
use crate::meta::{name, namespace};
use crate::registry::Resource;
use crate::store::{Key, Packed};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub labels: Labels,
    pub fields: Fields,
    pub limit: Option<usize>,
    pub from: Option<Continue>,
    pub version: Option<u64>,
    pub exact: bool,
}

/// Where a paged list goes on, and the version its first page had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continue {
    pub rev: u64,
    pub ns: String,
    pub name: String,
}

impl Continue {
    fn encode(&self) -> String {
        let start = match self.ns.as_str() {
            "" => format!("{}\0", self.name),
            ns => format!("{ns}/{}\0", self.name),
        };
        URL_SAFE_NO_PAD
            .encode(json!({"v": "meta.k8s.io/v1", "rv": self.rev, "start": start}).to_string())
    }

    pub(super) fn decode(text: &str) -> Option<Continue> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
        let token: Value = serde_json::from_slice(&bytes).ok()?;
        if token["v"] != "meta.k8s.io/v1" {
            return None;
        }
        let start = token["start"].as_str()?.strip_suffix('\0')?;
        let (ns, name) = start.split_once('/').unwrap_or(("", start));
        Some(Continue {
            rev: token["rv"].as_u64()?,
            ns: ns.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// `resourceVersion`: nothing and "0" ask for no version in particular.
pub(super) fn version(query: &Query) -> Result<Option<u64>> {
    match query.get("resourceVersion") {
        None | Some("0") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            ApiError::bad_request(format!("invalid resource version {text:?}: not a number"))
        }),
    }
}

impl ListOptions {
    pub fn parse(query: &Query, resource: &Resource) -> Result<ListOptions> {
        let from = query
            .get("continue")
            .map(|text| {
                Continue::decode(text)
                    .ok_or_else(|| ApiError::bad_request("continue key is not valid"))
            })
            .transpose()?;
        let limit = query.number("limit")?.filter(|l| *l > 0);
        Ok(ListOptions {
            labels: Labels::parse(query.get("labelSelector").unwrap_or(""))?,
            fields: Fields::parse(query.get("fieldSelector").unwrap_or(""), &resource.fields)?,
            limit: limit.and_then(|l| usize::try_from(l).ok()),
            from,
            version: version(query)?,
            exact: query.get("resourceVersionMatch") == Some("Exact"),
        })
    }

    pub fn matches(&self, object: &Packed) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }
}

/// One page.
#[derive(Debug)]
pub struct Listed {
    pub objects: Vec<Arc<Packed>>,
    pub rev: u64,
    pub next: Option<String>,
    pub remaining: Option<usize>,
}

impl Api {
    pub async fn list(
        &self,
        resource: &Arc<Resource>,
        ns: Option<&str>,
        options: &ListOptions,
    ) -> Result<Listed> {
        let (mut objects, mut rev) = match (ns, options.fields.name()) {
            // A list or a watch of one name, as `kubectl wait` does, costs one look-up.
            (ns, Some(name)) if ns.is_some() || !resource.namespaced => {
                let (_, rev) = self.store.list("", None, None).await?;
                let key = Key::new(&resource.storage, ns.unwrap_or(""), name);
                let found = self.store.get_packed(&key).await?;
                (found.into_iter().collect(), rev)
            }
            _ => {
                let after = options
                    .from
                    .as_ref()
                    .map(|f| (f.ns.clone(), f.name.clone()));
                self.store.list(&resource.storage, ns, after).await?
            }
        };
        if let Some(asked) = options.version {
            if asked > rev {
                let mut error = ApiError::timeout(format!(
                    "Too large resource version: {asked}, current: {rev}"
                ));
                error.code = StatusCode::GATEWAY_TIMEOUT;
                error.details = Some(json!({"causes": [{"reason": "ResourceVersionTooLarge",
                    "message": "Too large resource version"}], "retryAfterSeconds": 1}));
                return Err(error);
            }
            if options.exact && asked < rev {
                return Err(ApiError::expired(asked, rev));
            }
        }
        if let Some(from) = &options.from {
            // Later pages keep the first page's version: a watch from it repeats what
            // changed in between, and misses nothing.
            rev = from.rev;
        }
        if !options.labels.is_empty() || !options.fields.is_empty() {
            objects.retain(|o| options.matches(o));
        }
        let mut listed = Listed {
            objects,
            rev,
            next: None,
            remaining: None,
        };
        if let Some(limit) = options.limit.filter(|l| listed.objects.len() > *l) {
            let left = listed.objects.len() - limit;
            listed.objects.truncate(limit);
            listed.remaining =
                (options.labels.is_empty() && options.fields.is_empty()).then_some(left);
            listed.next = listed.objects.last().map(|last| {
                let last = last.unpack().value;
                let (ns, name) = (namespace(&last), name(&last));
                Continue {
                    rev,
                    ns: ns.to_owned(),
                    name: name.to_owned(),
                }
                .encode()
            });
        }
        Ok(listed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continue_token_says_where_to_go_on() {
        let from = Continue {
            rev: 226,
            ns: "default".into(),
            name: "web".into(),
        };
        assert_eq!(Continue::decode(&from.encode()), Some(from));
        for bad in ["", "x", "e30", "!!!"] {
            assert_eq!(Continue::decode(bad), None, "{bad}");
        }
    }
}
