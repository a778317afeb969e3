//! Section `exports`: pictures for browsers and for preservation, made of sealed recordings.

use std::path::PathBuf;

use jiff::SignedDuration;

use super::{Config, Reader};
use crate::evidence;

/// Section `exports`.
#[derive(Clone, Debug)]
pub struct Exports {
    /// How long a finished export is kept.
    pub kept: SignedDuration,
    /// The program that makes them.
    pub ffmpeg: PathBuf,
}

impl Config {
    /// What the service of compliance needs to know.
    pub fn evidence(&self) -> evidence::Settings {
        evidence::Settings {
            recordings: self.recordings(),
            documents: self.documents_folder(),
            exports: self.storage.data_dir.join("exports"),
            exports_kept: self.exports.kept,
            ffmpeg: self.exports.ffmpeg.clone(),
            webhooks: self.webhooks.is_some(),
        }
    }
}

impl Reader<'_> {
    pub(super) fn exports(&mut self) -> Option<Exports> {
        let hours = self.range("exports.kept_hours", 1, 8_760);
        let ffmpeg = self.read("exports.ffmpeg", "a program", |text: String| {
            (!text.trim().is_empty()).then_some(PathBuf::from(text))
        });
        let kept = SignedDuration::from_hours(i64::try_from(hours?).unwrap_or(1));
        Some(Exports { kept, ffmpeg: ffmpeg? })
    }
}
