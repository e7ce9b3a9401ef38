//! The queue of one live connection, bounded by count and by bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::message::{Delivery, Message};
use crate::codec::QoS;

/// Names a link while it is registered; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub(super) u64);

/// What happens to a message of QoS 1 or 2 that finds the queue full. One of QoS 0 is always
/// dropped and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFull {
    /// Drop it and count it in [`Link::dropped`].
    Drop,
    /// Close the link: the queue ends after what it holds, so that the connection can be closed
    /// instead of losing a message silently.
    Close,
}

/// Bounds of a link's queue. An idle queue takes 0.6 KB whatever its bounds.
#[derive(Debug, Clone, Copy)]
pub struct Queue {
    pub messages: usize,
    /// Topics and payloads. A single larger message is taken when the queue is empty.
    pub bytes: usize,
    pub on_full: OnFull,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            messages: 4096,
            bytes: 4 << 20,
            on_full: OnFull::Close,
        }
    }
}

#[derive(Debug, Default)]
struct Gauge {
    bytes: AtomicUsize,
    dropped: AtomicU64,
}

fn weight(message: &Message) -> usize {
    message.topic.len() + message.payload.len() + 64
}

/// The receiving end: what the router has for one connection.
#[derive(Debug)]
pub struct Link {
    id: LinkId,
    queue: mpsc::Receiver<Delivery>,
    gauge: Arc<Gauge>,
}

impl Link {
    pub fn id(&self) -> LinkId {
        self.id
    }

    /// The next message; `None` after the link was closed or the router stopped. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Delivery> {
        let delivery = self.queue.recv().await?;
        Some(self.took(delivery))
    }

    /// The next message if there is one now.
    pub fn try_recv(&mut self) -> Option<Delivery> {
        let delivery = self.queue.try_recv().ok()?;
        Some(self.took(delivery))
    }

    /// How many messages were dropped because this queue was full.
    pub fn dropped(&self) -> u64 {
        self.gauge.dropped.load(Ordering::Relaxed)
    }

    /// Messages waiting.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn took(&self, delivery: Delivery) -> Delivery {
        let weight = weight(&delivery.message);
        self.gauge.bytes.fetch_sub(weight, Ordering::Relaxed);
        delivery
    }
}

/// The router's end.
pub(super) struct Outlet {
    queue: mpsc::Sender<Delivery>,
    gauge: Arc<Gauge>,
    max_bytes: usize,
    on_full: OnFull,
}

/// What became of a delivery.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Offer {
    Taken,
    Dropped,
    /// The queue is full and its owner wants to know.
    Full,
    /// The receiver is gone.
    Gone,
}

pub(super) fn pair(id: LinkId, queue: Queue) -> (Outlet, Link) {
    let (sender, receiver) = mpsc::channel(queue.messages.max(1));
    let gauge = Arc::new(Gauge::default());
    let outlet = Outlet {
        queue: sender,
        gauge: gauge.clone(),
        max_bytes: queue.bytes,
        on_full: queue.on_full,
    };
    let link = Link {
        id,
        queue: receiver,
        gauge,
    };
    (outlet, link)
}

impl Outlet {
    pub(super) fn offer(&self, delivery: Delivery) -> Offer {
        let reliable = delivery.message.qos != QoS::AtMostOnce;
        let weight = weight(&delivery.message);
        // Counted before sending, so that the receiver never takes off what is not yet there.
        let before = self.gauge.bytes.fetch_add(weight, Ordering::Relaxed);
        let full = before != 0 && before + weight > self.max_bytes;
        let sent = if full {
            Err(TrySendError::Full(delivery))
        } else {
            self.queue.try_send(delivery)
        };
        let Err(error) = sent else {
            return Offer::Taken;
        };
        self.gauge.bytes.fetch_sub(weight, Ordering::Relaxed);
        match error {
            TrySendError::Closed(_) => Offer::Gone,
            TrySendError::Full(_) if reliable && self.on_full == OnFull::Close => Offer::Full,
            TrySendError::Full(_) => {
                self.gauge.dropped.fetch_add(1, Ordering::Relaxed);
                Offer::Dropped
            }
        }
    }
}
