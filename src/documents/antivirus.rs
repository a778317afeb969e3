//! Asking clamd whether a document is a virus (`INSTREAM`, clamd(8)).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// Bytes sent in one piece. clamd takes larger ones too; nothing is won by them.
const PIECE: usize = 64 << 10;

/// An answer is one line; a longer one is none.
const LONGEST_ANSWER: u64 = 4 << 10;

/// Characters kept of a signature's name.
const LONGEST_SIGNATURE: usize = 120;

/// Where clamd listens: `host:port`, or the path of a Unix socket (`/run/clamav/clamd.ctl`, also with `unix:` before it).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClamdAddress {
    /// Host and port.
    Tcp(String),
    /// A Unix socket.
    Unix(PathBuf),
}

/// A text that is no such address. The configuration's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("clamd is at host:port, or at the path of a Unix socket that begins with a slash")]
pub struct ClamdAddressError;

/// Who looks for viruses. Clones ask the same one.
#[derive(Clone, Debug)]
pub struct Antivirus {
    address: ClamdAddress,
    limit: Duration,
}

/// Why a document does not come in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// It is a virus; the name of its signature.
    #[error("the document is infected: {0}")]
    Infected(String),
    /// Nobody looked, or they came to no end: the document must not come in either.
    #[error("the virus scanner is not available: {0}")]
    Unavailable(String),
}

impl FromStr for ClamdAddress {
    type Err = ClamdAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = text.strip_prefix("unix:").unwrap_or(text);
        if path.starts_with('/') {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let text = text.strip_prefix("tcp:").unwrap_or(text);
        let text = text.strip_prefix("//").unwrap_or(text);
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => {
                Ok(Self::Tcp(text.to_owned()))
            }
            _ => Err(ClamdAddressError),
        }
    }
}

impl fmt::Display for ClamdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl Antivirus {
    /// Asks clamd at `address`; one scan may take as long as `limit`, from connecting to the answer.
    pub fn clamd(address: ClamdAddress, limit: Duration) -> Self {
        Self { address, limit }
    }

    /// Has a document looked at. Good is only what clamd says is good.
    ///
    /// # Errors
    /// Any [`ScanError`].
    pub async fn scan(&self, bytes: &[u8]) -> Result<(), ScanError> {
        let asked = timeout(self.limit, self.ask(bytes)).await;
        let answer = asked.map_err(|_| unavailable("it took too long"))?;
        understand(&answer.map_err(|error| unavailable(&error.kind().to_string()))?)
    }

    async fn ask(&self, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        match &self.address {
            ClamdAddress::Tcp(address) => converse(TcpStream::connect(address.as_str()).await?, bytes).await,
            ClamdAddress::Unix(path) => converse(UnixStream::connect(path).await?, bytes).await,
        }
    }
}

async fn converse(mut clamd: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let sent = send(&mut clamd, bytes).await;
    let mut answer = Vec::new();
    // clamd may answer and hang up while it is still sent to: its word says more than our error.
    let read = (&mut clamd).take(LONGEST_ANSWER).read_to_end(&mut answer).await;
    if answer.is_empty() {
        sent.and(read.map(drop))?;
    }
    Ok(answer)
}

async fn send(clamd: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    // `z`: commands and answers end with a NUL.
    clamd.write_all(b"zINSTREAM\0").await?;
    for piece in bytes.chunks(PIECE) {
        clamd.write_all(&u32::try_from(piece.len()).unwrap_or(0).to_be_bytes()).await?;
        clamd.write_all(piece).await?;
    }
    clamd.write_all(&0_u32.to_be_bytes()).await?;
    clamd.flush().await
}

/// `stream: OK`, `stream: <signature> FOUND`, or `<what> ERROR`; anything else is no answer.
fn understand(answer: &[u8]) -> Result<(), ScanError> {
    let Some(line) = answer.strip_suffix(b"\0").and_then(|line| std::str::from_utf8(line).ok()) else {
        return Err(unavailable("its answer is not in form"));
    };
    match line.strip_prefix("stream: ") {
        Some("OK") => Ok(()),
        Some(found) if found.ends_with(" FOUND") => {
            let name = found.strip_suffix(" FOUND").unwrap_or_default();
            Err(ScanError::Infected(name.chars().filter(|c| !c.is_control()).take(LONGEST_SIGNATURE).collect()))
        }
        _ => Err(unavailable("it came to no result")),
    }
}

fn unavailable(what: &str) -> ScanError {
    ScanError::Unavailable(what.to_owned())
}
