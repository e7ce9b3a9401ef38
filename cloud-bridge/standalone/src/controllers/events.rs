//! Events are news: old ones are deleted.

use super::delete;
use crate::error::Result;
use crate::meta::text;
use crate::ops::Api;
use crate::registry::EVENTS;
use crate::time;
use std::sync::Arc;
use std::time::Duration;

pub async fn run(api: Arc<Api>, ttl: Duration) {
    let period = (ttl / 12).clamp(Duration::from_millis(100), Duration::from_secs(60));
    loop {
        tokio::select! {
            () = api.stop.cancelled() => return,
            () = tokio::time::sleep(period) => {}
        }
        if let Err(error) = pass(&api, ttl).await {
            tracing::debug!("deleting old events: {error}");
        }
    }
}

/// An event lives from its last repetition on.
async fn pass(api: &Api, ttl: Duration) -> Result<()> {
    let now = api.now();
    let Some(resource) = now.find("", "v1", "events") else {
        return Ok(());
    };
    let ttl = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
    let at = jiff::Timestamp::now().as_millisecond();
    for event in &api.store.list(EVENTS, None, None).await?.0 {
        let event = event.unpack();
        let last = [
            "/series/lastObservedTime",
            "/lastTimestamp",
            "/eventTime",
            "/metadata/creationTimestamp",
        ]
        .into_iter()
        .filter_map(|pointer| time::parse(text(&event.value, pointer)))
        .map(|t| t.as_millisecond())
        .max();
        if last.is_some_and(|last| at.saturating_sub(last) > ttl) {
            delete(api, resource, &event).await?;
        }
    }
    Ok(())
}
