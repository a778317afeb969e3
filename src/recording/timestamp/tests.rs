//! Against a local authority: `openssl ts`, behind a small HTTP server.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use tempfile::TempDir;

use super::*;

/// An authority with its own root, made for one test.
pub(in crate::recording) struct Local {
    folder: TempDir,
}

const CONFIG: &str = "\
[tsa]
default_tsa = config
[config]
serial = serial
crypto_device = builtin
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
clock_precision_digits = 3
ordering = yes
tsa_name = yes
ess_cert_id_chain = no
";

impl Local {
    pub(in crate::recording) fn new() -> Self {
        let local = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(local.folder.path().join("tsa.cnf"), CONFIG).unwrap();
        fs::write(
            local.folder.path().join("extensions"),
            "basicConstraints = critical, CA:FALSE\nextendedKeyUsage = critical, timeStamping\nkeyUsage = critical, digitalSignature\n",
        )
        .unwrap();
        fs::write(local.folder.path().join("serial"), "01\n").unwrap();
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let root = ["req", "-x509", "-keyout", "root.key", "-out", "root.pem", "-days", "30", "-subj", "/CN=Test root"];
        local.openssl(&[&root[..], &key[..]].concat());
        let request = ["req", "-new", "-keyout", "tsa.key", "-out", "tsa.csr", "-subj", "/CN=Test authority"];
        local.openssl(&[&request[..], &key[..]].concat());
        local.openssl(&[
            "x509",
            "-req",
            "-in",
            "tsa.csr",
            "-CA",
            "root.pem",
            "-CAkey",
            "root.key",
            "-CAcreateserial",
            "-days",
            "30",
            "-extfile",
            "extensions",
            "-out",
            "tsa.pem",
        ]);
        local
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl").args(arguments).current_dir(self.folder.path()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub(in crate::recording) fn answer(&self, request: &[u8]) -> Vec<u8> {
        fs::write(self.folder.path().join("request"), request).unwrap();
        self.openssl(&[
            "ts",
            "-reply",
            "-queryfile",
            "request",
            "-signer",
            "tsa.pem",
            "-inkey",
            "tsa.key",
            "-config",
            "tsa.cnf",
            "-section",
            "config",
            "-out",
            "answer",
        ]);
        fs::read(self.folder.path().join("answer")).unwrap()
    }

    pub(in crate::recording) fn authority(&self) -> Authority {
        Authority::read(&self.folder.path().join("root.pem")).unwrap()
    }
}

/// Answers one request after the other with what `answer` makes of its body; gives the address.
fn serve(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut bytes, mut buffer) = (Vec::new(), [0; 4_096]);
            let body = loop {
                let read = stream.read(&mut buffer).unwrap();
                bytes.extend_from_slice(&buffer[..read]);
                let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
                let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
                assert!(text.contains("content-type: application/timestamp-query"), "{text}");
                let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                let length: usize = length.parse().unwrap();
                if bytes.len() >= head + 4 + length {
                    break bytes[head + 4..].to_vec();
                }
            };
            let answer = answer(&body);
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/timestamp-reply\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                answer.len()
            );
            stream.write_all(&[head.as_bytes(), &answer].concat()).unwrap();
        }
    });
    format!("http://{address}/tsa")
}

#[tokio::test]
async fn an_authority_is_asked_and_its_answer_checked() {
    let local = Local::new();
    let authority = local.authority();
    let url = serve(move |request| local.answer(request));
    let signed = b"header.payload.signature";
    let before = Timestamp::now();
    let (answer, said) = ask(&reqwest::Client::new(), &url, signed, Some(&authority)).await.unwrap();
    assert!(said.trusted);
    assert!(said.at.duration_since(before).as_millis().abs() < 60_000, "{said:?}");
    assert_eq!(verify(signed, &answer, Some(&authority)).unwrap(), said);
    assert!(!verify(signed, &answer, None).unwrap().trusted, "without certificates it says so");
    assert!(matches!(verify(b"something else", &answer, Some(&authority)), Err(TimestampError::OtherImprint)));
    let stranger = Local::new().authority();
    assert!(matches!(verify(signed, &answer, Some(&stranger)), Err(TimestampError::Untrusted(_))));
}

#[test]
fn no_flipped_bit_makes_it_say_anything_else() {
    let local = Local::new();
    let (authority, signed) = (local.authority(), b"what was signed");
    let answer = local.answer(Request::new(signed).unwrap().body());
    let said = verify(signed, &answer, Some(&authority)).unwrap();
    let mut unseen = 0;
    for bit in 0..answer.len() * 8 {
        let mut changed = answer.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Ok(other) = verify(signed, &changed, Some(&authority)) {
            assert_eq!(other, said, "bit {bit}");
            unseen += 1;
        }
    }
    // The few that the authority does not sign, such as version numbers: for these the package signs the whole answer.
    assert!(unseen < answer.len(), "{unseen} of {} bits", answer.len() * 8);
}

#[test]
fn an_answer_to_another_request_is_not_taken() {
    let local = Local::new();
    let (one, other) = (Request::new(b"x").unwrap(), Request::new(b"x").unwrap());
    let answer = local.answer(one.body());
    one.check(&answer, None).unwrap();
    assert!(matches!(other.check(&answer, None), Err(TimestampError::OtherNonce)));
}

#[test]
fn openssl_believes_what_is_kept() {
    let local = Local::new();
    fs::write(local.folder.path().join("signed"), "x").unwrap();
    local.answer(Request::new(b"x").unwrap().body());
    local.openssl(&["ts", "-verify", "-data", "signed", "-in", "answer", "-CAfile", "root.pem"]);
}

#[test]
fn a_certificate_for_something_else_is_no_authority() {
    let local = Local::new();
    let answer = local.answer(Request::new(b"x").unwrap().body());
    // The authority's own certificate is no root, and the root's key did not sign the token.
    let own = Authority::read(&local.folder.path().join("tsa.csr"));
    assert!(matches!(own, Err(TimestampError::Authority { .. })), "a request is no certificate");
    let nowhere = Authority::read(&local.folder.path().join("nowhere.pem"));
    assert!(matches!(nowhere, Err(TimestampError::Authority { .. })));
    assert!(verify(b"x", &answer, Some(&local.authority())).is_ok());
}

#[tokio::test]
async fn refusals_and_nonsense_are_told_apart() {
    // RFC 3161 §2.4.2: PKIStatusInfo with status 2 and one text.
    let refusal = b"\x30\x0d\x30\x0b\x02\x01\x02\x30\x06\x0c\x04nope".to_vec();
    let url = serve(move |_| refusal.clone());
    let refused = ask(&reqwest::Client::new(), &url, b"x", None).await;
    assert!(matches!(&refused, Err(TimestampError::Refused { status: 2, text }) if text == "nope"), "{refused:?}");
    let url = serve(|_| b"<html>".to_vec());
    assert!(matches!(ask(&reqwest::Client::new(), &url, b"x", None).await, Err(TimestampError::Form(_))));
    let url = serve(|_| vec![0; LARGEST_ANSWER + 1]);
    assert!(matches!(ask(&reqwest::Client::new(), &url, b"x", None).await, Err(TimestampError::NoAnswer(_))));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    assert!(matches!(ask(&reqwest::Client::new(), &nobody, b"x", None).await, Err(TimestampError::NoAnswer(_))));
}
