//! Configuration: the built-in `config/default.toml`, then a file, then the environment (`SPORTELLO__SECTION__KEY`).
//!
//! Every key stands in `config/default.toml`, so that file is also the list of known keys. Reading goes on past the
//! first wrong value: [`Problems`] names them all.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::providers::{Env, Format, Toml};
use figment::value::Value;
use figment::{Figment, Metadata};
use reqwest::Url;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::api::{limits, oidc};
use crate::calendar::Calendar;
use crate::notify::{SmsConfig, WebhookConfig};
use crate::recording::{RecorderConfig, SpaceConfig};
use crate::room::Profile;
use crate::sfu::SfuConfig;

mod exports;
mod messages;
mod packages;
mod papers;

pub use self::exports::Exports;
pub use self::packages::{Packages, Sealing};
pub use self::papers::{Documents, Register};

const DEFAULTS: &str = include_str!("../config/default.toml");
const ENV_PREFIX: &str = "SPORTELLO__";
/// What `config show` and problems print in place of a password.
const REDACTED: &str = "…";
/// Keys whose values are secret, or may hold one.
const SECRET_KEYS: [&str; 5] = [
    "webhooks.secrets",
    "sms.gateway_body",
    "sms.gateway_authorization",
    "packages.secret_access_key",
    "register.token",
];

/// The node's whole configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Pages, REST and events.
    pub http: Http,
    /// Whose bearer tokens are taken besides API keys.
    pub oidc: Option<oidc::Settings>,
    /// The media workers.
    pub media: Media,
    /// What is kept, and where.
    pub storage: Storage,
    /// The recorder.
    pub recording: Recording,
    /// Where sealed packages are kept.
    pub packages: Packages,
    /// How they are sealed.
    pub sealing: Sealing,
    /// Who looks at documents.
    pub documents: Documents,
    /// Where documents are entered.
    pub register: Register,
    /// What is made of them for browsers and for preservation.
    pub exports: Exports,
    /// Rules that all rooms share.
    pub rooms: Rooms,
    /// Section `webhooks`; `None`: there are none.
    pub webhooks: Option<WebhookConfig>,
    /// Section `sms`.
    pub sms: SmsConfig,
    /// The log.
    pub log: Log,
}

/// Section `http`.
#[derive(Clone, Debug)]
pub struct Http {
    /// Address and port to answer on; port 0: any free one.
    pub listen: SocketAddr,
    /// What join links begin with; `None`: `http://` and the address that was bound.
    pub public_url: Option<String>,
    /// How often one address may ask, and which proxies are believed about addresses.
    pub limits: limits::Settings,
}

/// Section `media`.
#[derive(Clone, Debug)]
pub struct Media {
    /// Worker threads; 0: one per core.
    pub workers: usize,
    /// Address that the UDP sockets are bound to.
    pub bind: IpAddr,
    /// Whether each worker keeps to a core of its own.
    pub pin_workers: bool,
    /// First worker's UDP port; 0: any free port each.
    pub first_port: u16,
    /// Addresses to announce; empty: those of the interfaces.
    pub announce: Vec<IpAddr>,
}

/// Section `storage`.
#[derive(Clone, Debug)]
pub struct Storage {
    /// Folder of everything that is kept.
    pub data_dir: PathBuf,
    /// The database, if it is not in `data_dir`.
    pub database: Option<String>,
}

/// Section `recording`.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Folders of the recordings; none: one in `storage.data_dir`.
    pub folders: Vec<PathBuf>,
    /// Recorder threads per folder.
    pub threads: usize,
    /// What is reserved for rooms.
    pub space: SpaceConfig,
    /// How long the recorder may be silent while media goes on.
    pub longest_silence: Duration,
    /// Whether recordings are encrypted.
    pub encrypt: bool,
    /// How often the heads of a room's originals are published; `None`: never.
    pub publish_heads: Option<Duration>,
}

/// Section `rooms`.
#[derive(Clone, Debug)]
pub struct Rooms {
    /// Folder of further profiles.
    pub profiles: Option<PathBuf>,
    /// File of the calendar; `None`: any time may be booked.
    pub calendar: Option<PathBuf>,
    /// Most rooms at once on this node; `None`: no limit.
    pub capacity: Option<u32>,
    /// Version of the recording notice.
    pub consent_text_version: String,
}

/// Section `log`.
#[derive(Clone, Debug)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// Which lines there are, in tracing's filter language.
    pub filter: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For log collectors.
    Json,
}

/// Where a configuration comes from: the layers over the built-in defaults.
#[derive(Clone, Debug)]
pub struct Sources(Figment);

impl Sources {
    /// The defaults, then `file` if there is one, then the environment.
    pub fn new(file: Option<&Path>) -> Self {
        let mut figment = Figment::from(Toml::string(DEFAULTS));
        if let Some(file) = file {
            figment = figment.merge(Toml::file_exact(file));
        }
        Self(figment.merge(Env::prefixed(ENV_PREFIX).split("__")))
    }

    /// The same with values of its own between the defaults and the environment.
    pub fn with_preset(preset: &[(&str, Value)]) -> Self {
        let mut figment = Figment::from(Toml::string(DEFAULTS));
        for (key, value) in preset {
            figment = figment.merge((*key, value));
        }
        Self(figment.merge(Env::prefixed(ENV_PREFIX).split("__")))
    }

    /// Puts one value above all others: what the command line says.
    #[must_use]
    pub fn with(self, key: &str, value: &str) -> Self {
        Self(self.0.merge((key, value)))
    }

    /// Reads and checks everything.
    ///
    /// # Errors
    /// All problems that were found, not only the first.
    pub fn read(&self) -> Result<Config, Problems> {
        Reader::new(&self.0)?.config()
    }

    /// The values in force as TOML, each with its origin; passwords are left out.
    ///
    /// # Errors
    /// A file that is missing or no TOML.
    pub fn show(&self) -> Result<String, Problems> {
        let reader = Reader::new(&self.0)?;
        let mut lines = Vec::new();
        for (section, value) in &reader.values {
            let Some(keys) = value.as_dict() else { continue };
            lines.push(format!("[{section}]"));
            for (key, value) in keys {
                let path = format!("{section}.{key}");
                lines.push(format!("{key} = {}  # {}", written(&path, value), reader.origin(&path)));
            }
            lines.push(String::new());
        }
        Ok(lines.join("\n"))
    }
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);

/// One wrong value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, e.g. `media.workers`; empty if a source as a whole cannot be read.
    pub key: String,
    /// The value as it was written, passwords left out.
    pub value: Option<String>,
    /// Where it was written.
    pub origin: String,
    /// What is allowed, or what is wrong.
    pub allowed: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}", self.key)?;
            if let Some(value) = &self.value {
                write!(f, " = {value}")?;
            }
            write!(f, " ")?;
        }
        write!(f, "({}): {}", self.origin, self.allowed)
    }
}

impl Config {
    /// What the media workers need to know.
    pub fn sfu(&self) -> SfuConfig {
        let workers = match self.media.workers {
            0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            workers => workers,
        };
        SfuConfig {
            workers,
            bind: self.media.bind,
            pinned: self.media.pin_workers,
            first_port: self.media.first_port,
            announce: self.media.announce.clone(),
            longest_silence: self.recording.longest_silence,
        }
    }

    /// What the recorder needs to know.
    pub fn recorder(&self) -> RecorderConfig {
        let Recording { threads, space, .. } = self.recording;
        RecorderConfig { folders: self.recordings(), threads, space }
    }

    /// The folders of recordings.
    pub fn recordings(&self) -> Vec<PathBuf> {
        let folders = &self.recording.folders;
        if folders.is_empty() { vec![self.storage.data_dir.join("recordings")] } else { folders.clone() }
    }

    /// Where the database is: a path, or a URL.
    pub fn database(&self) -> String {
        self.storage
            .database
            .clone()
            .unwrap_or_else(|| self.storage.data_dir.join("sportello.db").display().to_string())
    }

    /// The built-in profiles and those of `rooms.profiles`.
    ///
    /// # Errors
    /// A folder or file that cannot be read, or is no profile.
    pub fn profiles(&self) -> Result<Vec<Profile>, Problems> {
        let mut profiles = Profile::shipped();
        let Some(folder) = &self.rooms.profiles else { return Ok(profiles) };
        let mut problems = Vec::new();
        for file in toml_files(folder).map_err(|error| Problems(vec![profile_problem(folder, &error)]))? {
            let text = std::fs::read_to_string(&file).map_err(|error| error.to_string());
            match text.and_then(|text| Profile::parse(&text).map_err(|error| error.to_string())) {
                Ok(profile) => {
                    profiles.retain(|known| known.name != profile.name);
                    profiles.push(profile);
                }
                Err(error) => problems.push(profile_problem(&file, &error)),
            }
        }
        if problems.is_empty() { Ok(profiles) } else { Err(Problems(problems)) }
    }

    /// The calendar of `rooms.calendar`, for the profiles of [`Self::profiles`].
    ///
    /// # Errors
    /// A file that cannot be read, or is no calendar; and those of the profiles.
    pub fn calendar(&self) -> Result<Option<Calendar>, Problems> {
        let Some(file) = &self.rooms.calendar else { return Ok(None) };
        let profiles = self.profiles()?;
        let profiles: Vec<_> = profiles.iter().map(|profile| (profile.name.as_str(), profile.slot_minutes)).collect();
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string());
        let calendar = text.and_then(|text| Calendar::parse(&text, &profiles).map_err(|error| error.to_string()));
        calendar.map(Some).map_err(|error| {
            let allowed = format!("allowed is a calendar like config/calendar.toml: {error}");
            let origin = file.display().to_string();
            Problems(vec![Problem { key: "rooms.calendar".into(), value: None, origin, allowed }])
        })
    }
}

fn toml_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn profile_problem(path: &Path, error: &dyn fmt::Display) -> Problem {
    Problem {
        key: "rooms.profiles".into(),
        value: None,
        origin: path.display().to_string(),
        allowed: format!("allowed is a folder of profiles like those in config/profiles: {error}"),
    }
}

/// Reads key after key and gathers what is wrong.
struct Reader<'a> {
    figment: &'a Figment,
    values: figment::value::Dict,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn new(figment: &'a Figment) -> Result<Self, Problems> {
        let values = figment.extract().map_err(|error| {
            let origin = error.metadata.as_ref().map_or_else(|| "configuration".into(), |meta| origin_of(meta, ""));
            Problems(vec![Problem {
                key: String::new(),
                value: None,
                origin,
                allowed: without_source(&error.kind.to_string()),
            }])
        })?;
        Ok(Self { figment, values, problems: Vec::new() })
    }

    fn config(mut self) -> Result<Config, Problems> {
        self.refuse_unknown_keys();
        let http = self.http();
        let oidc = self.oidc();
        let media = self.media();
        let storage = self.storage();
        let recording = self.recording();
        let packages = self.packages();
        let sealing = self.sealing();
        let documents = self.documents();
        let register = self.register();
        let exports = self.exports();
        let rooms = self.rooms();
        let webhooks = self.webhooks();
        let sms = self.sms();
        let log = self.log();
        match (
            http, media, storage, recording, packages, sealing, documents, register, exports, rooms, webhooks, sms, log,
        ) {
            (
                Some(http),
                Some(media),
                Some(storage),
                Some(recording),
                Some(packages),
                Some(sealing),
                Some(documents),
                Some(register),
                Some(exports),
                Some(rooms),
                Some(webhooks),
                Some(sms),
                Some(log),
            ) if self.problems.is_empty() => Ok(Config {
                http,
                oidc,
                media,
                storage,
                recording,
                packages,
                sealing,
                documents,
                register,
                exports,
                rooms,
                webhooks,
                sms,
                log,
            }),
            _ => Err(Problems(self.problems)),
        }
    }

    fn http(&mut self) -> Option<Http> {
        let listen = self.parse("http.listen", "an address and a port, e.g. \"127.0.0.1:8080\"");
        let public_url = self.read(
            "http.public_url",
            "empty, or http(s)://host[:port] without a slash at the end",
            |url: String| {
                let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
                match rest {
                    _ if url.is_empty() => Some(None),
                    Some(host) if !host.is_empty() && !url.ends_with('/') && !url.contains(['?', '#', '@', ' ']) => {
                        Some(Some(url))
                    }
                    _ => None,
                }
            },
        );
        let limits = self.limits();
        Some(Http { listen: listen?, public_url: public_url?, limits: limits? })
    }

    fn limits(&mut self) -> Option<limits::Settings> {
        let allowed = "a list of IP addresses and networks, e.g. [\"10.20.0.0/16\"]";
        let trusted_proxies = self.read("http.trusted_proxies", allowed, |list: Vec<String>| {
            list.iter().map(|text| text.parse().ok()).collect()
        });
        let per_minute = self.allowance("http.join_per_minute");
        let burst = self.allowance("http.join_burst");
        let wrong = self.allowance("http.wrong_tokens_per_minute");
        Some(limits::Settings {
            trusted_proxies: trusted_proxies?,
            joins: limits::Rate { per_minute: per_minute?, burst: burst? },
            wrong_tokens: limits::Rate { per_minute: wrong?, burst: wrong? },
        })
    }

    fn allowance(&mut self, key: &str) -> Option<NonZeroU32> {
        let number = self.range(key, 1, 1_000_000)?;
        NonZeroU32::new(u32::try_from(number).ok()?)
    }

    /// `None`: there is no issuer, or something is wrong with it.
    fn oidc(&mut self) -> Option<oidc::Settings> {
        let issuer =
            self.read("oidc.issuer", "empty, or an address with https (http on this machine)", |text: String| {
                if text.is_empty() {
                    return Some(None);
                }
                let is_right = Url::parse(&text).is_ok_and(|url| oidc::is_safe(&url) && url.query().is_none());
                is_right.then_some(Some(text))
            })??;
        let some = |text: String| given(text);
        let audience = self.read("oidc.audience", "what the issuer's tokens for this server name in `aud`", some);
        let jwks_url =
            self.read("oidc.jwks_url", "empty, or an address with https (http on this machine)", |text: String| {
                if text.is_empty() {
                    return Some(None);
                }
                Url::parse(&text).ok().filter(oidc::is_safe).map(Some)
            });
        let claim = self.read("oidc.claim", "a claim's name, e.g. \"realm_access.roles\"", some);
        let allowed = "a table of at least one word with what it allows (booking, operator, compliance or metrics), \
                       e.g. { \"sportello-booking\" = \"booking\" }";
        let scopes =
            self.read("oidc.scopes", allowed, |scopes: BTreeMap<_, _>| Some(scopes).filter(|map| !map.is_empty()));
        Some(oidc::Settings { issuer, audience: audience?, jwks_url: jwks_url?, claim: claim?, scopes: scopes? })
    }

    fn media(&mut self) -> Option<Media> {
        let workers = self.range("media.workers", 0, 1024);
        let pin_workers = self.read("media.pin_workers", "true or false", Some::<bool>);
        let bind = self.parse("media.bind", "an IP address, e.g. \"0.0.0.0\"");
        let first_port = self.read("media.first_port", "a UDP port, 0 to 65535", Some::<u16>);
        let announce =
            self.read("media.announce", "a list of IP addresses, e.g. [\"203.0.113.7\"]", |list: Vec<String>| {
                let parsed: Result<Vec<IpAddr>, _> = list.iter().map(|text| text.parse()).collect();
                parsed.ok().filter(|addresses| addresses.iter().all(|address| !address.is_unspecified()))
            });
        let (workers, pin_workers, first_port) = (workers?, pin_workers?, first_port?);
        let media = Media { workers, pin_workers, bind: bind?, first_port, announce: announce? };
        let last = usize::from(media.first_port) + media.workers.max(1) - 1;
        if media.first_port != 0 && last > usize::from(u16::MAX) {
            self.problem("media.first_port", "a port low enough that every worker's port is below 65536");
            return None;
        }
        Some(media)
    }

    fn storage(&mut self) -> Option<Storage> {
        let data_dir =
            self.read("storage.data_dir", "a folder", |text: String| (!text.is_empty()).then(|| text.into()));
        let allowed = "empty, a file, or postgres://user:password@host/name";
        let database = self.read("storage.database", allowed, |text: String| {
            let is_server = text.starts_with("postgres://") || text.starts_with("postgresql://");
            (is_server || !text.contains("://")).then_some(text)
        });
        Some(Storage { data_dir: data_dir?, database: given(database?) })
    }

    fn recording(&mut self) -> Option<Recording> {
        let folders =
            self.read("recording.folder", "empty, a folder, or a list of different folders", |given: Folders| {
                let folders = given.list();
                let twice = folders
                    .iter()
                    .enumerate()
                    .any(|(n, folder)| folders.iter().skip(n + 1).any(|other| other == folder));
                (!twice && folders.iter().all(|folder| !folder.as_os_str().is_empty())).then_some(folders)
            });
        let threads = self.range("recording.threads", 1, 64);
        let rate = self.range("recording.reserve_bytes_per_second", 1_000, 100_000_000);
        let floor = self.read("recording.reserve_floor_mb", "a whole number from 0 to 1000000000", |mb: u64| {
            (mb <= 1_000_000_000).then_some(mb * 1_000_000)
        });
        let silence = self.range("recording.longest_silence_ms", 500, 10_000);
        let longest_silence = Duration::from_millis(u64::try_from(silence?).ok()?);
        let space = SpaceConfig { bytes_per_second: u64::try_from(rate?).ok()?, floor: floor? };
        let encrypt = self.read("recording.encrypt", "true or false", Some::<bool>)?;
        let heads = self.range("recording.publish_heads_seconds", 0, 3_600);
        let publish_heads = Some(Duration::from_secs(u64::try_from(heads?).ok()?)).filter(|every| !every.is_zero());
        Some(Recording { folders: folders?, threads: threads?, space, longest_silence, encrypt, publish_heads })
    }

    fn rooms(&mut self) -> Option<Rooms> {
        let profiles = self.read("rooms.profiles", "empty, or a folder", Some::<String>);
        let calendar = self.read("rooms.calendar", "empty, or a file", Some::<String>);
        let capacity = self.read("rooms.capacity", "a whole number from 0 to 100000; 0: no limit", |most: u32| {
            (most <= 100_000).then_some(Some(most).filter(|most| *most > 0))
        });
        let version = self.read("rooms.consent_text_version", "1 to 32 characters", |text: String| {
            (1..=32).contains(&text.chars().count()).then_some(text)
        });
        Some(Rooms {
            profiles: given(profiles?).map(PathBuf::from),
            calendar: given(calendar?).map(PathBuf::from),
            capacity: capacity?,
            consent_text_version: version?,
        })
    }

    fn log(&mut self) -> Option<Log> {
        let format = self.read("log.format", "\"text\" or \"json\"", |text: String| match text.as_str() {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        });
        let filter = self.read("log.filter", "levels, e.g. \"info,sportello::sfu=debug\"", |text: String| {
            tracing_subscriber::EnvFilter::try_new(&text).is_ok().then_some(text)
        });
        Some(Log { format: format?, filter: filter? })
    }

    /// A value of the file's type `T` that `accept` turns into what we keep, or refuses.
    fn read<T: DeserializeOwned, U>(
        &mut self,
        key: &str,
        allowed: &str,
        accept: impl FnOnce(T) -> Option<U>,
    ) -> Option<U> {
        let value = self.figment.extract_inner_lossy::<T>(key).ok().and_then(accept);
        if value.is_none() {
            self.problem(key, allowed);
        }
        value
    }

    fn parse<U: std::str::FromStr>(&mut self, key: &str, allowed: &str) -> Option<U> {
        self.read(key, allowed, |text: String| text.parse().ok())
    }

    fn range(&mut self, key: &str, from: usize, to: usize) -> Option<usize> {
        self.read(key, &format!("a whole number from {from} to {to}"), |n: usize| (from..=to).contains(&n).then_some(n))
    }

    fn problem(&mut self, key: &str, allowed: &str) {
        let value = self.figment.find_value(key).ok();
        let problem = Problem {
            key: key.into(),
            value: value.map(|value| written(key, &value)),
            origin: self.origin(key),
            allowed: format!("allowed is {allowed}"),
        };
        self.problems.push(problem);
    }

    fn refuse_unknown_keys(&mut self) {
        let known: figment::value::Dict = Figment::from(Toml::string(DEFAULTS)).extract().unwrap_or_default();
        let mut unknown = Vec::new();
        for (section, value) in &self.values {
            let Some(known_keys) = known.get(section).and_then(Value::as_dict) else {
                unknown.push((section.clone(), format!("no such section; there are {}", names(&known))));
                continue;
            };
            let Some(keys) = value.as_dict() else {
                unknown.push((section.clone(), format!("a section with the keys {}", names(known_keys))));
                continue;
            };
            for key in keys.keys().filter(|key| !known_keys.contains_key(*key)) {
                unknown.push((format!("{section}.{key}"), format!("no such key; there are {}", names(known_keys))));
            }
        }
        for (key, allowed) in unknown {
            let origin = self.origin(&key);
            self.problems.push(Problem { key, value: None, origin, allowed });
        }
    }

    fn origin(&self, key: &str) -> String {
        self.figment.find_metadata(key).map_or_else(|| "nowhere".into(), |meta| origin_of(meta, key))
    }
}

/// One folder, or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Folders {
    One(String),
    Several(Vec<PathBuf>),
}

impl Folders {
    fn list(self) -> Vec<PathBuf> {
        match self {
            Self::One(folder) => given(folder).map(PathBuf::from).into_iter().collect(),
            Self::Several(folders) => folders,
        }
    }
}

/// An empty string in the file means «none».
fn given(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn names(keys: &figment::value::Dict) -> String {
    keys.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn origin_of(metadata: &Metadata, key: &str) -> String {
    match &metadata.source {
        Some(figment::Source::File(path)) => format!("file {}", path.display()),
        Some(figment::Source::Code(_)) => "command line or preset".into(),
        _ if metadata.name.contains("environment") => {
            format!("environment {ENV_PREFIX}{}", key.to_uppercase().replace('.', "__"))
        }
        _ => "built-in default".into(),
    }
}

/// A value as TOML writes it; secrets, and what a URL may hold of them, are left out.
fn written(key: &str, value: &Value) -> String {
    if let Some(table) = value.as_dict() {
        let entries: Vec<_> = table.iter().map(|(name, value)| format!("{name:?} = {}", written(key, value))).collect();
        return if entries.is_empty() { "{}".into() } else { format!("{{ {} }}", entries.join(", ")) };
    }
    // JSON's strings, numbers, booleans and lists are TOML's.
    let json = |value: &Value| serde_json::to_string(value).unwrap_or_else(|_| REDACTED.into());
    let built_in = || Figment::from(Toml::string(DEFAULTS)).find_value(key).ok();
    match value.as_str() {
        _ if SECRET_KEYS.contains(&key) && built_in().is_none_or(|default| json(&default) != json(value)) => {
            format!("\"{REDACTED}\"")
        }
        Some(url) if url.contains("://") => json(&without_secrets(url).into()),
        _ => json(value),
    }
}

/// A URL without user, password and query.
fn without_secrets(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return REDACTED.into() };
    // A password may hold a question mark.
    let (user, host) = rest.rsplit_once('@').map_or(("", rest), |(_, host)| ("…@", host));
    let (host, query) = host.split_once('?').map_or((host, ""), |(host, _)| (host, "?…"));
    format!("{scheme}://{user}{host}{query}")
}

/// What is wrong with a file without the line that is quoted: it may hold a secret.
fn without_source(message: &str) -> String {
    let is_quoted = |line: &&str| line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with('|');
    message.lines().filter(|line| !is_quoted(line)).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
