//! `configs/crds/*.yaml` are what the types say. `UPDATE=1 cargo test -p edgebus-api` writes them.

use serde_json::Value;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../configs/crds")
}

#[test]
fn the_crd_files_are_current() {
    for crd in edgebus_api::crds() {
        let plural = crd["spec"]["names"]["plural"].as_str().unwrap();
        let path = folder().join(format!("{plural}.yaml"));
        let yaml = format!(
            "# Generated from protocols/api. To write it again: UPDATE=1 cargo test -p edgebus-api\n{}",
            serde_saphyr::to_string(&crd).unwrap()
        );
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(folder()).unwrap();
            std::fs::write(&path, &yaml).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        let read: Value = serde_saphyr::from_str(&there).unwrap_or_default();
        assert_eq!(
            read,
            crd,
            "{} is not current: run UPDATE=1 cargo test -p edgebus-api",
            path.display()
        );
    }
}
