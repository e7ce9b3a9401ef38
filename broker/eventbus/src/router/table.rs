//! Which link holds which filter. Pure: the pump applies commands to it in their order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::link::{LinkId, Outlet};
use super::message::Matched;

/// A filter that at least one link holds, or is about to. Never 0: rumqttd carries it as an
/// MQTT subscription identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FilterId(pub(super) usize);

struct Entry {
    filter: Arc<str>,
    links: Vec<LinkId>,
}

struct Holder {
    outlet: Outlet,
    filters: HashSet<FilterId>,
}

#[derive(Default)]
pub(super) struct Table {
    ids: HashMap<Arc<str>, FilterId>,
    entries: HashMap<FilterId, Entry>,
    links: HashMap<LinkId, Holder>,
    /// Filters that lost their last link, or never got one; may name ones in use again.
    idle: Vec<FilterId>,
    last_filter: usize,
}

impl Table {
    pub(super) fn add_link(&mut self, id: LinkId, outlet: Outlet) {
        let filters = HashSet::new();
        self.links.insert(id, Holder { outlet, filters });
    }

    pub(super) fn remove_link(&mut self, id: LinkId) {
        let Some(holder) = self.links.remove(&id) else {
            return;
        };
        for filter in holder.filters {
            self.leave(id, filter);
        }
    }

    pub(super) fn has_link(&self, id: LinkId) -> bool {
        self.links.contains_key(&id)
    }

    pub(super) fn outlet(&self, id: LinkId) -> Option<&Outlet> {
        self.links.get(&id).map(|holder| &holder.outlet)
    }

    /// The filter's id, and whether it is new to the table.
    pub(super) fn intern(&mut self, filter: &Arc<str>) -> (FilterId, bool) {
        if let Some(&id) = self.ids.get(filter) {
            return (id, false);
        }
        self.last_filter += 1;
        let id = FilterId(self.last_filter);
        let links = Vec::new();
        let entry = Entry {
            filter: filter.clone(),
            links,
        };
        self.ids.insert(filter.clone(), id);
        self.entries.insert(id, entry);
        self.idle.push(id);
        (id, true)
    }

    /// True if the link did not hold the filter; `None` if there is no such link.
    pub(super) fn join(&mut self, link: LinkId, filter: &Arc<str>) -> Option<bool> {
        let (id, _) = self.intern(filter);
        let new = self.links.get_mut(&link)?.filters.insert(id);
        if new && let Some(entry) = self.entries.get_mut(&id) {
            entry.links.push(link);
        }
        Some(new)
    }

    /// True if the link held the filter; `None` if there is no such link.
    pub(super) fn part(&mut self, link: LinkId, filter: &str) -> Option<bool> {
        let holder = self.links.get_mut(&link)?;
        let Some(&id) = self.ids.get(filter) else {
            return Some(false);
        };
        let held = holder.filters.remove(&id);
        if held {
            self.leave(link, id);
        }
        Some(held)
    }

    fn leave(&mut self, link: LinkId, filter: FilterId) {
        if let Some(entry) = self.entries.get_mut(&filter) {
            entry.links.retain(|other| *other != link);
            if entry.links.is_empty() {
                self.idle.push(filter);
            }
        }
    }

    /// Forgets the filters that nobody holds and returns them.
    pub(super) fn sweep(&mut self) -> Vec<(FilterId, Arc<str>)> {
        let mut swept = Vec::new();
        for id in std::mem::take(&mut self.idle) {
            if self.entries.get(&id).is_some_and(|e| e.links.is_empty())
                && let Some(entry) = self.entries.remove(&id)
            {
                self.ids.remove(&entry.filter);
                swept.push((id, entry.filter));
            }
        }
        swept
    }

    /// Who gets a message that matched `hits`: each link once, with its own filters.
    pub(super) fn receivers(&self, hits: &[FilterId], out: &mut Vec<(LinkId, Matched)>) {
        out.clear();
        if let [hit] = hits {
            if let Some(entry) = self.entries.get(hit) {
                let matched = || Matched::One(entry.filter.clone());
                out.extend(entry.links.iter().map(|link| (*link, matched())));
            }
            return;
        }
        let mut pairs: Vec<(LinkId, &Arc<str>)> = Vec::new();
        for entry in hits.iter().filter_map(|hit| self.entries.get(hit)) {
            pairs.extend(entry.links.iter().map(|link| (*link, &entry.filter)));
        }
        pairs.sort_unstable();
        for group in pairs.chunk_by(|a, b| a.0 == b.0) {
            let matched = match group {
                [(_, one)] => Matched::One((*one).clone()),
                many => Matched::Many(many.iter().map(|(_, f)| (*f).clone()).collect()),
            };
            out.push((group[0].0, matched));
        }
    }

    pub(super) fn filters(&self) -> impl Iterator<Item = (&Arc<str>, FilterId)> {
        self.ids.iter().map(|(filter, id)| (filter, *id))
    }

    pub(super) fn filter_count(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn link_count(&self) -> usize {
        self.links.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::link::{Link, Queue, pair};
    use super::*;

    fn table(links: &[u64]) -> (Table, Vec<Link>) {
        let mut table = Table::default();
        let kept = links
            .iter()
            .map(|&id| {
                let (outlet, link) = pair(LinkId(id), Queue::default());
                table.add_link(LinkId(id), outlet);
                link
            })
            .collect();
        (table, kept)
    }

    #[test]
    fn overlapping_filters_of_one_link_give_one_delivery() {
        let (mut table, _links) = table(&[1, 2]);
        let all: Arc<str> = "#".into();
        let a: Arc<str> = "a".into();
        assert_eq!(table.join(LinkId(1), &all), Some(true));
        assert_eq!(table.join(LinkId(1), &a), Some(true));
        assert_eq!(table.join(LinkId(1), &a), Some(false));
        assert_eq!(table.join(LinkId(2), &a), Some(true));
        let hits = [table.intern(&all).0, table.intern(&a).0];
        let mut out = Vec::new();
        table.receivers(&hits, &mut out);
        assert_eq!(out.len(), 2);
        assert_eq!(out[0].1.iter().collect::<Vec<_>>(), ["#", "a"]);
        assert_eq!(out[1].1, Matched::One(a));
    }

    #[test]
    fn a_filter_is_swept_when_its_last_link_leaves() {
        let (mut table, _links) = table(&[1, 2]);
        let a: Arc<str> = "a".into();
        table.join(LinkId(1), &a);
        table.join(LinkId(2), &a);
        assert!(table.sweep().is_empty());
        assert_eq!(table.part(LinkId(1), "a"), Some(true));
        assert_eq!(table.part(LinkId(1), "a"), Some(false));
        assert!(table.sweep().is_empty());
        table.remove_link(LinkId(2));
        assert_eq!(table.sweep(), [(FilterId(1), a)]);
        assert_eq!(table.filter_count(), 0);
    }

    #[test]
    fn a_filter_left_and_taken_again_is_not_swept() {
        let (mut table, _links) = table(&[1]);
        let a: Arc<str> = "a".into();
        table.join(LinkId(1), &a);
        table.part(LinkId(1), "a");
        table.join(LinkId(1), &a);
        assert!(table.sweep().is_empty());
    }

    #[test]
    fn a_link_that_is_not_there_holds_nothing() {
        let (mut table, _links) = table(&[]);
        assert_eq!(table.join(LinkId(9), &"a".into()), None);
        assert_eq!(table.part(LinkId(9), "a"), None);
        assert_eq!(table.sweep().len(), 1);
    }
}
