//! Sections `packages` and `sealing`: where sealed packages go, and who vouches for their time.

use std::path::PathBuf;

use reqwest::Url;

use super::{Config, Reader, given};
use crate::evidence::{SealerSettings, TimestampSettings};
use crate::objects::{Objects, ObjectsConfig, OpenError};
use crate::recording::timestamp::{Authority, TimestampError};

/// Section `packages`.
#[derive(Clone, Debug)]
pub struct Packages {
    /// Where packages are kept; `None`: a folder in `storage.data_dir`.
    pub place: Option<ObjectsConfig>,
}

/// Section `sealing`.
#[derive(Clone, Debug)]
pub struct Sealing {
    /// The authority that is asked for timestamps; `None`: nobody is.
    pub timestamp_url: Option<String>,
    /// Certificates of the authorities that are believed.
    pub timestamp_ca: Option<PathBuf>,
}

impl Config {
    /// Opens the place where packages are kept; a folder is made if it is not there.
    ///
    /// # Errors
    /// The folder cannot be made, or the client refuses what it was told.
    pub fn open_packages(&self) -> Result<Objects, OpenError> {
        match &self.packages.place {
            Some(place) => Objects::open(place),
            None => Objects::in_folder(&self.storage.data_dir.join("packages")),
        }
    }

    /// What the sealer must be told.
    ///
    /// # Errors
    /// The authorities' certificates cannot be read.
    pub fn sealer(&self) -> Result<SealerSettings, TimestampError> {
        let Sealing { timestamp_url, timestamp_ca } = &self.sealing;
        let authority = timestamp_ca.as_deref().map(Authority::read).transpose()?;
        Ok(SealerSettings {
            recordings: self.recordings(),
            documents: self.documents_folder(),
            work: self.storage.data_dir.join("sealing"),
            node: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            timestamp: timestamp_url.clone().map(|url| TimestampSettings { url, authority }),
            webhooks: self.webhooks.is_some(),
        })
    }
}

impl Reader<'_> {
    pub(super) fn packages(&mut self) -> Option<Packages> {
        let allowed = "empty, file:///folder, or s3://bucket/prefix?endpoint=…&region=…";
        let url = self.read("packages.url", allowed, |text: String| {
            let is_right = |url: Url| match url.scheme() {
                "file" => url.to_file_path().is_ok(),
                "s3" => url.host_str().is_some_and(|bucket| !bucket.is_empty()),
                _ => false,
            };
            (text.is_empty() || Url::parse(&text).is_ok_and(is_right)).then_some(given(text))
        });
        let id = self.read("packages.access_key_id", "empty, or an access key's id", |id: String| Some(given(id)));
        let allowed = "empty, or the secret of packages.access_key_id";
        let secret = self.read("packages.secret_access_key", allowed, |secret: String| Some(given(secret)));
        let access_key = match (id?, secret?) {
            (Some(id), Some(secret)) => Some((id, secret)),
            (None, None) => None,
            _ => {
                self.problem(
                    "packages.access_key_id",
                    "to be set together with packages.secret_access_key, or neither",
                );
                return None;
            }
        };
        Some(Packages { place: url?.map(|url| ObjectsConfig { url, access_key }) })
    }

    pub(super) fn sealing(&mut self) -> Option<Sealing> {
        let allowed = "empty, or the http(s) address of a timestamp authority";
        let timestamp_url = self.read("sealing.timestamp_url", allowed, |text: String| {
            let is_right = Url::parse(&text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
            (text.is_empty() || is_right).then_some(given(text))
        });
        let timestamp_ca = self.read("sealing.timestamp_ca", "empty, or a file of certificates", Some::<String>);
        Some(Sealing { timestamp_url: timestamp_url?, timestamp_ca: given(timestamp_ca?).map(PathBuf::from) })
    }
}
