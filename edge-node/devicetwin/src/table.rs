//! A sorted list used as a map. A device has few properties, and a thousand devices are kept: a
//! BTreeMap would reserve eleven places in each.

/// Values by name, sorted by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Table<T>(Vec<(Box<str>, T)>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Table<T> {
    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(key, _)| (**key).cmp(name))
    }
    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&T> {
        Some(&self.0[self.find(name).ok()?].1)
    }
    /// The value of this name, to change.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut T> {
        let at = self.find(name).ok()?;
        Some(&mut self.0[at].1)
    }
    /// Whether there is one of this name.
    pub fn contains_key(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }
    /// Sets the value of this name.
    pub fn insert(&mut self, name: &str, value: T) {
        match self.find(name) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => {
                self.0.reserve_exact(1);
                self.0.insert(at, (name.into(), value));
            }
        }
    }
    /// Takes the value of this name away.
    pub fn remove(&mut self, name: &str) {
        if let Ok(at) = self.find(name) {
            self.0.remove(at);
        }
    }
    /// Keeps those for which `keep` holds.
    pub fn retain(&mut self, keep: impl Fn(&str, &T) -> bool) {
        self.0.retain(|(name, value)| keep(name, value));
    }
    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }
    /// Names in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(name, _)| name)
    }
    /// Values in order, to change.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

impl<T: Default> Table<T> {
    /// The value of this name, made if there is none.
    pub fn or_default(&mut self, name: &str) -> &mut T {
        let at = match self.find(name) {
            Ok(at) => at,
            Err(at) => {
                self.0.reserve_exact(1);
                self.0.insert(at, (name.into(), T::default()));
                at
            }
        };
        &mut self.0[at].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_sorted_map() {
        let mut table = Table::default();
        for name in ["b", "a", "c", "b"] {
            table.insert(name, name.to_owned() + "!");
        }
        assert_eq!(table.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(table.get("b").map(String::as_str), Some("b!"));
        table.or_default("aa").push('x');
        assert_eq!(table.get("aa").map(String::as_str), Some("x"));
        table.remove("a");
        table.remove("zz");
        table.retain(|name, _| name != "c");
        assert_eq!(table.keys().collect::<Vec<_>>(), ["aa", "b"]);
        assert!(table.contains_key("b") && table.get_mut("c").is_none());
    }
}
