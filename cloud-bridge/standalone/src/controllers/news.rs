//! What a controller tells people: an Event on the object it is about. The same news again is
//! counted in the Event that is there.

use super::bootstrap::ensure;
use super::update;
use crate::error::Result;
use crate::meta::{name, namespace, uid};
use crate::ops::Api;
use crate::registry::EVENTS;
use crate::store::Key;
use crate::time;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Who says it, of what, and what.
pub(super) struct News<'a> {
    /// `node-controller`
    pub from: &'a str,
    /// apiVersion and kind of `object`, which may come without them.
    pub of: (&'a str, &'a str),
    pub object: &'a Value,
    pub reason: &'a str,
    pub message: &'a str,
}

pub(super) async fn tell(api: &Api, news: &News<'_>) -> Result<()> {
    let own = name(news.object);
    let ns = match namespace(news.object) {
        "" => "default",
        ns => ns,
    };
    let what = [uid(news.object), news.from, news.reason, news.message].join("\0");
    let digest: String = Sha256::digest(what)[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let event_name = format!("{own}.{digest}");
    let now = time::now();
    let mut about = json!({"apiVersion": news.of.0, "kind": news.of.1, "name": own,
        "uid": uid(news.object)});
    if !namespace(news.object).is_empty() {
        about["namespace"] = json!(ns);
    }
    let event = json!({
        "metadata": {"name": event_name},
        "involvedObject": about,
        "type": "Normal", "reason": news.reason, "message": news.message, "count": 1,
        "firstTimestamp": now, "lastTimestamp": now,
        "source": {"component": news.from},
        "reportingComponent": news.from,
    });
    if ensure(api, ("", "v1", "events"), ns, event).await? {
        return Ok(());
    }
    let known = api.now();
    let Some(resource) = known.find("", "v1", "events") else {
        return Ok(());
    };
    let key = Key::new(&EVENTS.into(), ns, &event_name);
    let Some(told) = api.store.get(&key).await? else {
        return Ok(());
    };
    update(api, resource, &told, |event| {
        event["count"] = json!(event["count"].as_i64().unwrap_or(1).saturating_add(1));
        event["lastTimestamp"] = json!(now);
    })
    .await
}
