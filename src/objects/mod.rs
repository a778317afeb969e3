//! Where sealed packages live: a folder of this machine, or S3, by URL.
//!
//! What is told to be stored is durable: files of the local folder are synced with their folders, and S3 checks the
//! SHA-256 of each part that it takes. Whoever gives up their own copy reads the stored one back first ([`Objects::digest`]).

mod reader;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt as _, WriteMultipart};
use reqwest::Url;

pub use self::reader::ObjectReader;

/// A file is sent in parts of this size; S3 takes none under 5 MiB. Larger parts cost memory, and all of it again when
/// one fails.
const PART: usize = 8 << 20;
/// S3 takes at most 10,000 parts: longer files are sent in larger ones.
const MOST_PARTS: u64 = 9_000;
/// Parts on their way at once. More are faster on a long line, and cost a part's memory each.
const PARTS_AT_ONCE: usize = 3;
/// How much is read at once when an object is read from beginning to end.
const READ: u64 = 8 << 20;

/// Where packages are kept, as it is configured.
#[derive(Clone)]
pub struct ObjectsConfig {
    /// `file:///folder`, or `s3://bucket/prefix?endpoint=…&region=…&allow_http=true`.
    pub url: String,
    /// S3's access key and its secret; `None`: those of the environment (`AWS_ACCESS_KEY_ID` and so on) or of the
    /// machine's role.
    pub access_key: Option<(String, String)>,
}

impl fmt::Debug for ObjectsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectsConfig").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Stored objects. Clones speak to the same place.
#[derive(Clone, Debug)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    place: String,
    folder: Option<PathBuf>,
}

/// An object as a list names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its path, with `/` between parts.
    pub path: String,
    /// Its length.
    pub bytes: u64,
}

/// What was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Its length.
    pub bytes: u64,
    /// SHA-256, hex.
    pub sha256: String,
}

/// Why there is no such place. The configuration's fault.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is no URL, or of another kind.
    #[error("packages are kept at file:///folder or s3://bucket/prefix: {0}")]
    Url(String),
    /// The folder cannot be made.
    #[error("{}: {source}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The client refuses what it was told.
    #[error("{0}")]
    Client(String),
}

/// Why an object was not stored or read.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// There is none.
    #[error("there is no {path} at {place}")]
    Missing {
        /// Its path.
        path: String,
        /// Where was looked.
        place: String,
    },
    /// The file that was to be stored cannot be read. The disk's fault.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The place did not do it. Its fault, or the network's; trying again may help.
    #[error("{path} at {place}: {reason}")]
    Failed {
        /// The object's path.
        path: String,
        /// Where.
        place: String,
        /// What the place or the client says.
        reason: String,
    },
}

impl Objects {
    /// Opens a place; a folder is made if it is not there. Nobody is asked yet.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(config: &ObjectsConfig) -> Result<Self, OpenError> {
        let url = Url::parse(&config.url).map_err(|error| OpenError::Url(error.to_string()))?;
        match url.scheme() {
            "file" => {
                let folder =
                    url.to_file_path().map_err(|()| OpenError::Url("the folder must begin with a slash".into()))?;
                Self::in_folder(&folder)
            }
            "s3" => Self::in_bucket(&url, config.access_key.as_ref()),
            other => Err(OpenError::Url(format!("{other}: is neither"))),
        }
    }

    /// Opens a folder of this machine, which is made, readable by its owner alone, if it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn in_folder(folder: &Path) -> Result<Self, OpenError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let failed = |source| OpenError::Folder { path: folder.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(|error| OpenError::Client(error.to_string()))?;
        let store = Arc::new(store.with_fsync(true).with_automatic_cleanup(true));
        Ok(Self { store, place: folder.display().to_string(), folder: Some(folder.to_owned()) })
    }

    fn in_bucket(url: &Url, access_key: Option<&(String, String)>) -> Result<Self, OpenError> {
        let bucket = url.host_str().filter(|host| !host.is_empty());
        let bucket = bucket.ok_or_else(|| OpenError::Url("it names no bucket".into()))?;
        let mut builder =
            AmazonS3Builder::from_env().with_bucket_name(bucket).with_checksum_algorithm(Checksum::SHA256);
        for (name, value) in url.query_pairs() {
            builder = match name.as_ref() {
                "endpoint" => builder.with_endpoint(value),
                "region" => builder.with_region(value),
                "allow_http" => builder.with_allow_http(value == "true"),
                "virtual_hosted" => builder.with_virtual_hosted_style_request(value == "true"),
                _ => {
                    let known = "there are endpoint, region, allow_http and virtual_hosted";
                    return Err(OpenError::Url(format!("«{name}» is no setting; {known}")));
                }
            };
        }
        if let Some((id, secret)) = access_key {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        }
        let store = builder.build().map_err(|error| OpenError::Client(error.to_string()))?;
        let prefix = Key::parse(url.path().trim_matches('/')).map_err(|error| OpenError::Url(error.to_string()))?;
        let place = format!("s3://{bucket}/{prefix}");
        Ok(Self { store: Arc::new(PrefixStore::new(store, prefix)), place, folder: None })
    }

    /// What people call this place, without secrets.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Where an object lies on this machine's disk, if it does.
    pub fn local_path(&self, path: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(path))
    }

    /// Stores a file, in parts if it is long; another object of the same path is replaced. `progress` is told the bytes
    /// of each part.
    ///
    /// # Errors
    /// [`ObjectError::File`] or [`ObjectError::Failed`]; nothing of it is there then.
    pub async fn put_file(
        &self,
        path: &str,
        file: &Path,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), ObjectError> {
        let unreadable = |source| ObjectError::File { path: file.to_owned(), source };
        let mut source = File::open(file).map_err(unreadable)?;
        let length = source.metadata().map_err(unreadable)?.len();
        let part = PART.max(usize::try_from(length / MOST_PARTS).unwrap_or(usize::MAX));
        let (mut read, mut bytes) = read_part(source, part).await.map_err(unreadable)?;
        source = read;
        if bytes.len() < part {
            let sent = u64::try_from(bytes.len()).unwrap_or(0);
            self.put_bytes(path, bytes.into()).await?;
            progress(sent);
            return Ok(());
        }
        let key = self.key(path)?;
        let upload = self.store.put_multipart(&key).await.map_err(|error| self.failed(path, &error))?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, part);
        while !bytes.is_empty() {
            if let Err(error) = upload.wait_for_capacity(PARTS_AT_ONCE).await {
                let error = self.failed(path, &error);
                // What is half there is the place's to tidy up; the first error says more than the second.
                let _aborted = upload.abort().await;
                return Err(error);
            }
            let sent = u64::try_from(bytes.len()).unwrap_or(0);
            upload.put(bytes.into());
            progress(sent);
            match read_part(source, part).await {
                Ok(next) => (read, bytes) = next,
                Err(source) => {
                    let _aborted = upload.abort().await;
                    return Err(unreadable(source));
                }
            }
            source = read;
        }
        upload.finish().await.map_err(|error| self.failed(path, &error))?;
        Ok(())
    }

    /// Stores bytes.
    ///
    /// # Errors
    /// [`ObjectError::Failed`].
    pub async fn put_bytes(&self, path: &str, bytes: Bytes) -> Result<(), ObjectError> {
        let stored = self.store.put(&self.key(path)?, bytes.into()).await;
        stored.map(drop).map_err(|error| self.failed(path, &error))
    }

    /// The whole object: for small ones.
    ///
    /// # Errors
    /// [`ObjectError::Missing`] or [`ObjectError::Failed`].
    pub async fn get(&self, path: &str) -> Result<Bytes, ObjectError> {
        let got = self.store.get(&self.key(path)?).await.map_err(|error| self.failed(path, &error))?;
        got.bytes().await.map_err(|error| self.failed(path, &error))
    }

    /// A part of an object.
    ///
    /// # Errors
    /// [`ObjectError::Missing`] or [`ObjectError::Failed`].
    pub async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, ObjectError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.store.get_range(&self.key(path)?, range).await.map_err(|error| self.failed(path, &error))
    }

    /// Length of an object.
    ///
    /// # Errors
    /// [`ObjectError::Missing`] or [`ObjectError::Failed`].
    pub async fn length(&self, path: &str) -> Result<u64, ObjectError> {
        self.store.head(&self.key(path)?).await.map(|meta| meta.size).map_err(|error| self.failed(path, &error))
    }

    /// Brings an object into a file, which is durable under its name when this returns, or not there.
    ///
    /// # Errors
    /// Those of reading, and [`ObjectError::File`].
    pub async fn fetch_file(&self, path: &str, file: &Path) -> Result<(), ObjectError> {
        use std::io::Write as _;
        let unwritable = |source| ObjectError::File { path: file.to_owned(), source };
        let part = file.with_extension("part");
        let mut to = File::create(&part).map_err(unwritable)?;
        let (bytes, mut at) = (self.length(path).await?, 0);
        while at < bytes {
            let end = bytes.min(at + READ);
            let block = self.get_range(path, at..end).await?;
            to.write_all(&block).map_err(unwritable)?;
            at = end;
        }
        to.sync_all().and_then(|()| fs::rename(&part, file)).map_err(unwritable)
    }

    /// Reads an object back, all of it, and gives its length and SHA-256.
    ///
    /// # Errors
    /// [`ObjectError::Missing`] or [`ObjectError::Failed`].
    pub async fn digest(&self, path: &str, progress: &mut (dyn FnMut(u64) + Send)) -> Result<Digest, ObjectError> {
        let bytes = self.length(path).await?;
        let (mut context, mut at) = (Context::new(&SHA256), 0);
        while at < bytes {
            let end = bytes.min(at + READ);
            let part = self.get_range(path, at..end).await?;
            context.update(&part);
            at = end;
            progress(u64::try_from(part.len()).unwrap_or(0));
        }
        Ok(Digest { bytes, sha256: hex::encode(context.finish()) })
    }

    /// Everything below a path, in the order of the paths.
    ///
    /// # Errors
    /// [`ObjectError::Failed`].
    pub async fn list(&self, below: &str) -> Result<Vec<Object>, ObjectError> {
        let (mut folders, mut objects) = (vec![self.key(below)?], Vec::new());
        while let Some(folder) = folders.pop() {
            let listed = self.store.list_with_delimiter(Some(&folder)).await;
            let listed = listed.map_err(|error| self.failed(below, &error))?;
            folders.extend(listed.common_prefixes);
            objects.extend(
                listed.objects.into_iter().map(|meta| Object { path: meta.location.to_string(), bytes: meta.size }),
            );
        }
        objects.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(objects)
    }

    /// Deletes everything below a path; gives how many objects there were. What is gone already is no error.
    ///
    /// # Errors
    /// [`ObjectError::Failed`]: some may be left.
    pub async fn delete_prefix(&self, below: &str) -> Result<u64, ObjectError> {
        self.tidy(below).await?;
        let mut deleted = 0;
        for object in self.list(below).await? {
            deleted += u64::from(self.delete(&object.path).await?);
        }
        Ok(deleted)
    }

    /// Deletes an object; `false`: it was gone already.
    ///
    /// # Errors
    /// [`ObjectError::Failed`].
    pub async fn delete(&self, path: &str) -> Result<bool, ObjectError> {
        match self.store.delete(&self.key(path)?).await {
            Ok(()) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.failed(path, &error)),
        }
    }

    /// Removes what a crash left half stored below a path of the local folder; nobody may be storing there. A bucket
    /// shows no half objects.
    ///
    /// # Errors
    /// [`ObjectError::File`].
    pub async fn tidy(&self, below: &str) -> Result<(), ObjectError> {
        let Some(folder) = self.local_path(below) else { return Ok(()) };
        let place = folder.clone();
        let tidied = tokio::task::spawn_blocking(move || remove_staged(&folder)).await;
        let tidied = tidied.unwrap_or_else(|error| Err(io::Error::other(error)));
        tidied.map_err(|source| ObjectError::File { path: place, source })
    }

    fn key(&self, path: &str) -> Result<Key, ObjectError> {
        Key::parse(path).map_err(|error| self.failed(path, &error.into()))
    }

    fn failed(&self, path: &str, error: &object_store::Error) -> ObjectError {
        let (path, place) = (path.to_owned(), self.place.clone());
        match error {
            object_store::Error::NotFound { .. } => ObjectError::Missing { path, place },
            error => ObjectError::Failed { path, place, reason: error.to_string() },
        }
    }
}

/// Removes the files that wait to be renamed to an object's name: the client calls them after it, with `#` and a number.
fn remove_staged(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_staged(&entry.path())?;
        } else if entry.file_name().to_str().is_some_and(is_staged) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn is_staged(name: &str) -> bool {
    let number = name.rsplit_once('#').map_or("", |(_, number)| number);
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// The next bytes of a file, fewer at its end; off the threads that others wait on.
async fn read_part(mut file: File, length: usize) -> io::Result<(File, Vec<u8>)> {
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::with_capacity(length);
        let limit = u64::try_from(length).unwrap_or(u64::MAX);
        let read = (&mut file).take(limit).read_to_end(&mut bytes);
        read.map(|_| (file, bytes))
    });
    read.await.map_err(io::Error::other)?
}
