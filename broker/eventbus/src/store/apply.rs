//! What each job changes, inside the transaction that the writer has begun. Numbers kept in memory
//! change here too; if the transaction fails the writer counts them again.

use std::sync::{Arc, PoisonError};

use super::session::{self, Kept, Opened};
use super::writer::{Done, Fail, Writer};
use super::{Job, Place, Refused, open, queue, retained};
use crate::codec::QoS;
use crate::message::{Message, now_ms, weight};

/// Expired sessions and messages are looked for this often, when there is traffic.
const SWEEP_MS: u64 = 30_000;

impl Writer {
    pub(super) fn apply(&mut self, job: &Job) -> Result<Done, Fail> {
        match job {
            Job::Publish { message, place, .. } => self.publish(message, *place),
            Job::Ack { session, q } => {
                if let Some(size) = queue::remove(&self.db, *session, *q)?
                    && let Some(kept) = self.sessions.get_mut(session)
                {
                    kept.messages = kept.messages.saturating_sub(1);
                    kept.bytes = kept.bytes.saturating_sub(size);
                }
                Ok(Done::Nothing)
            }
            Job::Subscribe {
                session,
                wish,
                replay,
                ..
            } => {
                session::subscribe(&self.db, *session, wish, *replay)?;
                Ok(Done::Nothing)
            }
            Job::Unsubscribe {
                session, filter, ..
            } => Ok(Done::Flag(session::unsubscribe(
                &self.db, *session, filter,
            )?)),
            Job::Replayed { session, filter } => {
                session::replayed(&self.db, *session, filter)?;
                Ok(Done::Nothing)
            }
            Job::Open {
                key, clean, keep, ..
            } => self.open(key, *clean, *keep),
            Job::Leave { session, expiry_s } => {
                self.leave(*session, *expiry_s)?;
                Ok(Done::Nothing)
            }
            Job::Forget { name } => {
                let of_name =
                    |(id, k): (&u64, &Kept)| (k.name() == &**name && !k.inbox).then_some(*id);
                let ids: Vec<u64> = self.sessions.iter().filter_map(of_name).collect();
                for id in ids {
                    self.drop_session(id)?;
                }
                Ok(Done::Nothing)
            }
            Job::Flush => {
                if self.dirty {
                    // Any change will do: committing it with fsync covers all that is before it.
                    open::set_meta(&self.db, "flushed", "")?;
                }
                self.sweep()?;
                Ok(Done::Nothing)
            }
            Job::Retained { .. } | Job::Queued { .. } | Job::Stop { .. } => Ok(Done::Nothing),
        }
    }

    fn publish(&mut self, message: &Message, place: Place) -> Result<Done, Fail> {
        let hits = {
            let standing = self.standing.read().unwrap_or_else(PoisonError::into_inner);
            standing.hits(
                &message.topic,
                message.qos,
                message.retain,
                &message.publisher,
            )
        };
        let size = weight(message);
        let app = (place != Place::Nowhere && message.topic.starts_with("app/"))
            .then(|| retained::size(&self.db, &message.topic))
            .transpose()?;
        let app_after = app.map(|old| {
            let new = match message.payload.len() {
                0 => 0,
                payload => message.topic.len() + payload,
            };
            (self.app_bytes + new).saturating_sub(old)
        });
        if let Some(after) = app_after
            && after > self.limits.app_bytes
            && after > self.app_bytes
        {
            return Err(Fail::Refused(Refused::AppQuota(self.limits.app_bytes)));
        }
        for hit in &hits {
            if let Some(kept) = self.sessions.get(&hit.session)
                && kept.inbox
                && over(kept, self.limits.inbox, size)
            {
                let name = kept.name().into();
                return Err(Fail::Refused(Refused::InboxFull(name)));
            }
        }
        let mut n = 0;
        if let Place::Disk(_) = place {
            self.commit += 1;
            n = self.commit;
        }
        let mut mails = Vec::with_capacity(hits.len());
        for hit in hits {
            let Some(kept) = self.sessions.get_mut(&hit.session) else {
                continue;
            };
            if hit.qos == QoS::AtMostOnce {
                mails.push((hit, 0));
                continue;
            }
            if !kept.inbox && over(kept, self.limits.session, size) {
                self.counters.session_dropped.up();
                if !kept.dropping {
                    kept.dropping = true;
                    tracing::warn!(session = %kept.key, "a session's quota is full: messages for it are dropped");
                }
                continue;
            }
            kept.dropping = false;
            let q = kept.next_q;
            queue::push(&self.db, message, &hit, q, n)?;
            kept.next_q += 1;
            kept.messages += 1;
            kept.bytes += size;
            mails.push((hit, q));
        }
        if let Place::Disk(_) = place {
            if message.payload.is_empty() {
                retained::clear(&self.db, &message.topic)?;
            } else {
                retained::put(&self.db, message, n)?;
            }
            if let Some(after) = app_after {
                self.app_bytes = after;
            }
        }
        Ok(Done::Stamped(n, mails))
    }

    fn open(&mut self, key: &Arc<str>, clean: bool, keep: bool) -> Result<Done, Fail> {
        let found = self.sessions.iter().find(|(_, k)| k.key == *key);
        let now = now_ms();
        let expired = |k: &Kept| !k.inbox && k.expires_ms.is_some_and(|at| at <= now);
        let found = found.map(|(id, k)| (*id, k.inbox, clean || expired(k)));
        if let Some((id, false, true)) = found {
            self.drop_session(id)?;
        }
        match found {
            Some((id, inbox, clean)) if !clean || inbox => {
                session::mark(&self.db, id, None)?;
                if let Some(kept) = self.sessions.get_mut(&id) {
                    kept.expires_ms = None;
                }
                return Ok(Done::Opened(Opened {
                    session: id,
                    present: true,
                    inbox,
                    wishes: session::wishes(&self.db, id)?,
                }));
            }
            _ if !keep => return Ok(Done::Opened(Opened::default())),
            _ => {}
        }
        let name = session::name_of(key);
        let held = self.sessions.values().filter(|k| k.name() == name).count();
        if held >= self.limits.sessions_per_name {
            return Err(Fail::Refused(Refused::Sessions(name.into(), held)));
        }
        let id = session::create(&self.db, key)?;
        let kept = Kept {
            key: key.clone(),
            inbox: false,
            messages: 0,
            bytes: 0,
            next_q: 1,
            old_q: 1,
            expires_ms: None,
            dropping: false,
        };
        self.sessions.insert(id, kept);
        Ok(Done::Opened(Opened {
            session: id,
            ..Opened::default()
        }))
    }

    fn leave(&mut self, id: u64, expiry_s: u32) -> rusqlite::Result<()> {
        let Some(kept) = self.sessions.get_mut(&id) else {
            return Ok(());
        };
        if expiry_s == 0 && !kept.inbox {
            return self.drop_session(id);
        }
        let now = now_ms();
        kept.expires_ms = Some(now + u64::from(expiry_s) * 1000);
        session::mark(&self.db, id, Some((now, expiry_s)))
    }

    fn drop_session(&mut self, id: u64) -> rusqlite::Result<()> {
        session::delete(&self.db, id)?;
        self.sessions.remove(&id);
        let mut standing = self
            .standing
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        standing.remove_session(id);
        Ok(())
    }

    fn sweep(&mut self) -> rusqlite::Result<()> {
        let now = now_ms();
        if now < self.swept_ms + SWEEP_MS {
            return Ok(());
        }
        self.swept_ms = now;
        let late = |(id, k): (&u64, &Kept)| {
            (!k.inbox && k.expires_ms.is_some_and(|at| at <= now)).then_some(*id)
        };
        let expired: Vec<u64> = self.sessions.iter().filter_map(late).collect();
        for id in expired {
            self.drop_session(id)?;
        }
        retained::sweep(&self.db)?;
        self.app_bytes = retained::app_bytes(&self.db)?;
        Ok(())
    }
}

fn over(kept: &Kept, (messages, bytes): (usize, usize), size: usize) -> bool {
    kept.messages >= messages || kept.bytes + size > bytes
}
