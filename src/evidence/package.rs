//! A sealed package where it is stored: read as a whole, and handed out as a tar that is written while it is downloaded.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;

use super::files::{Pieces, Place, pump};
use super::{Error, Evidence, detail};
use crate::audit::Action;
use crate::objects::{ObjectReader, Objects};
use crate::recording::package::{ExportError, Found, Kind, PackageFiles, ReadSeek, package_name, write_tar};
use crate::store::Grant;

impl Evidence {
    /// A sealed room's package as tar, with the name of its file. `plain`: recordings are decrypted; it verifies all the
    /// same, because chains and manifest know the plain bytes too.
    pub async fn package(&self, grant: &Grant, plain: bool) -> Result<(String, Pieces), Error> {
        let Place::Package(prefix) = self.place(grant.room).await? else { return Err(Error::NotSealed) };
        let key = if plain { self.session_key(grant.room).await? } else { None };
        let permit = self.reader()?;
        self.note(grant, Action::PackageRead, detail([("plain", plain.into())])).await?;
        let name = package_name(grant.room);
        let files = self.stored(prefix, Arc::default());
        let folder = name.clone();
        let pieces = pump(permit, move |out| {
            write_tar(&files, &folder, key.as_ref(), out).map_err(|error| match error {
                ExportError::Read { source, .. } | ExportError::Write { source, .. } => source,
                error => io::Error::other(error),
            })
        });
        Ok((format!("{name}.tar"), pieces))
    }

    /// The files of a package, until `stop` is set.
    pub(super) fn stored(&self, prefix: String, stop: Arc<AtomicBool>) -> StoredObjects {
        StoredObjects { objects: self.0.objects.clone(), prefix, runtime: Handle::current(), stop }
    }
}

/// A package among the objects. Only threads that may wait read it.
pub(super) struct StoredObjects {
    objects: Objects,
    prefix: String,
    runtime: Handle,
    stop: Arc<AtomicBool>,
}

impl PackageFiles for StoredObjects {
    fn list(&self) -> io::Result<BTreeMap<String, Found>> {
        let listed = self.runtime.block_on(self.objects.list(&self.prefix)).map_err(io::Error::other)?;
        let below = format!("{}/", self.prefix);
        let files = listed.into_iter().filter_map(|object| {
            let found = Found { bytes: object.bytes, kind: Kind::File };
            Some((object.path.strip_prefix(&below)?.to_owned(), found))
        });
        Ok(files.collect())
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn ReadSeek + '_>> {
        let reader = ObjectReader::open(&self.objects, &format!("{}/{path}", self.prefix), &self.runtime);
        Ok(Box::new(Stoppable { reader: reader.map_err(io::Error::other)?, stop: Arc::clone(&self.stop) }))
    }
}

/// Reads no further once nobody waits for it.
struct Stoppable {
    reader: ObjectReader,
    stop: Arc<AtomicBool>,
}

impl io::Read for Stoppable {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("nobody waits for it any more"));
        }
        self.reader.read(into)
    }
}

impl io::Seek for Stoppable {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.reader.seek(to)
    }
}
