//! Messages that nobody may miss: the broker keeps them until they are acknowledged here.

use crate::error::Result;
use crate::ledger::Token;
use crate::message::Message;
use crate::options::ConnectOptions;
use crate::queue::Fifo;
use crate::session::{self, Command, Shared, Status};
use crate::subs::Sink;
use edgebus_bus::table;
use std::ops::Deref;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// The inbox of a component, on its own connection `{name}.inbox`.
///
/// A handler must be idempotent: after a crash, here or of the broker, the messages that were not
/// acknowledged come again.
pub struct Inbox {
    queue: Arc<Fifo>,
    status: watch::Receiver<Status>,
    // Held so that the session sees an open channel until the inbox is dropped.
    _commands: mpsc::Sender<Command>,
    stop: CancellationToken,
}

impl Inbox {
    pub(crate) fn open(
        options: &ConnectOptions,
        stop: &CancellationToken,
        will: Option<Message>,
    ) -> Self {
        let mut options = options.clone();
        let filters = table::inbox_filters(options.name.as_str());
        options.client_id = format!("{}.inbox", options.name);
        // The main connection speaks for the component.
        options.is_unit = false;
        let queue = Arc::new(Fifo::default());
        let (commands, receive) = mpsc::channel(1);
        if !filters.is_empty() {
            let command = Command::Subscribe {
                id: 1,
                filters,
                sink: Sink::Inbox(queue.clone()),
            };
            commands
                .try_send(command)
                .expect("the channel is new and has room for one");
        }
        let (said, status) = watch::channel(Status::default());
        let stop = stop.child_token();
        tokio::spawn(session::run(
            session::Config {
                options,
                boot: crate::random_id(),
                keep_session: true,
                will,
            },
            receive,
            Arc::new(Shared::default()),
            said,
            stop.clone(),
        ));
        Self {
            queue,
            status,
            _commands: commands,
            stop,
        }
    }

    /// The next message; `None` once the bus is closed. An error is the broker's refusal.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Delivery>> {
        match self.queue.take().await? {
            Ok((message, token)) => Some(Ok(Delivery { message, token })),
            Err(e) => Some(Err(e)),
        }
    }

    /// Waits until the broker has granted the subscription.
    pub async fn granted(&self) -> Result<()> {
        self.queue.granted().await
    }

    /// Whether there is a connection.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A message out of the inbox. One that is dropped without [`ack`](Self::ack) stays with the
/// broker, and so do the acknowledgements of those after it (MQTT wants them in order): they come
/// again at the next connect.
#[must_use = "it comes again unless it is acknowledged"]
pub struct Delivery {
    /// The message.
    pub message: Message,
    token: Option<Arc<Token>>,
}

impl Delivery {
    /// What was derived from it is acknowledged: the broker may forget it.
    pub fn ack(self) {
        if let Some(token) = &self.token {
            token.done();
        }
    }

    /// Splits it, so that the acknowledgement can travel with what was derived.
    pub fn into_parts(self) -> (Message, Acknowledge) {
        (self.message, Acknowledge { token: self.token })
    }
}

impl Deref for Delivery {
    type Target = Message;
    fn deref(&self) -> &Message {
        &self.message
    }
}

/// The right to acknowledge a delivery.
#[must_use = "the message comes again unless it is acknowledged"]
pub struct Acknowledge {
    token: Option<Arc<Token>>,
}

impl Acknowledge {
    /// What was derived from it is acknowledged: the broker may forget it.
    pub fn ack(self) {
        if let Some(token) = &self.token {
            token.done();
        }
    }
}
