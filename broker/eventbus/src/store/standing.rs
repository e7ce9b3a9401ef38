//! The subscriptions of persistent sessions, matched before a message is committed, because who
//! must get it later is part of what is committed.

use std::collections::HashMap;
use std::sync::Arc;

use crate::codec::{QoS, topic};

/// A subscription and its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    pub filter: Arc<str>,
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    /// Subscription identifier; 0 = none.
    pub id: u32,
}

/// One session that gets a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    pub session: u64,
    pub qos: QoS,
    pub retain: bool,
    pub ids: Vec<u32>,
}

#[derive(Debug)]
struct Holder {
    session: u64,
    key: Arc<str>,
    /// Takes QoS 0 messages as if they were QoS 1: nothing may be missed.
    inbox: bool,
    wish: Wish,
}

/// Subscriptions by the first level of their filters.
#[derive(Debug, Default)]
pub struct Standing {
    first: HashMap<String, Vec<Holder>>,
    wild: Vec<Holder>,
}

fn first_level(text: &str) -> &str {
    text.split('/').next().unwrap_or_default()
}

impl Standing {
    fn list(&mut self, filter: &str) -> &mut Vec<Holder> {
        match first_level(filter) {
            "+" | "#" => &mut self.wild,
            literal => self.first.entry(literal.to_owned()).or_default(),
        }
    }

    /// Adds or replaces a subscription; true if it is new.
    pub fn add(&mut self, session: u64, key: &Arc<str>, inbox: bool, wish: Wish) -> bool {
        let list = self.list(&wish.filter);
        let same = |h: &&mut Holder| h.session == session && h.wish.filter == wish.filter;
        if let Some(held) = list.iter_mut().find(same) {
            held.wish = wish;
            return false;
        }
        list.push(Holder {
            session,
            key: key.clone(),
            inbox,
            wish,
        });
        true
    }

    /// Removes one; true if it was there.
    pub fn remove(&mut self, session: u64, filter: &str) -> bool {
        let list = self.list(filter);
        let before = list.len();
        list.retain(|h| h.session != session || &*h.wish.filter != filter);
        before != list.len()
    }

    /// Removes all of a session.
    pub fn remove_session(&mut self, session: u64) {
        self.wild.retain(|h| h.session != session);
        for list in self.first.values_mut() {
            list.retain(|h| h.session != session);
        }
        self.first.retain(|_, list| !list.is_empty());
    }

    fn candidates(&self, name: &str) -> impl Iterator<Item = &Holder> {
        let own = self.first.get(first_level(name));
        own.into_iter().flatten().chain(&self.wild)
    }

    /// Whether anybody here wants this topic.
    pub fn wants(&self, name: &str) -> bool {
        self.candidates(name)
            .any(|h| topic::matches(&h.wish.filter, name))
    }

    /// Who gets a message: each session once, with the best of its overlapping subscriptions.
    pub fn hits(&self, name: &str, qos: QoS, retain: bool, publisher: &str) -> Vec<Hit> {
        let mut hits: Vec<Hit> = Vec::new();
        for held in self.candidates(name) {
            let wish = &held.wish;
            if wish.no_local && *held.key == *publisher || !topic::matches(&wish.filter, name) {
                continue;
            }
            let qos = if held.inbox {
                QoS::AtLeastOnce
            } else {
                super::lower(qos, wish.qos)
            };
            let retain = retain && wish.retain_as_published;
            let ids = (wish.id != 0).then_some(wish.id);
            match hits.iter_mut().find(|h| h.session == held.session) {
                Some(hit) => {
                    hit.qos = hit.qos.max(qos);
                    hit.retain |= retain;
                    hit.ids.extend(ids);
                }
                None => hits.push(Hit {
                    session: held.session,
                    qos,
                    retain,
                    ids: ids.into_iter().collect(),
                }),
            }
        }
        hits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(filter: &str, qos: QoS, id: u32) -> Wish {
        Wish {
            filter: filter.into(),
            qos,
            no_local: false,
            retain_as_published: false,
            id,
        }
    }

    #[test]
    fn overlapping_subscriptions_of_one_session_hit_once() {
        let mut s = Standing::default();
        let key: Arc<str> = "app/c".into();
        assert!(s.add(1, &key, false, wish("a/#", QoS::AtMostOnce, 7)));
        assert!(s.add(1, &key, false, wish("+/b", QoS::AtLeastOnce, 8)));
        assert!(!s.add(1, &key, false, wish("a/#", QoS::AtMostOnce, 9)));
        let hits = s.hits("a/b", QoS::AtLeastOnce, false, "x");
        assert_eq!(hits.len(), 1);
        assert_eq!(hits[0].qos, QoS::AtLeastOnce);
        assert_eq!(hits[0].ids, [9, 8]);
        assert!(s.remove(1, "a/#") && !s.remove(1, "a/#"));
        s.remove_session(1);
        assert!(!s.wants("a/b"));
    }

    #[test]
    fn an_inbox_raises_the_quality_and_others_do_not() {
        let mut s = Standing::default();
        s.add(1, &"l/i".into(), true, wish("$hw/#", QoS::AtLeastOnce, 0));
        s.add(2, &"a/b".into(), false, wish("$hw/#", QoS::AtLeastOnce, 0));
        let hits = s.hits("$hw/x", QoS::AtMostOnce, false, "x");
        assert_eq!(hits[0].qos, QoS::AtLeastOnce);
        assert_eq!(hits[1].qos, QoS::AtMostOnce);
        assert!(!s.wants("hw/x"));
    }

    #[test]
    fn no_local_spares_the_publisher() {
        let mut s = Standing::default();
        let mut w = wish("a", QoS::AtLeastOnce, 0);
        w.no_local = true;
        s.add(1, &"n/c".into(), false, w);
        assert!(s.hits("a", QoS::AtLeastOnce, false, "n/c").is_empty());
        assert_eq!(s.hits("a", QoS::AtLeastOnce, false, "n/d").len(), 1);
    }
}
