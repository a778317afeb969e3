//! Sections `documents` and `register`: who looks at what people hand in, and where it is entered.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::{Config, Reader, given};
use crate::control;
use crate::documents::{Antivirus, ClamdAddress, Folder};
use crate::register::{HttpRegister, HttpRegisterConfig, RegisterClientError};

/// Section `documents`.
#[derive(Clone, Debug)]
pub struct Documents {
    /// Where clamd listens; `None`: nobody looks for viruses.
    pub clamd: Option<ClamdAddress>,
    /// How long it may take.
    pub clamd_within: Duration,
}

/// Section `register`.
#[derive(Clone, Debug)]
pub struct Register {
    /// Another register than the one that is built in.
    pub http: Option<HttpRegisterConfig>,
}

impl Config {
    /// The folder of the rooms' documents.
    pub fn documents_folder(&self) -> PathBuf {
        self.storage.data_dir.join("documents")
    }

    /// Where documents go, and who looks at them.
    pub fn documents(&self) -> control::Documents {
        let Documents { clamd, clamd_within } = &self.documents;
        control::Documents {
            folder: Folder::new(self.documents_folder()),
            antivirus: clamd.clone().map(|address| Antivirus::clamd(address, *clamd_within)),
        }
    }

    /// Which register documents are entered in.
    ///
    /// # Errors
    /// The client for another one cannot be made.
    pub fn register(&self) -> Result<control::Register, RegisterClientError> {
        Ok(match &self.register.http {
            Some(config) => control::Register::Http(HttpRegister::new(config.clone())?),
            None => control::Register::Embedded,
        })
    }
}

impl Reader<'_> {
    pub(super) fn documents(&mut self) -> Option<Documents> {
        let allowed = "empty, host:port, or the path of a socket";
        let clamd = self.read("documents.clamd", allowed, |text: String| {
            if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) }
        });
        let seconds = self.range("documents.clamd_seconds", 1, 60);
        Some(Documents { clamd: clamd?, clamd_within: seconds_of(seconds?) })
    }

    pub(super) fn register(&mut self) -> Option<Register> {
        let allowed = "empty, or the http(s) address of a register; http on this machine only";
        let url = self.read("register.url", allowed, |text: String| {
            let is_right = |url: &Url| match url.scheme() {
                "https" => true,
                "http" => matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")),
                _ => false,
            };
            if text.is_empty() { Some(None) } else { Url::parse(&text).ok().filter(is_right).map(|_| Some(text)) }
        });
        let token = self.read("register.token", "empty, or a bearer token", |text: String| Some(given(text)));
        let seconds = self.range("register.seconds", 1, 60);
        let (url, token, timeout) = (url?, token?, seconds_of(seconds?));
        Some(Register { http: url.map(|url| HttpRegisterConfig { url, token: token.unwrap_or_default(), timeout }) })
    }
}

fn seconds_of(seconds: usize) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(60))
}
