//! Exports: the session copy as one composed picture, made by `ffmpeg` in a private folder that is deleted afterwards, and
//! kept for a while, encrypted like the recordings themselves.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::runtime::Handle;

use super::destroy::delete_folder;
use super::files::{Content, Place, Plain, Stored, blocking, failed, pump, unreadable};
use super::jobs::{Failure, Told};
use super::{Error, Evidence, ExportFormat, detail};
use crate::audit::Action;
use crate::id::{JobId, RoomId};
use crate::recording::manifest::{MANIFEST, Manifest};
use crate::store::{Appointment, Grant, Job, JobKind, JobState};
use crate::vault::{FixedWriter, SessionKey};

/// Width and height of an export, pixels: below the people there is a line with the time.
const WIDTH: u32 = 1280;
const HEIGHT: u32 = 720;
const TIME_LINE: u32 = 40;
/// Pictures a second. More make larger files of what cameras send at 25 or 30.
const RATE: u32 = 25;
/// Of what the program complains of, so much is kept for the log, bytes.
const COMPLAINT: u64 = 2_000;
/// Old jobs that are forgotten in one round.
const FORGOTTEN_AT_ONCE: u32 = 100;

impl Evidence {
    /// A finished export.
    pub async fn read_export(&self, grant: &Grant, id: JobId, body: bool) -> Result<Content, Error> {
        let job = self.0.store.job(id).await?.filter(|job| job.room == grant.room).ok_or(Error::UnknownJob)?;
        let format = match job.kind {
            JobKind::ExportWebm => ExportFormat::Webm,
            JobKind::ExportMp4 => ExportFormat::Mp4,
            JobKind::Verify => return Err(Error::NoExport),
        };
        if job.state != JobState::Done {
            return Err(Error::NoExport);
        }
        // Nothing of a destroyed recording is given out, even if its file should still be there.
        self.there_is_a_package(grant.room).await?;
        let key = self.session_key(grant.room).await?;
        let permit = self.reader()?;
        let (path, name) = (self.export_path(job.room, id, format), stored_name(id, format));
        let plain = blocking(move || {
            let file = File::open(path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Error::NoExport,
                _ => unreadable(error),
            })?;
            let length = file.metadata().map_err(unreadable)?.len();
            Plain::open(Stored::Local(file), length, &name, key.as_ref())
        });
        let mut plain = plain.await??;
        self.note(grant, Action::ExportRead, detail([("job", id.to_string().into())])).await?;
        let length = plain.length();
        let body = body.then(|| pump(permit, move |out| io::copy(&mut plain, out).map(drop)));
        let name = format!("session-{}.{}", job.room, extension(format));
        Ok(Content { length, range: None, name, media_type: media_type(format), body })
    }

    /// Makes an export.
    pub(super) async fn compose(
        &self,
        job: &Job,
        format: ExportFormat,
        told: Arc<Told>,
    ) -> Result<Map<String, Value>, Failure> {
        let room = job.room;
        let place = self.place(room).await?;
        let Place::Package(prefix) = &place else { return Err(Error::NotSealed.into()) };
        let manifest = self.0.objects.get(&format!("{prefix}/{MANIFEST}")).await;
        let manifest = manifest.map_err(|error| Error::Unavailable(error.into()))?;
        let manifest = Manifest::from_bytes(&manifest).map_err(|error| failed(&error))?;
        let appointment = self.0.store.appointment(room).await.map_err(Error::from)?.ok_or(Error::UnknownRecording)?;
        let key = self.session_key(room).await?;
        let composition = Composition::of(&manifest, &appointment)
            .ok_or_else(|| Failure::Said("the recording has no session copy: there is nothing to export".into()))?;
        let work = Work {
            evidence: self.clone(),
            place,
            key,
            composition,
            format,
            temporary: self.exports_of(room).join(format!("{}.tmp", job.id)),
            target: self.export_path(room, job.id, format),
            name: stored_name(job.id, format),
            runtime: Handle::current(),
            told,
        };
        blocking(move || {
            let made = work.make();
            // What is decrypted does not stay, however it ended.
            let gone = delete_folder(&work.temporary).map_err(unreadable);
            let made = made?;
            gone?;
            Ok(made)
        })
        .await?
    }

    /// Deletes what an earlier process left half-made.
    pub(super) async fn sweep_exports(&self) {
        let exports = self.0.settings.exports.clone();
        let swept = blocking(move || {
            for room in listed(&exports)? {
                for left in listed(&room)?.iter().filter(|path| path.extension().is_some_and(|end| end == "tmp")) {
                    delete_folder(left)?;
                }
            }
            Ok::<_, io::Error>(())
        });
        match swept.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "half-made exports were not deleted"),
            Err(error) => tracing::error!(%error, "half-made exports were not deleted"),
        }
    }

    /// Deletes exports, and forgets jobs, whose time is over.
    pub(super) async fn forget_exports(&self) -> Result<(), Error> {
        let before = self.now().saturating_sub(self.0.settings.exports_kept).unwrap_or(Timestamp::MIN);
        for job in self.0.store.jobs_done_before(before, FORGOTTEN_AT_ONCE).await? {
            let paths =
                [ExportFormat::Webm, ExportFormat::Mp4].map(|format| self.export_path(job.room, job.id, format));
            let deleted = blocking(move || paths.iter().try_for_each(|path| delete_file(path))).await?;
            deleted.map_err(unreadable)?;
            self.0.store.forget_job(job.id).await?;
        }
        Ok(())
    }

    /// Deletes every export of a room.
    pub(super) async fn forget_exports_of(&self, room: RoomId) -> Result<(), Error> {
        let folder = self.exports_of(room);
        blocking(move || delete_folder(&folder)).await?.map_err(unreadable)
    }

    fn exports_of(&self, room: RoomId) -> PathBuf {
        self.0.settings.exports.join(room.to_string())
    }

    fn export_path(&self, room: RoomId, id: JobId, format: ExportFormat) -> PathBuf {
        self.exports_of(room).join(stored_name(id, format))
    }
}

/// One export while it is made.
struct Work {
    evidence: Evidence,
    place: Place,
    key: Option<SessionKey>,
    composition: Composition,
    format: ExportFormat,
    temporary: PathBuf,
    target: PathBuf,
    name: String,
    runtime: Handle,
    told: Arc<Told>,
}

impl Work {
    fn make(&self) -> Result<Map<String, Value>, Failure> {
        delete_folder(&self.temporary).map_err(unreadable)?;
        DirBuilder::new().recursive(true).mode(0o700).create(&self.temporary).map_err(unreadable)?;
        let mut session = self.evidence.open_plain(&self.place, "session.webm", self.key.as_ref(), &self.runtime)?;
        io::copy(&mut session, &mut private(&self.temporary.join(INPUT)).map_err(unreadable)?).map_err(unreadable)?;
        for (name, text) in self.composition.texts() {
            private(&self.temporary.join(name))
                .and_then(|mut file| file.write_all(text.as_bytes()))
                .map_err(unreadable)?;
        }
        self.run()?;
        self.keep().map_err(|error| unreadable(error).into())
    }

    fn run(&self) -> Result<(), Failure> {
        let mut command = Command::new(&self.evidence.0.settings.ffmpeg);
        command.args(self.composition.arguments(self.format)).current_dir(&self.temporary);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::Said(
                "ffmpeg is not installed on the server, or not where `evidence.ffmpeg` says: exports need it".into(),
            ),
            _ => unreadable(error).into(),
        })?;
        let (progress, complaints) = (child.stdout.take(), child.stderr.take());
        if let Ok(mut held) = self.told.child.lock() {
            *held = Some(child);
        }
        if self.told.stopped() {
            // It was told so before there was anything to be ended.
            self.end();
        }
        // In a thread of its own: a pipe that nobody empties would stop the program.
        let complaints = std::thread::spawn(move || {
            let mut text = String::new();
            if let Some(mut complaints) = complaints {
                let _cut = (&mut complaints).take(COMPLAINT).read_to_string(&mut text);
                let _rest = io::copy(&mut complaints, &mut io::sink());
            }
            text
        });
        if let Some(progress) = progress {
            for line in BufReader::new(progress).lines().map_while(Result::ok) {
                let micros = line.strip_prefix("out_time_us=").and_then(|text| text.parse::<u64>().ok());
                if let Some(micros) = micros {
                    self.told.progress(micros / 1_000, self.composition.duration_ms);
                }
            }
        }
        let complaints = complaints.join().unwrap_or_default();
        let child = self.told.child.lock().ok().and_then(|mut held| held.take());
        let status = child.map(|mut child| child.wait()).transpose().map_err(unreadable)?;
        if status.is_some_and(|status| status.success()) {
            return Ok(());
        }
        tracing::error!(status = ?status, complaints, "ffmpeg did not make an export");
        Err(Failure::Said("ffmpeg did not make it; the server's log says why".into()))
    }

    fn end(&self) {
        if let Ok(mut held) = self.told.child.lock()
            && let Some(child) = held.as_mut()
        {
            // It may have ended by itself.
            let _ended = child.kill();
        }
    }

    /// Takes the result over, encrypted if the recordings are.
    fn keep(&self) -> io::Result<Map<String, Value>> {
        let mut made = File::open(self.temporary.join(output(self.format)))?;
        let aside = self.temporary.join("kept");
        let file = private(&aside)?;
        let (mut digest, mut block, mut bytes) = (Context::new(&SHA256), vec![0; 1 << 16], 0_u64);
        let mut copy = |out: &mut dyn io::Write| {
            loop {
                let read = made.read(&mut block)?;
                let Some(piece) = block.get(..read).filter(|piece| !piece.is_empty()) else { return Ok(()) };
                digest.update(piece);
                bytes += u64::try_from(read).unwrap_or(0);
                out.write_all(piece)?;
            }
        };
        let file = if let Some(key) = &self.key {
            let mut writer = FixedWriter::new(file, key, &self.name)?;
            let copied: io::Result<()> = copy(&mut writer);
            copied?;
            writer.finish()?
        } else {
            let mut file = file;
            copy(&mut file)?;
            file
        };
        file.sync_all()?;
        fs::rename(&aside, &self.target)?;
        let name = self.name.as_str();
        Ok(detail([("file", name.into()), ("bytes", bytes.into()), ("sha256", hex::encode(digest.finish()).into())]))
    }
}

/// What the decrypted session copy is called for the program.
const INPUT: &str = "session.webm";

/// How people and screens are put into one picture: in a grid, each with a line that says who it is, and the time below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Composition {
    /// What stands below each picture, in the order of the session copy's video tracks.
    labels: Vec<String>,
    /// What the time line's clock begins with, seconds since 1970.
    begun: i64,
    duration_ms: u64,
}

impl Composition {
    /// Of a session's manifest and the names that were booked; `None`: there is no session copy.
    fn of(manifest: &Manifest, appointment: &Appointment) -> Option<Self> {
        let session = manifest.session_copy.as_ref()?;
        let begun = session.begin.utc.as_second();
        let labels = session.tracks.iter().skip(1).map(|track| label(track, appointment)).collect();
        Some(Self { labels, begun, duration_ms: session.duration_ms })
    }

    /// Texts that stand in the picture, each in a file: names hold characters that mean something to the program.
    fn texts(&self) -> impl Iterator<Item = (String, &str)> {
        self.labels.iter().enumerate().map(|(place, label)| (format!("{place}.txt"), label.as_str()))
    }

    /// The program's arguments. Each track has an input of its own, so that one that begins late is not waited for with
    /// all pictures of the others in memory.
    fn arguments(&self, format: ExportFormat) -> Vec<String> {
        let mut arguments: Vec<String> = [
            "-nostdin",
            "-hide_banner",
            "-loglevel",
            "error",
            "-progress",
            "pipe:1",
            "-protocol_whitelist",
            "file,pipe",
        ]
        .map(String::from)
        .into();
        for _ in 0..=self.labels.len() {
            arguments.extend(["-i", INPUT].map(String::from));
        }
        let filter = self.filter();
        arguments.extend(["-filter_complex", &filter, "-map", "[picture]", "-map", "0:a:0?"].map(String::from));
        let codecs: &[&str] = match format {
            ExportFormat::Webm => {
                &["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "5", "-b:v", "1500k", "-c:a", "copy"]
            }
            ExportFormat::Mp4 => &[
                "-c:v",
                "libx264",
                "-preset",
                "veryfast",
                "-crf",
                "23",
                "-pix_fmt",
                "yuv420p",
                "-c:a",
                "aac",
                "-b:a",
                "128k",
                "-movflags",
                "+faststart",
            ],
        };
        arguments.extend(codecs.iter().map(|word| (*word).to_owned()));
        arguments.extend(["-map_metadata", "-1", output(format)].map(String::from));
        arguments
    }

    fn filter(&self) -> String {
        let count = u32::try_from(self.labels.len()).unwrap_or(1).max(1);
        let columns = (1..=count).find(|columns| columns * columns >= count).unwrap_or(1);
        let rows = count.div_ceil(columns);
        // Even numbers: both codecs halve the colours' size.
        let (width, height) = (WIDTH / columns / 2 * 2, (HEIGHT - TIME_LINE) / rows / 2 * 2);
        let seconds = format!("{}.{:03}", self.duration_ms / 1_000, self.duration_ms % 1_000);
        let mut chains = vec![format!("color=c=black:s={WIDTH}x{HEIGHT}:r={RATE}:d={seconds}[on0]")];
        let mut labels = Vec::new();
        for place in 0..u32::try_from(self.labels.len()).unwrap_or(0) {
            let (x, y) = (place % columns * width, place / columns * height);
            chains.push(format!(
                "[{}:v:{place}]scale={width}:{height}:force_original_aspect_ratio=decrease,setsar=1[v{place}]",
                place + 1
            ));
            chains.push(format!(
                "[on{place}][v{place}]overlay=x={x}+({width}-w)/2:y={y}+({height}-h)/2:eof_action=pass[on{}]",
                place + 1
            ));
            labels.push(format!(
                "drawtext=font=Sans:textfile={place}.txt:expansion=none:fontsize=22:fontcolor=white:\
                 box=1:boxcolor=black@0.6:boxborderw=6:x={}:y={}",
                x + 12,
                y + height - 40
            ));
        }
        labels.push(format!(
            "drawtext=font=Sans:text='%{{pts\\:gmtime\\:{}}} UTC':fontsize=22:fontcolor=white:x=12:y={}",
            self.begun,
            HEIGHT - TIME_LINE + 9
        ));
        // The black that all is laid on could be seen through, and codecs refuse that.
        chains.push(format!("[on{}]{},format=yuv420p[picture]", self.labels.len(), labels.join(",")));
        chains.join(";")
    }
}

/// Whom a track shows: its role's name is the track's, or what that begins with.
fn label(track: &str, appointment: &Appointment) -> String {
    let role = track.split('-').next().unwrap_or(track);
    let mut people = appointment.people.iter().filter(|person| person.role.name() == role);
    match (people.next(), people.next()) {
        (Some(person), None) => format!("{} · {track}", person.name.expose()),
        // Of several in one role the track does not say who it is.
        _ => track.to_owned(),
    }
}

const fn extension(format: ExportFormat) -> &'static str {
    match format {
        ExportFormat::Webm => "webm",
        ExportFormat::Mp4 => "mp4",
    }
}

const fn output(format: ExportFormat) -> &'static str {
    match format {
        ExportFormat::Webm => "export.webm",
        ExportFormat::Mp4 => "export.mp4",
    }
}

const fn media_type(format: ExportFormat) -> &'static str {
    match format {
        ExportFormat::Webm => "video/webm",
        ExportFormat::Mp4 => "video/mp4",
    }
}

fn stored_name(id: JobId, format: ExportFormat) -> String {
    format!("{id}.{}", extension(format))
}

/// A new file that only this process's user reads.
fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn delete_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What is in a folder; nothing, if there is none.
fn listed(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_stand_in_a_grid_that_has_a_place_for_each() {
        let composition =
            |count| Composition { labels: vec!["x".into(); count], begun: 1_768_294_900, duration_ms: 61_250 };
        let filter = composition(3).filter();
        for part in [
            "color=c=black:s=1280x720:r=25:d=61.250[on0]",
            "[3:v:2]scale=640:340",
            "overlay=x=0+(640-w)/2:y=340+(340-h)/2:eof_action=pass[on3]",
            "[on3]drawtext",
            r"%{pts\:gmtime\:1768294900}",
        ] {
            assert!(filter.contains(part), "{part} is not in {filter}");
        }
        assert!(composition(0).filter().contains("[on0]drawtext"), "a voice alone has a picture too");
        assert!(composition(1).filter().contains("[1:v:0]scale=1280:680"));
        assert_eq!(composition(3).arguments(ExportFormat::Mp4).iter().filter(|word| *word == "-i").count(), 4);
    }
}
