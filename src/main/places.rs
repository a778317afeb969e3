//! Where packages and recordings are that a path or a room's id means.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use sportello::id::RoomId;
use sportello::objects::{ObjectReader, Objects};
use sportello::recording::manifest::{MANIFEST, SIGNATURE};
use sportello::recording::package::{Found, Kind, PackageFiles, ReadSeek, StoredFolder, StoredTar};

/// What a path or an id means.
pub(crate) enum Target {
    Package(String, Box<dyn PackageFiles>),
    /// One original, or a folder of them.
    Originals(PathBuf),
    Lines(PathBuf),
}

pub(crate) fn by_path(path: &Path) -> io::Result<Vec<Target>> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if let Some(original) = [".chain.jsonl", ".rtcp.jsonl"].iter().find_map(|suffix| name.strip_suffix(suffix)) {
        return Err(io::Error::other(format!("belongs to a recording: verify {original}.webm, which reads it")));
    }
    let is_package = |folder: &Path| folder.join(MANIFEST).exists() || folder.join(SIGNATURE).exists();
    let package = |folder: &Path| Target::Package(folder.display().to_string(), Box::new(StoredFolder::new(folder)));
    if path.is_dir() {
        if is_package(path) {
            return Ok(vec![package(path)]);
        }
        // A folder of packages.
        let mut folders = Vec::new();
        for entry in std::fs::read_dir(path)? {
            folders.push(entry?.path());
        }
        folders.sort();
        let packages: Vec<_> =
            folders.iter().filter(|folder| is_package(folder)).map(|folder| package(folder)).collect();
        return Ok(if packages.is_empty() { vec![Target::Originals(path.to_owned())] } else { packages });
    }
    let target = match path.extension().and_then(|extension| extension.to_str()) {
        Some("tar") => Target::Package(path.display().to_string(), Box::new(StoredTar::open(path)?)),
        Some("json" | "jsonl") => Target::Lines(path.to_owned()),
        _ => Target::Originals(path.to_owned()),
    };
    Ok(vec![target])
}

/// A room's recordings that are not sealed: its folder, or one original of it.
pub(crate) struct Recordings {
    folder: StoredFolder,
    place: PathBuf,
    stem: Option<String>,
}

impl Recordings {
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        if path.is_dir() {
            return Ok(Self { folder: StoredFolder::new(&path), place: path, stem: None });
        }
        let place = path.parent().unwrap_or(&path).to_owned();
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        Ok(Self { folder: StoredFolder::new(&place), place, stem })
    }

    /// A room's folder is called by its id.
    pub(crate) fn room(&self) -> Option<RoomId> {
        self.place.file_name()?.to_str()?.parse().ok()
    }
}

impl PackageFiles for Recordings {
    fn list(&self) -> io::Result<BTreeMap<String, Found>> {
        let mut files = self.folder.list()?;
        if let Some(stem) = &self.stem {
            files.retain(|path, _| path.strip_prefix(stem.as_str()).is_some_and(|rest| rest.starts_with('.')));
        }
        Ok(files)
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn ReadSeek + '_>> {
        self.folder.open(path)
    }
}

/// A package where the configuration keeps them.
pub(crate) struct InObjects {
    pub(crate) objects: Objects,
    pub(crate) prefix: String,
    pub(crate) runtime: tokio::runtime::Handle,
}

impl PackageFiles for InObjects {
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
        Ok(Box::new(reader.map_err(io::Error::other)?))
    }
}
