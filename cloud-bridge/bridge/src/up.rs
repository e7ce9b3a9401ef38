//! What a node sends up, into Kubernetes: checked against the certificate, written, and only then acknowledged.

use std::sync::Arc;

use edgebus_bus::{NodeName, Topic, payload};
use edgebus_linkproto::{Code, Kind, Put};

use crate::cluster::{api_code, api_status};
use crate::metrics::count;
use crate::mirror::Key;
use crate::shared::Shared;
use crate::{device, event};

/// Why something was not written. `permanent`: the same bytes never will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    pub why: String,
    pub permanent: bool,
}

impl Refusal {
    pub fn never(code: Code, why: impl Into<String>) -> Refusal {
        Refusal {
            code,
            why: why.into(),
            permanent: true,
        }
    }

    pub fn later(why: impl Into<String>) -> Refusal {
        Refusal {
            code: Code::UNAVAILABLE,
            why: why.into(),
            permanent: false,
        }
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Refusal {
        let code = api_code(&error).unwrap_or(503);
        let ending = api_status(&error).is_some_and(|status| {
            let causes = status.details.iter().flat_map(|details| &details.causes);
            code == 403
                && (causes
                    .into_iter()
                    .any(|cause| cause.reason == "NamespaceTerminating")
                    || status.message.contains("being terminated"))
        });
        Refusal {
            code: Code(code),
            why: format!("{error:#}"),
            permanent: ending || Code(code).is_permanent(),
        }
    }
}

/// Writes one state or event.
pub async fn apply(shared: Arc<Shared>, node: NodeName, put: Put) -> Result<(), Refusal> {
    let result = match (put.kind.as_str(), Topic::parse(&put.topic)) {
        (_, Err(error)) => Err(Refusal::never(Code::INVALID, error.to_string())),
        (Kind::TWIN, Ok(Topic::Twin { ns, name })) => {
            let key = Key::new(ns.as_str(), name.as_str());
            device::write(&shared, &node, &key, &put).await
        }
        (Kind::EVENT, Ok(Topic::Event { c })) => match payload::read(&put.body) {
            Ok(event) => event::write(&shared, &node, c.as_str(), event).await,
            Err(error) => Err(unreadable(&put, &error)),
        },
        (kind, Ok(_)) => {
            let why = format!("a node may not write {kind} on {:?}", put.topic);
            Err(Refusal::never(Code::FORBIDDEN, why))
        }
    };
    if let Err(refusal) = &result {
        refused(&shared, &node, &put.topic, refusal);
    }
    result
}

/// Removes what belonged to a topic that is empty now.
pub async fn remove(
    shared: Arc<Shared>,
    node: NodeName,
    kind: Kind,
    topic: Arc<str>,
) -> Result<(), Refusal> {
    let result = match (kind.as_str(), Topic::parse(&topic)) {
        (Kind::TWIN, Ok(Topic::Twin { ns, name })) => {
            device::remove(&shared, &node, &Key::new(ns.as_str(), name.as_str())).await
        }
        // Nothing in Kubernetes stands for it.
        _ => Ok(()),
    };
    if let Err(refusal) = &result {
        refused(&shared, &node, &topic, refusal);
    }
    result
}

pub fn unreadable(put: &Put, error: &payload::PayloadError) -> Refusal {
    Refusal::never(Code::UNPROCESSABLE, format!("{}: {error}", put.topic))
}

fn refused(shared: &Shared, node: &NodeName, topic: &str, refusal: &Refusal) {
    if refusal.permanent {
        count(&shared.metrics.nacks_permanent);
        tracing::warn!(
            node = node.as_str(),
            topic,
            code = refusal.code.0,
            "refused: {}",
            refusal.why
        );
    } else {
        count(&shared.metrics.nacks_transient);
        tracing::debug!(
            node = node.as_str(),
            topic,
            code = refusal.code.0,
            "not now: {}",
            refusal.why
        );
    }
}
