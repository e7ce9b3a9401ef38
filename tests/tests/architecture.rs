//! Who may import whom, and a few rules that no lint knows.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Package → its folder and normal dependencies.
fn packages() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let out = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--manifest-path",
        ])
        .arg(root().join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let metadata: Value = serde_json::from_slice(&out.stdout).unwrap();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let mut all = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let folder = Path::new(package["manifest_path"].as_str().unwrap())
            .parent()
            .unwrap()
            .to_owned();
        let folder = folder
            .strip_prefix(root())
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let deps = package["dependencies"].as_array().unwrap();
        let deps = deps
            .iter()
            .filter(|d| d["kind"].is_null())
            .map(|d| text(&d["name"]))
            .collect();
        all.insert(text(&package["name"]), (folder, deps));
    }
    all
}

#[test]
fn crates_import_only_what_their_place_allows() {
    let all = packages();
    let folder = |name: &str| all.get(name).map(|(f, _)| f.as_str());
    for (name, (place, deps)) in &all {
        if place == "tests" || place == "edge-node/edgebus" {
            continue;
        }
        for dep in deps {
            let Some(to) = folder(dep) else { continue };
            let allowed = match place.as_str() {
                p if p.starts_with("protocols/") => to.starts_with("protocols/"),
                "broker/client" | "broker/eventbus" | "broker/warden" => {
                    to.starts_with("protocols/")
                }
                p if p.starts_with("mappers/") && p != "mappers/sdk" => {
                    to.starts_with("protocols/") || to == "mappers/sdk"
                }
                p if p.starts_with("cloud-bridge/") => to.starts_with("protocols/"),
                _ => to.starts_with("protocols/") || to == "broker/client",
            };
            assert!(allowed, "{name} ({place}) must not import {dep} ({to})");
        }
    }
}

#[test]
fn each_heavy_crate_stays_behind_its_owner() {
    let owners: &[(&str, &[&str])] = &[
        ("rumqttd", &["broker/eventbus"]),
        ("rumqttc", &["broker/client"]),
        ("kube", &["cloud-bridge/bridge", "tests"]),
        (
            "rusqlite",
            &[
                "broker/eventbus",
                "edge-node/link",
                "cloud-bridge/standalone",
            ],
        ),
        ("tokio-modbus", &["mappers/modbus", "edge-node/edgebus"]),
        ("tokio-serial", &["mappers/modbus"]),
    ];
    for (name, (place, deps)) in &packages() {
        for (heavy, allowed) in owners {
            assert!(
                !deps.contains(*heavy) || allowed.contains(&place.as_str()),
                "{name} must not import {heavy}"
            );
        }
        if place.starts_with("protocols/") {
            for io in ["tokio", "rusqlite", "rustls", "hyper", "rustix", "libc"] {
                assert!(!deps.contains(io), "{name} is pure: no {io}");
            }
        }
    }
}

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && name != ".git" {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn the_sources_keep_the_house_rules() {
    let mut files = Vec::new();
    for top in [
        "broker",
        "cloud-bridge",
        "edge-node",
        "mappers",
        "protocols",
    ] {
        sources(&root().join(top), &mut files);
    }
    assert!(files.len() > 50, "only {} files found", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let shown = file.strip_prefix(root()).unwrap().display().to_string();
        let text = std::fs::read_to_string(&file).unwrap();
        let test = shown.contains("/tests")
            || shown.contains("/examples/")
            || shown.contains("/benches/")
            || shown.ends_with("tests.rs");
        let code = if test {
            ""
        } else {
            text.split("#[cfg(test)]").next().unwrap_or("")
        };
        if code.contains("\"edge/v1") && !shown.starts_with("protocols/bus/") {
            wrong.push(format!(
                "{shown}: a raw bus topic; build it with edgebus_bus::Topic"
            ));
        }
        if !test && text.lines().count() > 800 {
            wrong.push(format!(
                "{shown}: {} lines; 800 are too many",
                text.lines().count()
            ));
        }
        for mark in ["todo!(", "unimplemented!(", "dbg!("] {
            if code.contains(mark) {
                wrong.push(format!("{shown}: {mark}"));
            }
        }
        if !text.starts_with("//!") && !shown.ends_with("build.rs") && !test {
            wrong.push(format!(
                "{shown}: does not say what it is for in its first line"
            ));
        }
        if code.contains("Command::new(\"sh\")") || code.contains("Command::new(\"bash\")") {
            wrong.push(format!("{shown}: starts a shell"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
