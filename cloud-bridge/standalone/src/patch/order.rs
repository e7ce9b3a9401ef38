//! The order of a merged list: the elements that the patch names stand in its order, the
//! others keep their place relative to what was there before.

use std::collections::BTreeMap;

use serde_json::Value;

/// Where elements go that are new in the list, next to those that the patch leaves alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum New {
    /// A strategic merge patch puts them first.
    First,
    /// Server-side apply puts them last.
    Last,
}

/// The places of elements in a list, by identity.
pub(crate) fn places<K: Ord>(ids: impl IntoIterator<Item = K>) -> BTreeMap<K, usize> {
    let mut places = BTreeMap::new();
    for (place, id) in ids.into_iter().enumerate() {
        places.entry(id).or_insert(place);
    }
    places
}

/// Merges `named` (already in the wanted order) with `others` (in their old order).
/// `before` has the places in the list as it was.
pub(crate) fn interleave<K: Ord>(
    named: Vec<(K, Value)>,
    others: Vec<(K, Value)>,
    before: &BTreeMap<K, usize>,
    new: New,
) -> Vec<Value> {
    // How much of the old list has been passed when each named element is put.
    let mut passed: Vec<usize> = Vec::with_capacity(named.len());
    let mut next_known = usize::MAX;
    for (id, _) in named.iter().rev() {
        match (before.get(id), new) {
            (Some(place), _) => {
                next_known = next_known.min(*place);
                passed.push(*place);
            }
            (None, New::First) => passed.push(0),
            (None, New::Last) => passed.push(next_known),
        }
    }
    let mut list = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for (_, item) in named {
        let passed = passed.pop().unwrap_or_default();
        while let Some((_, other)) =
            others.next_if(|(id, _)| before.get(id).is_some_and(|place| *place < passed))
        {
            list.push(other);
        }
        list.push(item);
    }
    list.extend(others.map(|(_, item)| item));
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(named: &[u32], others: &[u32], before: &[u32], new: New) -> Vec<Value> {
        let list = |ids: &[u32]| ids.iter().map(|n| (*n, Value::from(*n))).collect();
        let before = places(before.iter().copied());
        interleave(list(named), list(others), &before, new)
    }

    #[test]
    fn elements_keep_their_place_around_the_named_ones() {
        type Row = (
            &'static [u32],
            &'static [u32],
            &'static [u32],
            &'static [u32],
            &'static [u32],
        );
        let rows: &[Row] = &[
            (&[1, 2], &[], &[2, 1], &[1, 2], &[1, 2]),
            (&[9], &[1, 2], &[1, 2], &[9, 1, 2], &[1, 2, 9]),
            (&[2, 9], &[1, 3], &[1, 2, 3], &[1, 2, 9, 3], &[1, 2, 3, 9]),
            (&[9, 3], &[1, 2], &[1, 2, 3], &[9, 1, 2, 3], &[1, 2, 9, 3]),
        ];
        for (named, others, before, first, last) in rows {
            assert_eq!(run(named, others, before, New::First), *first);
            assert_eq!(run(named, others, before, New::Last), *last);
        }
    }
}
