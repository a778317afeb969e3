//! A folder and an S3 server, asked the same things. `SPORTELLO_TEST_S3` names the server: `bash .ci/s3 cargo nextest
//! run` starts one for the whole run. Without it, the test starts it itself.

use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::process::{Child, Command, Stdio};

use tokio::runtime::Handle;

use super::*;

/// What every place must do.
async fn keeps_what_it_is_given(objects: &Objects) {
    let files = tempfile::tempdir().unwrap();
    // Longer than two parts, and not a multiple of them.
    let long: Vec<u8> = (0..2 * PART + 12_345).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let path = files.path().join("long");
    fs::write(&path, &long).unwrap();
    let mut sent = 0;
    objects.put_file("session-1/originals/long.webm", &path, &mut |bytes| sent += bytes).await.unwrap();
    let length = u64::try_from(long.len()).unwrap();
    assert_eq!(sent, length);
    fs::write(&path, b"short").unwrap();
    objects.put_file("session-1/manifest.json", &path, &mut |_| {}).await.unwrap();
    objects.put_bytes("session-1/empty", Bytes::new()).await.unwrap();
    objects.put_bytes("session-10/other", Bytes::from_static(b"x")).await.unwrap();

    let mut read = 0;
    let digest = objects.digest("session-1/originals/long.webm", &mut |bytes| read += bytes).await.unwrap();
    let sha256 = hex::encode(aws_lc_rs::digest::digest(&SHA256, &long));
    assert_eq!((digest, read), (Digest { bytes: length, sha256 }, length));
    assert_eq!(objects.get("session-1/manifest.json").await.unwrap(), "short");
    assert_eq!(objects.get("session-1/empty").await.unwrap(), "");
    let range = objects.get_range("session-1/originals/long.webm", 250..260).await.unwrap();
    assert_eq!(range, long[250..260]);

    let listed = objects.list("session-1").await.unwrap();
    let names: Vec<_> = listed.iter().map(|object| (object.path.as_str(), object.bytes)).collect();
    assert_eq!(
        names,
        [("session-1/empty", 0), ("session-1/manifest.json", 5), ("session-1/originals/long.webm", length)],
        "and nothing of session-10"
    );

    let (reader, runtime) = (objects.clone(), Handle::current());
    let expected = long.clone();
    tokio::task::spawn_blocking(move || {
        let mut reader = ObjectReader::open(&reader, "session-1/originals/long.webm", &runtime).unwrap();
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert!(bytes == expected);
        reader.seek(SeekFrom::End(-5)).unwrap();
        bytes.clear();
        reader.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, expected[expected.len() - 5..]);
        assert!(reader.seek(SeekFrom::Current(-i64::MAX)).is_err());
    })
    .await
    .unwrap();

    objects.put_bytes("session-1/manifest.json", Bytes::from_static(b"again")).await.unwrap();
    assert_eq!(objects.get("session-1/manifest.json").await.unwrap(), "again");
    assert_eq!(objects.delete_prefix("session-1").await.unwrap(), 3);
    assert_eq!(objects.delete_prefix("session-1").await.unwrap(), 0);
    let missing = objects.get("session-1/manifest.json").await;
    assert!(matches!(missing, Err(ObjectError::Missing { .. })), "{missing:?}");
    assert!(matches!(objects.length("session-1/empty").await, Err(ObjectError::Missing { .. })));
    assert_eq!(objects.get("session-10/other").await.unwrap(), "x");
    assert!(objects.get("../outside").await.is_err());
    assert!(objects.put_bytes("a/../../outside", Bytes::new()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_keeps_what_it_is_given() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("made/at/the start");
    let url = Url::from_directory_path(&folder).unwrap().to_string();
    let objects = Objects::open(&ObjectsConfig { url, access_key: None }).unwrap();
    keeps_what_it_is_given(&objects).await;
    assert_eq!(objects.local_path("session-10/other"), Some(folder.join("session-10/other")));
    assert_eq!(fs::read(folder.join("session-10/other")).unwrap(), b"x");
    let kept: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(kept, ["session-10"], "no empty folders stay behind");
}

#[tokio::test]
async fn what_cannot_be_read_is_not_stored() {
    let place = tempfile::tempdir().unwrap();
    let objects = Objects::in_folder(place.path()).unwrap();
    let stored = objects.put_file("session-1/x", &place.path().join("nowhere"), &mut |_| {}).await;
    assert!(matches!(stored, Err(ObjectError::File { .. })));
    assert_eq!(objects.list("session-1").await.unwrap(), []);
}

#[test]
fn places_that_are_none_are_refused_with_a_reason() {
    for (url, reason) in [
        ("packages", "relative URL"),
        ("ftp://host/x", "ftp: is neither"),
        ("s3:///x", "names no bucket"),
        ("s3://bucket/x?reigon=eu", "«reigon» is no setting"),
    ] {
        let said = Objects::open(&ObjectsConfig { url: url.into(), access_key: None }).unwrap_err().to_string();
        assert!(said.contains(reason), "{url}: {said}");
    }
    let shown =
        format!("{:?}", ObjectsConfig { url: "s3://b".into(), access_key: Some(("id".into(), "secret".into())) });
    assert!(!shown.contains("secret"), "{shown}");
}

/// A server that speaks S3 and checks signatures: `SPORTELLO_TEST_S3` names one, else `.ci/s3` starts it.
struct S3Server {
    address: String,
    child: Option<Child>,
}

impl S3Server {
    fn find() -> Self {
        if let Ok(address) = std::env::var("SPORTELLO_TEST_S3") {
            return Self { address, child: None };
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/s3");
        let mut child = Command::new("bash")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash is here");
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        assert!(!address.is_empty(), "bash .ci/s3 starts a server");
        Self { address: address.trim().into(), child: Some(child) }
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // At the end of its input it ends the server, and itself.
            drop(child.stdin.take());
            let _ended = child.wait();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_keeps_what_it_is_given() {
    let server = S3Server::find();
    // Tests share the bucket: each takes a place of its own in it.
    let place = uuid::Uuid::now_v7();
    let bucket = |secret: &str| ObjectsConfig {
        url: format!(
            "s3://packages/{place}/node-1?endpoint=http://{}&region=eu-south-1&allow_http=true",
            server.address
        ),
        access_key: Some(("test-key".into(), secret.into())),
    };
    let objects = Objects::open(&bucket("test-secret")).unwrap();
    assert_eq!((objects.place(), objects.local_path("x")), (format!("s3://packages/{place}/node-1").as_str(), None));
    keeps_what_it_is_given(&objects).await;
    let above = ObjectsConfig { url: bucket("").url.replace("/node-1", ""), ..bucket("test-secret") };
    let listed = Objects::open(&above).unwrap().list("node-1").await.unwrap();
    let paths: Vec<_> = listed.iter().map(|object| object.path.as_str()).collect();
    assert_eq!(paths, ["node-1/session-10/other"], "below the prefix");

    let stranger = Objects::open(&bucket("guessed")).unwrap();
    let refused = stranger.put_bytes("session-2/x", Bytes::from_static(b"x")).await;
    assert!(matches!(&refused, Err(ObjectError::Failed { .. })), "{refused:?}");
    assert_eq!(objects.list("session-2").await.unwrap(), []);
}
