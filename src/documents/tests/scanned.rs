//! The virus scanner's protocol, against one that is made for it.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};

use super::super::{Antivirus, ClamdAddress, ScanError};

const EICAR: &[u8] = br"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*";

const LIMIT: Duration = Duration::from_secs(10);

/// Reads one command as clamd does, and gives the stream's bytes.
async fn read_stream(socket: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut command = [0; 10];
    socket.read_exact(&mut command).await.unwrap();
    assert_eq!(&command, b"zINSTREAM\0");
    let mut bytes = Vec::new();
    loop {
        let length = usize::try_from(socket.read_u32().await.unwrap()).unwrap();
        if length == 0 {
            return bytes;
        }
        let from = bytes.len();
        bytes.resize(from + length, 0);
        socket.read_exact(&mut bytes[from..]).await.unwrap();
    }
}

async fn clamd(mut socket: impl AsyncRead + AsyncWrite + Unpin) {
    let bytes = read_stream(&mut socket).await;
    let found = bytes.windows(EICAR.len()).any(|window| window == EICAR);
    let answer = if found { "stream: Win.Test.EICAR_HDB-1 FOUND\0" } else { "stream: OK\0" };
    socket.write_all(answer.as_bytes()).await.unwrap();
}

/// A scanner that reads everything and answers this.
async fn scan_against(answer: &'static [u8]) -> Result<(), ScanError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = ClamdAddress::Tcp(listener.local_addr().unwrap().to_string());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        read_stream(&mut socket).await;
        socket.write_all(answer).await.unwrap();
    });
    Antivirus::clamd(address, LIMIT).scan(b"document").await
}

#[tokio::test]
async fn a_good_document_is_good_and_a_virus_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(clamd(socket));
        }
    });
    let antivirus = Antivirus::clamd(address, LIMIT);
    assert_eq!(antivirus.scan(&vec![1; 3 << 20]).await, Ok(()));
    assert_eq!(antivirus.scan(b"").await, Ok(()));
    let infected = [&vec![b' '; 200_000], EICAR].concat();
    assert_eq!(antivirus.scan(&infected).await, Err(ScanError::Infected("Win.Test.EICAR_HDB-1".into())));
}

#[tokio::test]
async fn a_unix_socket_does_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clamd.ctl");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move { clamd(listener.accept().await.unwrap().0).await });
    let antivirus = Antivirus::clamd(path.to_str().unwrap().parse().unwrap(), LIMIT);
    assert!(matches!(antivirus.scan(EICAR).await, Err(ScanError::Infected(_))));
}

#[tokio::test]
async fn whatever_is_not_clearly_good_does_not_come_in() {
    for answer in [
        &b""[..],
        b"stream: OK",
        b"stream: OK\n",
        b"OK\0",
        b"stream: ok\0",
        b"stream: OK FOUND?\0",
        b"INSTREAM size limit exceeded. ERROR\0",
        b"stream: OK\0stream: OK\0",
        b"\xff\xfe\0",
        b"UNKNOWN COMMAND\0",
    ] {
        let scanned = scan_against(answer).await;
        assert!(matches!(scanned, Err(ScanError::Unavailable(_))), "{answer:?}: {scanned:?}");
    }
    assert_eq!(scan_against(b"stream: OK\0").await, Ok(()));
}

#[tokio::test]
async fn a_scanner_that_is_not_there_or_says_nothing_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = ClamdAddress::Tcp(listener.local_addr().unwrap().to_string());
    let silent = Antivirus::clamd(address.clone(), Duration::from_millis(200));
    assert!(matches!(silent.scan(b"x").await, Err(ScanError::Unavailable(_))));
    drop(listener);
    let gone = Antivirus::clamd(address, LIMIT);
    assert!(matches!(gone.scan(b"x").await, Err(ScanError::Unavailable(_))));
}

#[tokio::test]
async fn a_scanner_that_hangs_up_early_is_still_heard() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = ClamdAddress::Tcp(listener.local_addr().unwrap().to_string());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"INSTREAM size limit exceeded. ERROR\0").await.unwrap();
    });
    let scanned = Antivirus::clamd(address, LIMIT).scan(&vec![0; 3 << 20]).await;
    assert!(matches!(scanned, Err(ScanError::Unavailable(_))), "{scanned:?}");
}

#[test]
fn addresses_are_a_port_or_a_path() {
    let unix = |path: &str| Ok(ClamdAddress::Unix(path.into()));
    let tcp = |address: &str| Ok(ClamdAddress::Tcp(address.into()));
    assert_eq!("/run/clamav/clamd.ctl".parse(), unix("/run/clamav/clamd.ctl"));
    assert_eq!("unix:/run/clamd".parse(), unix("/run/clamd"));
    assert_eq!("clamav:3310".parse(), tcp("clamav:3310"));
    assert_eq!("tcp://[::1]:3310".parse(), tcp("[::1]:3310"));
    for wrong in ["", "clamav", ":3310", "clamav:0", "clamav:99999", "run/clamd.ctl"] {
        assert!(wrong.parse::<ClamdAddress>().is_err(), "{wrong}");
    }
}
