//! The store's promises: nothing acknowledged is lost, nothing unacknowledged is shown.

use super::*;
use serde_json::json;

fn key(name: &str) -> Key {
    Key::new(&"/configmaps".into(), "default", name)
}

fn object(text: &str) -> Value {
    json!({"metadata": {}, "data": {"x": text}})
}

async fn put(store: &Store, name: &str, text: &str) -> Result<u64, ApiError> {
    let value = object(text);
    let done = store
        .update(&key(name), |_| Ok(Change::Put(value.clone())))
        .await?;
    Ok(done.object.unwrap().rev)
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_restart_and_revisions_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    put(&store, "a", "1").await.unwrap();
    put(&store, "b", "2").await.unwrap();
    let gone = store
        .update(&key("b"), |old| {
            Ok(Change::Delete(old.unwrap().value.clone()))
        })
        .await
        .unwrap();
    assert!(gone.deleted);
    let last = gone.object.unwrap().rev;
    store.close();
    assert!(
        put(&store, "late", "x").await.is_err(),
        "a closed store stores nothing"
    );

    let again = Store::open(dir.path()).unwrap();
    let (objects, rev) = again
        .list("/configmaps", Some("default"), None)
        .await
        .unwrap();
    assert_eq!(objects.len(), 1);
    assert_eq!(objects[0].unpack().value["data"]["x"], "1");
    assert_eq!(rev, last, "a deletion's revision is not given again");
    assert_eq!(put(&again, "c", "3").await.unwrap(), last + 1);
    assert_eq!(again.events("/configmaps", last - 1).unwrap_err().code, 410);
}

#[tokio::test]
async fn writers_of_one_object_do_not_overwrite_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                store
                    .update(&key("n"), |old| {
                        let n = old.map_or(0, |o| o.value["n"].as_i64().unwrap());
                        Ok(Change::Put(json!({"metadata": {}, "n": n + 1})))
                    })
                    .await
                    .unwrap()
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let now = store.get(&key("n")).await.unwrap().unwrap();
    assert_eq!(now.value["n"], 20);
    let (events, _) = store.events("/configmaps", 1).unwrap();
    assert_eq!(events.len(), 20);
    assert!(events.windows(2).all(|w| w[0].object.rev < w[1].object.rev));
    store.close();
}

#[tokio::test]
async fn a_change_that_cannot_be_stored_is_undone_and_its_writer_told() {
    let dir = tempfile::tempdir().unwrap();
    let (db, loaded) = db::open(dir.path()).unwrap();
    db.limit_pages(8).unwrap();
    let store = Store::start(db, loaded).unwrap();
    let first = put(&store, "a", "small").await.unwrap();
    let large = "x".repeat(100_000);
    let error = put(&store, "a", &large).await.unwrap_err();
    assert_eq!(error.code, 500);
    assert!(put(&store, "b", &large).await.is_err());
    let a = store.get(&key("a")).await.unwrap().unwrap();
    assert_eq!((a.rev, &a.value["data"]["x"]), (first, &json!("small")));
    assert!(store.get(&key("b")).await.unwrap().is_none());
    let (events, _) = store.events("/configmaps", first).unwrap();
    assert!(events.is_empty(), "nobody is told of what was undone");
    assert!(
        put(&store, "a", "other").await.unwrap() > first,
        "and it goes on"
    );
    store.close();
}

#[test]
fn an_unreadable_database_is_moved_aside() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("objects.db"),
        b"this is not a database at all",
    )
    .unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.close();
    let aside = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .find(|name| name.contains("unreadable"))
        .unwrap();
    let kept = std::fs::read(dir.path().join(aside)).unwrap();
    assert_eq!(kept, b"this is not a database at all");
}

#[test]
fn one_database_serves_one_server() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert!(matches!(
        Store::open(dir.path()),
        Err(OpenError::Locked { .. })
    ));
    store.close();
}

#[tokio::test]
async fn places_name_each_kind_and_namespace_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    put(&store, "a", "1").await.unwrap();
    put(&store, "b", "1").await.unwrap();
    let places: Vec<_> = store.places().into_iter().collect();
    assert_eq!(places, [("/configmaps".into(), "default".to_owned())]);
    store.close();
}
