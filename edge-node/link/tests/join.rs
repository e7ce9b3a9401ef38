//! Joining, against an endpoint with real TLS.

#![allow(clippy::unwrap_used)]

mod cloud;

use std::os::unix::fs::PermissionsExt as _;

use cloud::Cloud;
use edgebus_bus::NodeName;
use edgebus_link::{Identity, JoinError, JoinSpec, Pinned, join, reset};
use edgebus_linkproto::{Hash, JoinToken};

fn spec(cloud: &Cloud, dir: &std::path::Path) -> JoinSpec {
    let mut spec = JoinSpec::new(cloud.server(), cloud.token(), dir);
    spec.node = Some(NodeName::new("gw-1").unwrap());
    spec
}

/// The error with all its causes.
fn text(error: JoinError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

#[tokio::test]
async fn a_token_makes_a_node_whose_files_are_its_own() {
    let cloud = Cloud::start("c-1").await;
    let dir = tempfile::tempdir().unwrap();
    let node = join(spec(&cloud, dir.path())).await.unwrap();
    assert_eq!(node.as_str(), "gw-1");
    for name in ["node.key", "node.crt", "ca.crt", "sealing.key", "node.json"] {
        let mode = std::fs::metadata(dir.path().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let pinned = Pinned::load(dir.path()).unwrap();
    assert_eq!(
        (pinned.node.as_str(), pinned.cluster_id.as_str()),
        ("gw-1", "c-1")
    );
    Identity::load(dir.path(), false).unwrap();

    let again = join(spec(&cloud, dir.path())).await.unwrap_err();
    assert!(matches!(&again, JoinError::Joined { node, .. } if node == "gw-1"));
    assert!(text(again).contains("edgebus reset"));

    let sealing = std::fs::read(dir.path().join("sealing.key")).unwrap();
    cloud.change(|state| state.cluster_id = "c-2".into());
    let accepting = JoinSpec {
        accept_cluster: true,
        node: None,
        ..spec(&cloud, dir.path())
    };
    assert_eq!(
        join(accepting).await.unwrap().as_str(),
        "gw-1",
        "the name it had"
    );
    assert_eq!(Pinned::load(dir.path()).unwrap().cluster_id, "c-2");
    let kept = std::fs::read(dir.path().join("sealing.key")).unwrap();
    assert_eq!(kept, sealing, "what lies sealed on the bus still opens");

    for spool in ["link.db", "link.db-wal", "link.db-shm", "link.db.damaged"] {
        std::fs::write(dir.path().join(spool), "events of the old identity").unwrap();
    }
    assert!(reset(dir.path()).unwrap());
    assert!(!reset(dir.path()).unwrap());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn another_ca_than_the_tokens_is_not_spoken_to() {
    let cloud = Cloud::start("c-1").await;
    let dir = tempfile::tempdir().unwrap();
    let mut wrong = spec(&cloud, dir.path());
    wrong.token = JoinToken::new(
        Hash::of_bytes(b"other"),
        cloud::TOKEN_ID,
        cloud::TOKEN_SECRET,
    )
    .unwrap();
    let error = text(join(wrong).await.unwrap_err());
    assert!(
        error.contains("no CA with the hash in the join token"),
        "{error}"
    );
    assert!(!dir.path().join("node.json").exists());
}

#[tokio::test]
async fn the_server_must_be_the_one_that_was_dialled() {
    let cloud = Cloud::start("c-1").await;
    let dir = tempfile::tempdir().unwrap();
    let mut by_address = spec(&cloud, dir.path());
    by_address.server = format!("127.0.0.1:{}", cloud.port);
    let error = text(join(by_address).await.unwrap_err());
    assert!(
        error.contains("not valid for name") || error.contains("NotValidForName"),
        "{error}"
    );
}

#[tokio::test]
async fn a_refusal_is_passed_on_in_the_clouds_words() {
    let cloud = Cloud::start("c-1").await;
    let dir = tempfile::tempdir().unwrap();
    let mut wrong = spec(&cloud, dir.path());
    wrong.token = JoinToken::new(cloud.ca_hash, cloud::TOKEN_ID, "ffffffffffffffff").unwrap();
    let error = text(join(wrong).await.unwrap_err());
    assert!(
        error.ends_with("refused (403 bad-token): no such token"),
        "{error}"
    );
    assert!(!error.contains("ffffffffffffffff"), "{error}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_not_taken() {
    let cloud = Cloud::start("c-1").await;
    cloud.change(|state| state.wrong_name = Some("gw-2".into()));
    let dir = tempfile::tempdir().unwrap();
    let error = text(join(spec(&cloud, dir.path())).await.unwrap_err());
    assert!(error.contains("gw-2") && error.contains("gw-1"), "{error}");
    assert!(!dir.path().join("node.json").exists());
}

#[tokio::test]
async fn nobody_there_is_said_so() {
    let cloud = Cloud::start("c-1").await;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("data/link");
    for (server, said) in [
        ("localhost:1", "localhost:1 cannot be reached"),
        (
            "no-such-host.invalid:1",
            "the name \"no-such-host.invalid\" has no address",
        ),
        ("no host", "server \"no host\": wanted host, host:port"),
    ] {
        let mut nobody = spec(&cloud, &folder);
        nobody.server = server.into();
        let error = text(join(nobody).await.unwrap_err());
        assert!(error.starts_with(said), "{error}");
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 0, "an attempt in vain leaves nothing behind");
    }
}
