//! One subscription of a session: how far it is, and where its messages go.

use crate::error::Error;
use crate::ledger::Token;
use crate::message::Message;
use crate::queue::{Coalesced, Fifo};
use crate::wire::Refusal;
use edgebus_bus::filter;
use std::sync::Arc;

/// Where the messages of a subscription go.
pub(crate) enum Sink {
    Collection(Arc<Coalesced>),
    Stream(Arc<Fifo>),
    Inbox(Arc<Fifo>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not asked for on this connection.
    New,
    /// SUBSCRIBE is under way with this packet id.
    Asked(u16),
    /// The echo that ends the listing is under way.
    Listing,
    Live,
    Refused,
}

pub(crate) struct Sub {
    pub filters: Vec<String>,
    pub sink: Sink,
    pub phase: Phase,
}

impl Sub {
    /// The broker has answered. True = an echo is to be sent.
    pub fn granted(&mut self, echo: &str, refusals: Vec<Refusal>) -> bool {
        // The echo filter may stand before ours.
        let before = refusals.len().saturating_sub(self.filters.len());
        let refused = refusals.into_iter().enumerate().find_map(|(at, refusal)| {
            let (code, reason) = refusal?;
            let filter = match at.checked_sub(before) {
                Some(n) => self.filters.get(n).cloned().unwrap_or_default(),
                None => echo.to_owned(),
            };
            Some(Error::SubscribeRefused {
                filter,
                code,
                reason,
            })
        });
        if let Some(error) = refused {
            self.phase = Phase::Refused;
            match &self.sink {
                Sink::Collection(queue) => queue.fail(error),
                Sink::Stream(queue) | Sink::Inbox(queue) => queue.fail(error),
            }
            return false;
        }
        match &self.sink {
            Sink::Collection(_) => {
                self.phase = Phase::Listing;
                true
            }
            Sink::Stream(queue) | Sink::Inbox(queue) => {
                self.phase = Phase::Live;
                queue.set_ready();
                false
            }
        }
    }

    /// Takes a message if it is ours. True = the handler acknowledges it.
    pub fn take(&self, message: &Message, is_state: bool, token: Option<&Arc<Token>>) -> bool {
        let ours = |f: &String| filter::matches(f, &message.topic);
        if !self.filters.iter().any(ours) {
            return false;
        }
        match &self.sink {
            Sink::Collection(queue) => {
                if is_state {
                    let payload = (!message.payload.is_empty()).then(|| message.payload.clone());
                    queue.put(&message.topic, payload);
                }
                false
            }
            Sink::Stream(queue) => {
                queue.push(message.clone(), || token.cloned());
                false
            }
            Sink::Inbox(queue) => {
                queue.push_held(message.clone(), token.cloned());
                true
            }
        }
    }
}
