//! Where the files of a package are: a folder, a tar, or whatever else can list and open them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::id::RoomId;

/// A file that is read from any place.
pub trait ReadSeek: Read + Seek {}

impl<T: Read + Seek> ReadSeek for T {}

/// The files of a package.
pub trait PackageFiles {
    /// What is there, by path within the package, with `/` between folders.
    ///
    /// # Errors
    /// It cannot be listed.
    fn list(&self) -> io::Result<BTreeMap<String, Found>>;

    /// Opens a file that is on the list.
    ///
    /// # Errors
    /// It cannot be opened.
    fn open(&self, path: &str) -> io::Result<Box<dyn ReadSeek + '_>>;
}

/// Something that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its length.
    pub bytes: u64,
    /// What it is.
    pub kind: Kind,
}

/// What something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A link, a device: something that has no place in a package.
    Other,
}

/// What the folder of a room's package is called, in a tar and among objects.
pub fn package_name(room: RoomId) -> String {
    format!("session-{room}")
}

/// A package in a folder of this machine.
#[derive(Clone, Debug)]
pub struct StoredFolder(PathBuf);

impl StoredFolder {
    /// The package in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    fn walk(folder: &Path, prefix: &str, into: &mut BTreeMap<String, Found>) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_str().ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("a file's name is not UTF-8: {}", name.display()))
            })?;
            let path = format!("{prefix}{name}");
            // Of the entry itself: links are not followed, they lead elsewhere.
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                Self::walk(&entry.path(), &format!("{path}/"), into)?;
            } else {
                let kind = if metadata.is_file() { Kind::File } else { Kind::Other };
                into.insert(path, Found { bytes: metadata.len(), kind });
            }
        }
        Ok(())
    }
}

impl PackageFiles for StoredFolder {
    fn list(&self) -> io::Result<BTreeMap<String, Found>> {
        let mut files = BTreeMap::new();
        Self::walk(&self.0, "", &mut files)?;
        Ok(files)
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn ReadSeek + '_>> {
        Ok(Box::new(File::open(self.0.join(path))?))
    }
}

/// A package in a tar, which is read where it is.
#[derive(Debug)]
pub struct StoredTar {
    path: PathBuf,
    /// By path within the package: where a file begins in the tar.
    files: BTreeMap<String, (u64, Found)>,
}

impl StoredTar {
    /// Reads the tar's list of files. Their common folder, `session-<id>/`, is not part of their paths.
    ///
    /// # Errors
    /// It cannot be read, is no tar, is cut short, or holds a path twice or outside of its folder.
    pub fn open(path: &Path) -> io::Result<Self> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut archive = tar::Archive::new(file);
        let (mut files, mut folder) = (BTreeMap::new(), None);
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            let kind = entry.header().entry_type();
            if kind.is_dir() {
                continue;
            }
            let name = String::from_utf8(entry.path_bytes().into_owned());
            let name = name.map_err(|_| invalid("a file's name is not UTF-8".into()))?;
            let (first, rest) =
                name.split_once('/').ok_or_else(|| invalid(format!("{name} is not in the package's folder")))?;
            if folder.get_or_insert_with(|| first.to_owned()) != first {
                return Err(invalid(format!("{name} is not in the package's folder")));
            }
            let begin = entry.raw_file_position();
            if begin.saturating_add(entry.size()) > length {
                return Err(invalid(format!("the tar is cut short in {name}")));
            }
            let kind = if kind.is_file() { Kind::File } else { Kind::Other };
            let found = Found { bytes: entry.size(), kind };
            if files.insert(rest.to_owned(), (begin, found)).is_some() {
                return Err(invalid(format!("{name} is in the tar twice")));
            }
        }
        Ok(Self { path: path.to_owned(), files })
    }
}

impl PackageFiles for StoredTar {
    fn list(&self) -> io::Result<BTreeMap<String, Found>> {
        Ok(self.files.iter().map(|(path, (_, found))| (path.clone(), *found)).collect())
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn ReadSeek + '_>> {
        let (begin, found) = self.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        let file = File::open(&self.path)?;
        Ok(Box::new(Section { file, begin: *begin, length: found.bytes, position: 0 }))
    }
}

/// A stretch of a file as a file of its own.
#[derive(Debug)]
struct Section {
    file: File,
    begin: u64,
    length: u64,
    position: u64,
}

impl Read for Section {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.length.saturating_sub(self.position);
        self.file.seek(SeekFrom::Start(self.begin + self.position))?;
        let read = (&mut self.file).take(left).read(into)?;
        self.position += u64::try_from(read).unwrap_or(0);
        Ok(read)
    }
}

impl Seek for Section {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        let before = || io::Error::new(io::ErrorKind::InvalidInput, "a place before the file's beginning");
        self.position = target.ok_or_else(before)?;
        Ok(self.position)
    }
}
