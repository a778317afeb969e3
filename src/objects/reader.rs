//! A stored object as a file, for code that reads files.

use std::io::{self, Read, Seek, SeekFrom};

use bytes::Bytes;
use tokio::runtime::Handle;

use super::{ObjectError, Objects};

/// How much is fetched at once: fewer, larger questions are quicker when a whole object is read, and waste more when
/// somebody jumps about in it.
const AHEAD: u64 = 4 << 20;

/// An object that is read and sought like a file. Reading waits for the network: only threads that may wait read
/// (`spawn_blocking`, or the command line's own).
#[derive(Debug)]
pub struct ObjectReader {
    objects: Objects,
    path: String,
    length: u64,
    position: u64,
    /// Where the bytes fetched last begin, and they.
    fetched: (u64, Bytes),
    runtime: Handle,
}

impl ObjectReader {
    /// Opens an object; asks for its length.
    ///
    /// # Errors
    /// There is none, or the place does not answer.
    pub fn open(objects: &Objects, path: &str, runtime: &Handle) -> Result<Self, ObjectError> {
        let length = runtime.block_on(objects.length(path))?;
        Ok(Self {
            objects: objects.clone(),
            path: path.to_owned(),
            length,
            position: 0,
            fetched: (0, Bytes::new()),
            runtime: runtime.clone(),
        })
    }

    /// Length of the object.
    pub fn length(&self) -> u64 {
        self.length
    }
}

impl Read for ObjectReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.length || into.is_empty() {
            return Ok(0);
        }
        let is_here = |(begin, bytes): &(u64, Bytes)| {
            let skip = usize::try_from(self.position.checked_sub(*begin)?).ok()?;
            bytes.get(skip..).filter(|rest| !rest.is_empty()).map(|_| skip)
        };
        let skip = if let Some(skip) = is_here(&self.fetched) {
            skip
        } else {
            let range = self.position..self.length.min(self.position.saturating_add(AHEAD));
            let bytes = self.runtime.block_on(self.objects.get_range(&self.path, range)).map_err(io::Error::other)?;
            self.fetched = (self.position, bytes);
            0
        };
        let mut rest = self.fetched.1.get(skip..).unwrap_or_default();
        let taken = rest.read(into)?;
        self.position += u64::try_from(taken).unwrap_or(0);
        Ok(taken)
    }
}

impl Seek for ObjectReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        let before = || io::Error::new(io::ErrorKind::InvalidInput, "a place before the object's beginning");
        self.position = target.ok_or_else(before)?;
        Ok(self.position)
    }
}
