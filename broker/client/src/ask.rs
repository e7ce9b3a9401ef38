//! Questions and answers: `sys/{c}/ask` and `/tell`, and device calls. The id is in the payload.

use crate::bus::Bus;
use crate::error::{Error, Result};
use crate::message::Message;
use edgebus_bus::payload::{Ask, Call, CallDone, Object, Tell};
use edgebus_bus::{Name, Topic};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;

impl Bus {
    /// Asks component `c` and waits for its answer.
    pub async fn ask(&self, c: &Name, op: &str, args: Object, wait: Duration) -> Result<Tell> {
        let question = Ask {
            id: crate::random_id(),
            op: op.to_owned(),
            args,
        };
        let (ask, tell) = (Topic::Ask { c: c.clone() }, Topic::Tell { c: c.clone() });
        let mine = |answer: &Tell| answer.id == question.id;
        self.request(&ask, &question, &tell, mine, wait).await
    }

    /// Calls a method of a device: on a twin as an app does, or on a mapper as devicetwin does.
    pub async fn call(
        &self,
        topic: &Topic,
        done: &Topic,
        call: &Call,
        wait: Duration,
    ) -> Result<CallDone> {
        let mine = |answer: &CallDone| answer.id == call.id;
        self.request(topic, call, done, mine, wait).await
    }

    /// Publishes a question once the subscription to its answer stands, and waits for the first
    /// answer that is `mine`.
    pub async fn request<Q, A>(
        &self,
        topic: &Topic,
        question: &Q,
        answers: &Topic,
        mine: impl Fn(&A) -> bool,
        wait: Duration,
    ) -> Result<A>
    where
        Q: Serialize,
        A: DeserializeOwned,
    {
        let exchange = async {
            let mut stream = self.subscribe([answers.to_string()]).await?;
            stream.granted().await?;
            self.send(topic, question).await?;
            while let Some(message) = stream.next().await {
                // Somebody else's answer need not be readable to us.
                if let Ok(answer) = message?.read::<A>()
                    && mine(&answer)
                {
                    return Ok(answer);
                }
            }
            Err(Error::Closed)
        };
        let late = |_| {
            Err(Error::NoAnswer {
                topic: answers.to_string(),
                waited: wait,
            })
        };
        timeout(wait, exchange).await.unwrap_or_else(late)
    }
}

/// Answers the questions that every unit answers.
pub(crate) async fn answer(bus: Bus) {
    let ask = Topic::Ask {
        c: bus.name().clone(),
    };
    let tell = Topic::Tell {
        c: bus.name().clone(),
    };
    let Ok(mut questions) = bus.subscribe([ask.to_string()]).await else {
        return;
    };
    while let Some(question) = questions.next().await {
        let question = match question.and_then(|m: Message| m.read::<Ask>()) {
            Ok(question) => question,
            Err(error) => {
                tracing::warn!(%error, "unreadable question");
                continue;
            }
        };
        let said = operate(&bus, &question);
        let answer = Tell {
            id: question.id,
            ok: said.is_ok(),
            why: said.as_ref().err().cloned(),
            data: said.unwrap_or_default(),
        };
        if let Err(error) = bus.send(&tell, &answer).await {
            tracing::warn!(%error, "answer not sent");
        }
    }
}

fn operate(bus: &Bus, question: &Ask) -> std::result::Result<serde_json::Value, String> {
    match question.op.as_str() {
        "ping" => Ok(json!({ "boot": bus.boot(), "pid": std::process::id() })),
        "log-level" => {
            let level = question.args.get("level").and_then(|l| l.as_str());
            let level = level.ok_or("args.level is missing: error, warn, info, debug, trace, or a filter such as `info,edgebus_link=debug`")?;
            crate::log::set(level)?;
            Ok(json!({ "level": level }))
        }
        "dump" => {
            let status = bus.status().borrow().clone();
            let mut data = json!({
                "boot": bus.boot(),
                "connects": status.connects,
                "last_error": status.last_error,
            });
            if let Some(more) = bus.dump() {
                data["component"] = more;
            }
            Ok(data)
        }
        other => Err(format!("op {other:?} is not one of ping, log-level, dump")),
    }
}
