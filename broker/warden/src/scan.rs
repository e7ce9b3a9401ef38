//! What comes, changes and goes in `mappers.d/`. The folder is read once a second: cheaper than it
//! sounds, and right on every file system, where inotify is not.

use edgebus_bus::Name;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Changes whenever a file is written, replaced, or its mode or owner changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Print {
    path: PathBuf,
    numbers: [i64; 7],
}

impl Print {
    /// Of the file that `path` leads to.
    pub fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self {
            path: path.to_owned(),
            numbers: [
                meta.dev() as i64,
                meta.ino() as i64,
                meta.size() as i64,
                meta.mtime(),
                meta.mtime_nsec(),
                i64::from(meta.mode()),
                i64::from(meta.uid()),
            ],
        })
    }
}

/// What happened to a mapper's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Added { name: String, path: PathBuf },
    Replaced { name: String },
    Removed { name: String },
}

/// What was found at one time.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub mappers: BTreeMap<String, Print>,
    /// Files that cannot be mappers, and why.
    pub refused: BTreeMap<String, String>,
}

/// The name on the bus of a file: without `mapper-` before and an extension behind.
fn name_of(file: &str) -> Result<Name, String> {
    let name = file.strip_prefix("mapper-").unwrap_or(file);
    let name = name.split_once('.').map_or(name, |(name, _)| name);
    if matches!(
        name,
        "link" | "edged" | "devicetwin" | "broker" | "node" | "viewer" | "app" | "operator"
    ) {
        return Err(format!("{name:?} is the name of a part of edgebus"));
    }
    Name::new(name).map_err(|e| e.to_string())
}

/// Reads the folder. A folder that is not there is empty.
pub(crate) fn list(dir: &Path) -> Found {
    let mut found = Found::default();
    let mut files: Vec<_> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        // What editors, package managers and copies under way leave behind.
        .filter(|f| !f.starts_with('.') && !f.ends_with('~') && !f.contains(".dpkg-"))
        .collect();
    files.sort();
    for file in files {
        let path = dir.join(&file);
        let Some(print) = Print::of(&path) else {
            found.refused.insert(file, "it leads to no file".into());
            continue;
        };
        let mode = print.numbers[5];
        let is_file = mode & 0o170_000 == 0o100_000;
        if !is_file {
            continue;
        }
        if mode & 0o111 == 0 {
            found.refused.insert(file, "it is not executable".into());
            continue;
        }
        match name_of(&file) {
            Ok(name) if found.mappers.contains_key(name.as_str()) => {
                let why = format!(
                    "another file here is the mapper {:?} already",
                    name.as_str()
                );
                found.refused.insert(file, why);
            }
            Ok(name) => {
                found.mappers.insert(name.to_string(), print);
            }
            Err(why) => {
                found.refused.insert(file, why);
            }
        }
    }
    found
}

/// What is running, and what may be in the middle of being copied.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    running: BTreeMap<String, Print>,
    before: Option<BTreeMap<String, Print>>,
}

impl Scan {
    /// Has nothing been found yet?
    pub fn is_new(&self) -> bool {
        self.before.is_none()
    }

    /// Takes what was found; gives what it means. A new or changed file counts once two scans in a
    /// row saw the same, for it may be still being written; at the very first scan at once.
    pub fn step(&mut self, found: BTreeMap<String, Print>) -> Vec<Change> {
        let mut out = Vec::new();
        let first = self.before.is_none();
        let before = self.before.replace(found.clone()).unwrap_or_default();
        let gone = self.running.keys().filter(|n| !found.contains_key(*n));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.running.remove(&name);
            out.push(Change::Removed { name });
        }
        for (name, print) in found {
            if !first && before.get(&name) != Some(&print) {
                continue;
            }
            match self.running.insert(name.clone(), print.clone()) {
                None => out.push(Change::Added {
                    name,
                    path: print.path,
                }),
                Some(old) if old == print => {}
                // Another file of the same name is another program: first this one ends.
                Some(old) if old.path != print.path => {
                    self.running.remove(&name);
                    out.push(Change::Removed { name });
                }
                Some(_) => out.push(Change::Replaced { name }),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn print(path: &str, n: i64) -> Print {
        Print {
            path: path.into(),
            numbers: [n; 7],
        }
    }
    fn found(list: &[(&str, i64)]) -> BTreeMap<String, Print> {
        list.iter()
            .map(|(name, n)| ((*name).to_owned(), print(name, *n)))
            .collect()
    }
    fn added(name: &str) -> Change {
        Change::Added {
            name: name.into(),
            path: name.into(),
        }
    }

    #[test]
    fn what_is_there_at_the_start_runs_at_once_and_what_comes_later_when_it_rests() {
        let mut s = Scan::default();
        assert_eq!(s.step(found(&[("a", 1)])), [added("a")]);
        assert!(s.step(found(&[("a", 1), ("b", 1)])).is_empty());
        assert!(s.step(found(&[("a", 1), ("b", 2)])).is_empty());
        assert_eq!(s.step(found(&[("a", 1), ("b", 2)])), [added("b")]);
    }

    #[test]
    fn a_replaced_file_and_a_removed_one() {
        let mut s = Scan::default();
        s.step(found(&[("a", 1)]));
        assert!(s.step(found(&[("a", 2)])).is_empty());
        let name = || "a".to_owned();
        assert_eq!(
            s.step(found(&[("a", 2)])),
            [Change::Replaced { name: name() }]
        );
        assert_eq!(s.step(found(&[])), [Change::Removed { name: name() }]);
        assert!(s.step(found(&[])).is_empty());
    }

    #[test]
    fn another_file_of_the_same_name_runs_once_the_first_has_ended() {
        let mut s = Scan::default();
        s.step(found(&[("a", 1)]));
        let other = || BTreeMap::from([("a".to_owned(), print("mapper-a", 1))]);
        assert!(s.step(other()).is_empty());
        let name = "a".to_owned();
        assert_eq!(s.step(other()), [Change::Removed { name }]);
        assert!(
            matches!(&s.step(other())[..], [Change::Added { path, .. }] if path.ends_with("mapper-a"))
        );
    }

    #[test]
    fn files_give_names_or_reasons() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, mode| {
            let path = dir.path().join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let bin = put("thermo.py", 0o755);
        symlink(&bin, dir.path().join("mapper-modbus")).unwrap();
        put(".hidden", 0o755);
        put("README.md", 0o644);
        put("edged", 0o755);
        put("Bad_Name", 0o755);
        put("thermo.sh", 0o755);
        let found = list(dir.path());
        let names: Vec<_> = found.mappers.keys().map(String::as_str).collect();
        assert_eq!(names, ["modbus", "thermo"]);
        let refused: Vec<_> = found.refused.keys().map(String::as_str).collect();
        assert_eq!(refused, ["Bad_Name", "README.md", "edged", "thermo.sh"]);
        assert!(list(&dir.path().join("none")).mappers.is_empty());
    }
}
