//! An HTTP/1.1 connection from an address of one's choice, kept open between requests. The usual client would need a
//! pool, and its threads, per address.

use std::io;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// An open connection.
pub(crate) struct Line {
    stream: TcpStream,
    host: SocketAddr,
    closing: bool,
}

impl Line {
    /// Connects to the server from this address of this machine.
    pub(crate) async fn open(server: SocketAddr, from: IpAddr) -> io::Result<Self> {
        let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(from, 0))?;
        let stream = socket.connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, host: server, closing: false })
    }

    /// Posts JSON; gives the status and the answer's JSON (null if it has none).
    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> io::Result<(u16, Value)> {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        let head = loop {
            if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            self.read(&mut answer).await?;
        };
        let head_text = String::from_utf8_lossy(answer.get(..head).unwrap_or_default()).to_ascii_lowercase();
        let field = |name: &str| {
            head_text
                .lines()
                .find_map(|line| line.split_once(':').filter(|(key, _)| *key == name))
                .map(|(_, v)| v.trim())
        };
        let status = head_text.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no HTTP status"))?;
        let length: usize = field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        self.closing = field("connection") == Some("close");
        while answer.len() < head + 4 + length {
            self.read(&mut answer).await?;
        }
        let body = answer.get(head + 4..head + 4 + length).unwrap_or_default();
        Ok((status, serde_json::from_slice(body).unwrap_or_default()))
    }

    /// Whether the server keeps it open for another request.
    pub(crate) fn stays(&self) -> bool {
        !self.closing
    }

    async fn read(&mut self, answer: &mut Vec<u8>) -> io::Result<()> {
        match self.stream.read_buf(answer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}
