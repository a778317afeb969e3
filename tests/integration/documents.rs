//! Documents and the register, as a browser and an operator use them: EVIDENCE.md, cases 9 to 12.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::database::Database;
use crate::evidence::clocks::WallClock;
use crate::protocollo::Protocollo;
use crate::server::{Booked, Server, accepted, delega_from, refused, text};

const MOST: usize = 3 * 1024 * 1024;
const BOUNDARY: &str = "a-boundary-that-occurs-in-no-document";
/// Longest wait for the register: two attempts that fail are about ten seconds.
const PATIENCE: Duration = Duration::from_secs(25);

/// A meeting with the operator and the delegato inside; documents are on.
struct Counter {
    server: Server,
    booked: Booked,
    operator: String,
    delegato: String,
}

impl Counter {
    async fn opens() -> Self {
        Self::opens_with(Server::start().await, Timestamp::now()).await
    }

    async fn opens_with(server: Server, now: Timestamp) -> Self {
        let (booked, operator) = server.book_and_open(&delega_from(now)).await;
        let delegato = server.enter(booked.invitation("delegato")).await;
        let counter = Self { server, booked, operator, delegato };
        counter.lets_in("delegato").await;
        counter.documents_are(true).await;
        counter
    }

    async fn lets_in(&self, role: &str) {
        let path = format!("/v1/rooms/{}/participants/{}/admit", self.booked.room, self.booked.id(role));
        self.server.order(&path, &self.operator).await;
    }

    async fn documents_are(&self, on: bool) {
        let path = format!("/v1/rooms/{}/features/documents", self.booked.room);
        accepted(self.server.request(Method::PUT, &path, &self.operator).json(&json!({"on": on}))).await;
    }

    /// Sends a form as it is.
    fn form(&self, body: Vec<u8>) -> reqwest::RequestBuilder {
        self.server
            .request(Method::POST, "/v1/session/documents", &self.delegato)
            .header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"))
            .body(body)
    }

    fn upload(&self, name: &str, bytes: &[u8]) -> reqwest::RequestBuilder {
        self.form(form(Some("true"), name, bytes))
    }

    async fn seen_by(&self, session: &str) -> Vec<Value> {
        self.server.get("/v1/session", session).await["documents"].as_array().unwrap().clone()
    }

    /// Files below the documents' folder.
    fn kept(&self) -> Vec<String> {
        let folder = self.server.data().join("documents").join(&self.booked.room);
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    async fn server_time(&self) -> Timestamp {
        text(&self.server.get("/v1/session", &self.delegato).await["now"]).parse().unwrap()
    }

    /// Waits for the server's clock to have been set to this time.
    async fn server_reaches(&self, at: Timestamp) {
        let deadline = Instant::now() + PATIENCE;
        while self.server_time().await < at {
            assert!(Instant::now() < deadline, "the clock was not set");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn register(&self, document: &Value, subject: Option<&str>) -> Value {
        let path = format!("/v1/rooms/{}/documents/{}/register", self.booked.room, text(&document["id"]));
        let body = subject.map_or_else(|| json!({}), |subject| json!({"subject": subject}));
        self.server.post(&path, self.server.key("operator"), &body).await
    }

    async fn becomes(&self, document: &Value, state: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let path = format!("/v1/rooms/{}/documents", self.booked.room);
            let all = self.server.get(&path, self.server.key("operator")).await;
            let all = all["documents"].as_array().unwrap();
            let found = all.iter().find(|one| one["id"] == document["id"]).unwrap();
            if found["state"] == state {
                return found.clone();
            }
            assert!(Instant::now() < deadline, "not {state}: {found}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn told(&self, kind: &str) -> Vec<Value> {
        let path = format!("/v1/rooms/{}/ledger", self.booked.room);
        let ledger = self.server.get(&path, self.server.key("booking")).await;
        let events = ledger.as_array().unwrap().iter().map(|line| line["event"].clone());
        events.filter(|event| event["type"] == kind).collect()
    }

    async fn concludes(&self, hours: u16) {
        let path = format!("/v1/rooms/{}/conclude", self.booked.room);
        let body = json!({"outcome": "incomplete", "extension_hours": hours});
        self.server.post(&path, &self.operator, &body).await;
    }
}

fn form(conforms: Option<&str>, name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    if let Some(conforms) = conforms {
        write!(body, "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"conforms\"\r\n\r\n{conforms}\r\n")
            .unwrap();
    }
    write!(body, "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n").unwrap();
    write!(body, "Content-Type: application/pdf\r\n\r\n").unwrap();
    body.extend_from_slice(bytes);
    write!(body, "\r\n--{BOUNDARY}--\r\n").unwrap();
    body
}

/// A document of one page that says `words`, and `extra` objects in its catalogue.
fn pdf_with(words: &str, catalogue: &str) -> Vec<u8> {
    let content = format!("BT /F1 12 Tf 72 720 Td ({words}) Tj ET");
    let objects = [
        format!("<< /Type /Catalog /Pages 2 0 R {catalogue}>>"),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R \
         /Resources << /Font << /F1 5 0 R >> >> >>"
            .to_owned(),
        format!("<< /Length {} >>\nstream\n{content}\nendstream", content.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
    ];
    let mut bytes = b"%PDF-1.7\n".to_vec();
    let mut places = Vec::new();
    for (number, object) in (1..).zip(&objects) {
        places.push(bytes.len());
        write!(bytes, "{number} 0 obj\n{object}\nendobj\n").unwrap();
    }
    let table = bytes.len();
    write!(bytes, "xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1).unwrap();
    for place in places {
        writeln!(bytes, "{place:010} 00000 n ").unwrap();
    }
    write!(bytes, "trailer\n<< /Size {} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n", objects.len() + 1).unwrap();
    bytes
}

fn pdf(words: &str) -> Vec<u8> {
    pdf_with(words, "")
}

/// A picture that ffmpeg makes.
fn picture(kind: &str, folder: &TempDir) -> Vec<u8> {
    let path = folder.path().join(format!("picture.{kind}"));
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", "testsrc=size=320x240", "-frames:v", "1", "-y"])
        .arg(&path)
        .status()
        .unwrap();
    assert!(made.success());
    std::fs::read(path).unwrap()
}

/// What openssl signs, with the content in it.
fn signed(content: &[u8], folder: &TempDir) -> Vec<u8> {
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("content"), content).unwrap();
    let run = |args: &[&str]| {
        let done = Command::new("openssl").args(args).stderr(std::process::Stdio::null()).status().unwrap();
        assert!(done.success(), "openssl {args:?}");
    };
    run(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=Test",
        "-keyout",
        &at("key"),
        "-out",
        &at("cert"),
    ]);
    run(&[
        "cms",
        "-sign",
        "-binary",
        "-nodetach",
        "-outform",
        "DER",
        "-in",
        &at("content"),
        "-signer",
        &at("cert"),
        "-inkey",
        &at("key"),
        "-out",
        &at("p7m"),
    ]);
    std::fs::read(at("p7m")).unwrap()
}

async fn bytes_of(response: Response) -> Vec<u8> {
    assert!(response.status().is_success(), "{}", response.status());
    response.bytes().await.unwrap().to_vec()
}

#[tokio::test]
async fn what_is_handed_in_is_seen_by_its_sender_and_the_operator_and_registered_with_a_receipt() {
    let mut counter = Counter::opens().await;
    let (server, folder) = (&counter.server, TempDir::new().unwrap());
    let delegante = server.enter(counter.booked.invitation("delegante")).await;
    counter.lets_in("delegante").await;
    let files = [
        ("CartaIdentità.pdf", pdf("carta"), "pdf", "application/pdf"),
        ("foto.jpg", picture("jpg", &folder), "jpeg", "image/jpeg"),
        ("scansione.png", picture("png", &folder), "png", "image/png"),
        ("delega.pdf.p7m", signed(&pdf("delega"), &folder), "p7m", "application/pkcs7-mime"),
    ];
    let mut documents = Vec::new();
    for (name, bytes, kind, media_type) in &files {
        let response = counter.upload(name, bytes).send().await.unwrap();
        assert_eq!(response.status(), 201, "{name}: {}", response.text().await.unwrap());
        let document: Value = response.json().await.unwrap();
        assert_eq!((&document["name"], &document["kind"]), (&json!(name), &json!(kind)));
        assert_eq!(document["bytes"], bytes.len());
        let path = format!("/v1/session/documents/{}", text(&document["id"]));
        let read = server.request(Method::GET, &path, &counter.delegato).send().await.unwrap();
        let headers = read.headers().clone();
        assert_eq!(headers["content-type"], *media_type);
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert!(headers["content-disposition"].to_str().unwrap().starts_with("attachment; filename*=UTF-8''"));
        assert!(headers["content-security-policy"].to_str().unwrap().contains("sandbox"));
        assert!(bytes_of(read).await == *bytes, "{name} comes back as it was");
        documents.push(document);
    }
    assert_eq!(counter.seen_by(&counter.delegato).await.len(), 4);
    assert_eq!(counter.seen_by(&counter.operator).await.len(), 4);
    assert!(counter.seen_by(&delegante).await.is_empty(), "what one citizen hands in is not the other's");
    let path = format!("/v1/session/documents/{}", text(&documents[0]["id"]));
    refused(server.request(Method::GET, &path, &delegante), 404, "unknown-document").await;

    // On the disk nothing can be read, and nothing is named as people named it.
    assert_eq!(counter.kept().len(), 4);
    for (document, (_, bytes, ..)) in documents.iter().zip(&files) {
        let path = server.data().join("documents").join(&counter.booked.room).join(text(&document["sha256"]));
        let stored = std::fs::read(path).unwrap();
        assert!(!stored.windows(64).any(|window| window == &bytes[bytes.len() / 2..][..64]), "it is encrypted");
    }

    // The register gives one number after the other.
    let mut numbers = Vec::new();
    for document in &documents[..2] {
        let asked = counter.register(document, Some("Documento d'identità")).await;
        assert!(["registering", "registered"].contains(&text(&asked["state"]).as_str()));
        let registered = counter.becomes(document, "registered").await;
        let protocol = text(&registered["protocol"]);
        let (year, number) = protocol.split_once('/').unwrap();
        assert_eq!(
            year.parse::<i16>().unwrap(),
            Timestamp::now().to_zoned(jiff::tz::TimeZone::get("Europe/Rome").unwrap()).year()
        );
        assert!(number.len() >= 7, "{protocol}");
        numbers.push(number.parse::<u64>().unwrap());
        let receipt = format!("/v1/session/documents/{}/receipt", text(&document["id"]));
        let response = server.request(Method::GET, &receipt, &counter.delegato).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/pdf");
        let receipt = bytes_of(response).await;
        assert!(receipt.starts_with(b"%PDF-"));
        // What the server itself gives out, it would take in.
        let again = counter.upload("ricevuta.pdf", &receipt).send().await.unwrap();
        assert_eq!(again.status(), 201, "{}", again.text().await.unwrap());
    }
    assert_eq!(numbers, [1, 2]);
    // Sent to the register again, it keeps its number.
    counter.register(&documents[0], None).await;
    assert_eq!(counter.told("registration_asked").await.len(), 2);
    let delete = |document: &Value| {
        server.request(Method::DELETE, &format!("/v1/session/documents/{}", text(&document["id"])), &counter.delegato)
    };
    refused(delete(&documents[0]), 409, "document-registered").await;
    accepted(delete(&documents[2])).await;
    assert_eq!(counter.becomes(&documents[2], "deleted").await["name"], "scansione.png");
    assert!(!counter.kept().contains(&text(&documents[2]["sha256"])), "its bytes are gone");
    let path = format!("/v1/session/documents/{}", text(&documents[2]["id"]));
    refused(server.request(Method::GET, &path, &counter.delegato), 410, "document-deleted").await;

    let today = Timestamp::now().to_zoned(jiff::tz::TimeZone::get("Europe/Rome").unwrap()).date();
    let day = server.get(&format!("/v1/register/days/{today}"), server.key("operator")).await;
    assert_eq!(day["entries"].as_array().unwrap().len(), 2, "{day}");
    counter.server.is_well().await;
}

#[tokio::test]
async fn a_document_is_declared_to_conform_before_it_is_taken() {
    let mut counter = Counter::opens().await;
    for conforms in [None, Some("false"), Some("")] {
        refused(counter.form(form(conforms, "a.pdf", &pdf("a"))), 422, "conformity-missing").await;
    }
    counter.documents_are(false).await;
    refused(counter.upload("a.pdf", &pdf("a")), 409, "documents-off").await;
    assert!(counter.kept().is_empty());
    counter.server.is_well().await;
}

#[tokio::test]
async fn three_megabytes_are_taken_and_one_byte_more_is_not() {
    let mut counter = Counter::opens().await;
    // Blanks behind the last line belong to the document.
    let filled = |length: usize| {
        let mut bytes = pdf("grande");
        bytes.resize(length, b'\n');
        bytes
    };
    let problem = refused(counter.upload("a.pdf", &filled(MOST + 1)), 413, "document-too-large").await;
    assert!(text(&problem["title"]).contains("3 MB"));
    refused(counter.upload("a.pdf", &filled(2 * MOST)), 413, "document-too-large").await;
    assert!(counter.kept().is_empty() && counter.seen_by(&counter.delegato).await.is_empty());
    let taken = counter.upload("a.pdf", &filled(MOST)).send().await.unwrap();
    assert_eq!(taken.status(), 201, "{}", taken.text().await.unwrap());

    // In pieces, without a length.
    let pieces = form(Some("true"), "b.pdf", &filled(MOST + 1));
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> = pieces.chunks(40_000).map(|piece| Ok(piece.to_vec())).collect();
    let chunked = counter.server.request(Method::POST, "/v1/session/documents", &counter.delegato);
    let chunked = chunked.header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"));
    let answer = chunked.body(reqwest::Body::wrap_stream(futures_util::stream::iter(pieces))).send().await;
    // The server may have said its word and hung up before all was sent.
    if let Ok(answer) = answer {
        assert_eq!(answer.status(), 413);
    }
    assert_eq!(counter.kept().len(), 1);
    counter.server.is_well().await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing_and_sent_again_it_is_one_document() {
    let mut counter = Counter::opens().await;
    let body = form(Some("true"), "carta.pdf", &pdf("carta"));
    let request = |length: usize, body: &[u8]| {
        let mut stream = TcpStream::connect(counter.server.address()).unwrap();
        write!(
            stream,
            "POST /v1/session/documents HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
             Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {length}\r\n\r\n",
            counter.delegato
        )
        .unwrap();
        stream.write_all(body).unwrap();
        stream
    };
    // Cut half-way, and a length that promises more than comes.
    drop(request(body.len(), &body[..body.len() / 2]));
    let stream = request(body.len() + 100_000, &body);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    drop(stream);
    // A length that is too short: what is there is half a form.
    let mut answer = String::new();
    let mut stream = request(body.len() / 2, &body);
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let seen = counter.seen_by(&counter.delegato).await;
    // The form of the second one was whole, though the body was announced to be longer: that is a broken body.
    assert!(counter.kept().is_empty() && seen.is_empty(), "{seen:?}");

    let first = counter.form(body.clone()).send().await.unwrap();
    assert_eq!(first.status(), 201);
    let first: Value = first.json().await.unwrap();
    let again = counter.form(body).send().await.unwrap();
    assert_eq!(again.status(), 200);
    assert_eq!(again.json::<Value>().await.unwrap()["id"], first["id"]);
    assert_eq!((counter.kept().len(), counter.told("document_handed_in").await.len()), (1, 1));
    counter.server.is_well().await;
}

#[tokio::test]
async fn what_is_no_document_or_acts_by_itself_is_refused_with_a_reason_and_nothing_is_kept() {
    let mut counter = Counter::opens().await;
    let folder = TempDir::new().unwrap();
    let zip = b"PK\x03\x04\x14\0\0\0\0\0".to_vec();
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("a.pdf", b"MZ\x90\0\x03\0\0\0".to_vec(), 415, "document-type"),
        ("a.pdf", b"<html><script>alert(1)</script></html>".to_vec(), 415, "document-type"),
        ("a.pdf", zip.clone(), 415, "document-type"),
        ("a.pdf", Vec::new(), 422, "document-unfit"),
        ("a.svg", b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>".to_vec(), 415, "document-type"),
        ("polyglot.pdf", [pdf("a"), zip].concat(), 422, "document-unfit"),
        ("js.pdf", pdf_with("a", "/OpenAction << /S /JavaScript /JS (app.alert\\(1\\)) >> "), 422, "document-unfit"),
        ("launch.pdf", pdf_with("a", "/OpenAction << /S /Launch /F (cmd.exe) >> "), 422, "document-unfit"),
        ("hidden.pdf", pdf_with("a", "/Open#41ction << /S /Java#53cript /JS (1) >> "), 422, "document-unfit"),
        ("cut.pdf", pdf("a")[..200].to_vec(), 422, "document-unfit"),
        ("cut.jpg", picture("jpg", &folder)[..600].to_vec(), 422, "document-unfit"),
        ("tail.png", [picture("png", &folder), b"<script>".to_vec()].concat(), 422, "document-unfit"),
        ("bomb.png", png_of(60_000, 60_000), 422, "document-unfit"),
        ("wrong.jpg", picture("png", &folder), 422, "document-unfit"),
        ("broken.p7m", signed(&pdf("a"), &folder)[..900].to_vec(), 422, "document-unfit"),
        ("evil.p7m", signed(b"<html><script>alert(1)</script>", &folder), 422, "document-unfit"),
    ];
    for (name, bytes, status, slug) in cases {
        let problem = refused(counter.upload(name, &bytes), status, slug).await;
        assert!(!text(&problem["reason"]).is_empty() && !text(&problem["detail"]).is_empty(), "{name}: {problem}");
    }
    assert!(counter.kept().is_empty() && counter.seen_by(&counter.delegato).await.is_empty());
    counter.server.is_well().await;
}

/// A PNG that says to be as large as this, and has nothing to show for it.
fn png_of(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8], data: &[u8]| {
        bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        let checked = [kind, data].concat();
        bytes.extend(&checked);
        bytes.extend(crc(&checked).to_be_bytes());
    };
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    chunk(b"IHDR", &header);
    chunk(b"IDAT", &[0x78, 0x9c, 3, 0, 0, 0, 0, 1]);
    chunk(b"IEND", &[]);
    bytes
}

fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 })
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[tokio::test]
async fn a_name_is_text_to_show_and_the_path_is_the_hash() {
    let mut counter = Counter::opens().await;
    let long = format!("{}.pdf", "x".repeat(4_096));
    let names = ["../../x.pdf", "..\\..\\boot.pdf", "C:\\x.pdf", "/etc/passwd.pdf", "a\u{202e}fdp.exe.pdf", "", &long];
    for (n, name) in names.iter().enumerate() {
        let bytes = pdf(&format!("nome {n}"));
        let response = counter.upload(name, &bytes).send().await.unwrap();
        assert_eq!(response.status(), 201, "{name}: {}", response.text().await.unwrap());
        let document: Value = response.json().await.unwrap();
        let shown = text(&document["name"]);
        assert!(!shown.is_empty() && shown.chars().count() <= 120, "{shown}");
        assert!(!shown.contains(['/', '\\', '\0', '\u{202e}']) && !shown.contains(".."), "{shown}");
        assert!(counter.kept().contains(&text(&document["sha256"])));
    }
    assert_eq!(counter.kept().len(), names.len());
    for name in counter.kept() {
        assert!(name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
    }
    // A name with a NUL cannot be written in a form; escaped, it is three harmless letters.
    let response = counter.upload("nul%00.pdf", &pdf("nul")).send().await.unwrap();
    assert_eq!(response.status(), 201);
    counter.server.is_well().await;
}

#[tokio::test]
async fn documents_are_taken_until_72_hours_are_over_by_the_servers_clock() {
    let clock = WallClock::right();
    let environment = clock.environment();
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let server = Server::start_in(&environment, Database::Sqlite, &[]).await;
    let mut counter = Counter::opens_with(server, Timestamp::now()).await;
    counter.concludes(72).await;
    let ends: Timestamp =
        text(&counter.server.get("/v1/session", &counter.delegato).await["extension_until"]).parse().unwrap();
    clock.is_set_to(&format!("+{}", ends.duration_since(Timestamp::now()).as_secs() - 6));
    counter.server_reaches(ends - SignedDuration::from_secs(7)).await;
    let mut last = None;
    loop {
        let n = last.as_ref().map_or(0, |(n, _)| n + 1);
        let response = counter.upload("a.pdf", &pdf(&format!("nella proroga {n}"))).send().await.unwrap();
        let status = response.status();
        let body: Value = response.json().await.unwrap();
        if status != 201 {
            // Sessions end with the room.
            let known = [json!("/problems/wrong-phase"), json!("/problems/unauthenticated")];
            assert!(known.contains(&body["type"]), "{status}: {body}");
            break;
        }
        last = Some((n, body));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (_, last) = last.expect("documents are taken until the end");
    // What was handed in in time is registered later, with the date of its hand-in.
    counter.register(&last, None).await;
    let registered = counter.becomes(&last, "registered").await;
    let handed_in: Timestamp = text(&registered["handed_in"]).parse().unwrap();
    assert!(handed_in < ends && ends.duration_since(handed_in).as_millis() < 1_000, "{handed_in} before {ends}");
    counter.server.is_well().await;
}

#[tokio::test]
async fn a_register_that_is_down_at_midnight_of_new_year_gives_one_number_and_the_hand_ins_date() {
    let clock = WallClock::right();
    let protocollo = Protocollo::closed().await;
    // The last second of the year, in Rome.
    let midnight: Timestamp = "2026-12-31T23:00:00Z".parse().unwrap();
    let offset = midnight.duration_since(Timestamp::now()).as_secs();
    clock.is_set_to(&format!("+{}", offset - 600));
    let environment = clock.environment();
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let server = Server::start_in(&environment, Database::Sqlite, &[("REGISTER__URL", protocollo.url())]).await;
    let mut counter = Counter::opens_with(server, midnight - Duration::from_mins(10)).await;
    let offset = midnight.duration_since(Timestamp::now()).as_secs();
    clock.is_set_to(&format!("+{}", offset - 4));
    counter.server_reaches(midnight - SignedDuration::from_secs(4)).await;
    let document: Value = counter.upload("a.pdf", &pdf("a")).send().await.unwrap().json().await.unwrap();
    let handed_in: Timestamp = text(&document["handed_in"]).parse().unwrap();
    assert!(handed_in < midnight && midnight.duration_since(handed_in).as_secs() < 5, "{handed_in}");
    counter.register(&document, Some("Delega")).await;
    protocollo.refused_once().await;
    assert_eq!(counter.becomes(&document, "registering").await["protocol"], Value::Null);
    clock.is_set_to(&format!("+{}", offset + 60));
    protocollo.opens();
    let registered = counter.becomes(&document, "registered").await;
    assert_eq!((&registered["protocol"], &registered["handed_in"]), (&json!("2026/0000042"), &document["handed_in"]));
    let asked = protocollo.asked();
    assert!(asked.len() >= 2, "asked again: {}", asked.len());
    for (key, body) in &asked {
        assert_eq!((key, &body["handed_in"]), (&text(&document["id"]), &document["handed_in"]));
        assert_eq!(body["sha256"], document["sha256"]);
    }
    assert_eq!(counter.told("document_registered").await.len(), 1);
    counter.server.is_well().await;
}

#[tokio::test]
async fn numbers_rise_by_one_whoever_asks_and_survive_a_kill() {
    for database in [Database::Sqlite, Database::Postgres] {
        let mut counter = Counter::opens_with(Server::start_on(database).await, Timestamp::now()).await;
        let mut documents = Vec::new();
        for n in 0..12 {
            let response = counter.upload("a.pdf", &pdf(&format!("numero {n}"))).send().await.unwrap();
            documents.push(response.json::<Value>().await.unwrap());
        }
        let asked = documents.iter().map(|document| counter.register(document, None));
        futures_util::future::join_all(asked).await;
        counter.server = counter.server.restart(crate::server::Signal::Kill).await;
        let mut numbers = Vec::new();
        for document in &documents {
            let protocol = text(&counter.becomes(document, "registered").await["protocol"]);
            numbers.push(protocol.split_once('/').unwrap().1.parse::<u64>().unwrap());
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=12).collect::<Vec<_>>());
        assert_eq!(counter.told("document_registered").await.len(), 12);
        counter.server.is_well().await;
    }
}

#[tokio::test]
async fn people_write_when_the_operator_lets_them_and_steps_are_ticked_off() {
    let mut counter = Counter::opens().await;
    let server = &counter.server;
    let write = |session: &str, words: &str| {
        server.request(Method::POST, "/v1/session/chat", session).json(&json!({"text": words}))
    };
    refused(write(&counter.delegato, "Buongiorno"), 409, "chat-off").await;
    let chat = format!("/v1/rooms/{}/features/chat", counter.booked.room);
    accepted(server.request(Method::PUT, &chat, &counter.operator).json(&json!({"on": true}))).await;
    for (n, (session, words)) in
        (1..).zip([(&counter.delegato, "Buongiorno"), (&counter.operator, "Mi dica\nequindi?")])
    {
        assert_eq!(accepted(write(session, words)).await["number"], n);
    }
    refused(write(&counter.delegato, "  "), 422, "invalid-field").await;
    refused(write(&counter.delegato, &"x".repeat(2_001)), 422, "invalid-field").await;
    let page = server.get("/v1/session/chat?after=1", &counter.delegato).await;
    assert_eq!(page["messages"][0]["text"], "Mi dica\nequindi?");
    assert_eq!(page["messages"][0]["role"], "operator");
    let waiting = server.enter(counter.booked.invitation("delegante")).await;
    refused(server.request(Method::GET, "/v1/session/chat", &waiting), 409, "not-inside").await;
    assert_eq!(server.get("/v1/session", &counter.delegato).await["chat_messages"], 2);
    assert_eq!(counter.told("chat_sent").await.len(), 2);

    let tick = |step: &str, done: bool| {
        let path = format!("/v1/rooms/{}/steps/{step}", counter.booked.room);
        server.request(Method::PUT, &path, &counter.operator).json(&json!({"done": done}))
    };
    accepted(tick("will", true)).await;
    refused(tick("nonsense", true), 404, "unknown-step").await;
    let view = server.get("/v1/session", &counter.operator).await;
    let will = view["steps"].as_array().unwrap().iter().find(|step| step["id"] == "will").unwrap().clone();
    assert!(will["done_at"].is_string() && will["label"]["it"].is_string());
    assert_eq!(view["grant"]["state"], "presence");
    assert!(server.get("/v1/session", &counter.delegato).await["steps"].as_array().unwrap().is_empty());
    counter.server.is_well().await;
}

#[tokio::test]
async fn an_operator_sees_the_day_and_takes_the_seat_without_a_code() {
    let mut server = Server::start().await;
    let booked = server.book(&delega_from(Timestamp::now())).await;
    let delegato = server.admit(booked.invitation("delegato")).await;
    let version = server.get("/v1/session", &delegato).await["consent_text_version"].clone();
    server.post("/v1/session/consent", &delegato, &json!({"text_version": version})).await;
    server.post("/v1/session/enter", &delegato, &json!({"camera": true, "microphone": false})).await;
    let day = server.get("/v1/appointments?office=Roma", server.key("operator")).await;
    let [appointment] = day["appointments"].as_array().unwrap().as_slice() else { panic!("{day}") };
    let person = &appointment["participants"][1];
    assert_eq!((&person["place"], &person["devices"]["microphone"]), (&json!("waiting"), &json!(false)));
    assert!(person["waiting_since"].is_string());
    let seat = format!("/v1/rooms/{}/seat", booked.room);
    refused(server.request(Method::POST, &seat, server.key("booking")), 403, "forbidden").await;
    let session = text(&accepted(server.request(Method::POST, &seat, server.key("operator"))).await["session_token"]);
    assert_eq!(server.get("/v1/session", &session).await["me"]["role"], "operator");
    server.is_well().await;
}

#[tokio::test]
async fn documents_receipts_and_messages_are_sealed_and_what_is_taken_back_leaves_the_package() {
    let clock = WallClock::right();
    let environment = clock.environment();
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let server = Server::start_in(&environment, Database::Sqlite, &[]).await;
    let mut counter = Counter::opens_with(server, Timestamp::now()).await;
    let chat = format!("/v1/rooms/{}/features/chat", counter.booked.room);
    accepted(counter.server.request(Method::PUT, &chat, &counter.operator).json(&json!({"on": true}))).await;
    let message = counter.server.request(Method::POST, "/v1/session/chat", &counter.delegato);
    accepted(message.json(&json!({"text": "Ecco la mia carta"}))).await;
    let kept: Value = counter.upload("carta.pdf", &pdf("carta")).send().await.unwrap().json().await.unwrap();
    let deleted: Value = counter.upload("errore.pdf", &pdf("errore")).send().await.unwrap().json().await.unwrap();
    counter.register(&kept, Some("Delega")).await;
    let registered = counter.becomes(&kept, "registered").await;
    counter.concludes(72).await;

    let package = counter.server.data().join("packages").join(format!("session-{}", counter.booked.room));
    let manifest = |revision: u64| {
        let path = package.join("manifest.json");
        let deadline = Instant::now() + PATIENCE;
        async move {
            loop {
                let read = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
                if let Some(manifest) = read.filter(|manifest| manifest["revision"] == revision) {
                    return manifest;
                }
                assert!(Instant::now() < deadline, "revision {revision} is not sealed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    let verifies = async |server: &Server| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = server.runs(&["verify", package.to_str().unwrap()]).await;
            if output.status.success() {
                return;
            }
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(Instant::now() < deadline, "{said}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let first = manifest(1).await;
    verifies(&counter.server).await;
    let number = text(&registered["protocol"]).replace('/', "-");
    let receipt = format!("receipts/{number}.pdf");
    let paths = |manifest: &Value| {
        manifest["files"].as_array().unwrap().iter().map(|file| text(&file["path"])).collect::<Vec<_>>()
    };
    for path in [format!("documents/{}", text(&kept["sha256"])), receipt.clone(), "chat.jsonl".to_owned()] {
        assert!(paths(&first).contains(&path), "{path} is not in {first}");
        let stored = std::fs::read(package.join(&path)).unwrap();
        assert!(!stored.starts_with(b"%PDF") && !stored.starts_with(b"{"), "{path} is encrypted");
    }
    let facts = first["documents"].as_array().unwrap();
    let fact = facts.iter().find(|fact| fact["sha256"] == kept["sha256"]).unwrap();
    assert_eq!((&fact["register_number"], &fact["declared_conform"]), (&json!(number), &json!(true)));

    // Plain, for whoever holds the key.
    let plain = TempDir::new().unwrap();
    let out = plain.path().join("plain");
    let output = counter.server.runs(&["export", package.to_str().unwrap(), "--out", out.to_str().unwrap()]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(std::fs::read(out.join("documents").join(text(&kept["sha256"]))).unwrap() == pdf("carta"));
    assert!(std::fs::read(out.join(&receipt)).unwrap().starts_with(b"%PDF-"));
    assert!(std::fs::read_to_string(out.join("chat.jsonl")).unwrap().contains("Ecco la mia carta"));

    // What is taken back while the room is extended is not in the next revision.
    let path = format!("/v1/session/documents/{}", text(&deleted["id"]));
    accepted(counter.server.request(Method::DELETE, &path, &counter.delegato)).await;
    let taken_back = package.join("documents").join(text(&deleted["sha256"]));
    assert!(taken_back.exists(), "until it is sealed anew");
    // When the extension is over.
    clock.is_set_to(&format!("+{}", 72 * 3_600 + 5));
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    // A room that sleeps may notice half a minute later that the clock was set; who asks it wakes it.
    let room = counter.server.get(&format!("/v1/rooms/{}", counter.booked.room), counter.server.key("booking")).await;
    assert_eq!(room["outcome"], "incomplete");
    let second = manifest(2).await;
    verifies(&counter.server).await;
    assert!(!taken_back.exists() && second["documents"].as_array().unwrap().len() == 1, "{second}");
    assert!(paths(&second).contains(&receipt) && !text(&second["previous_manifest_sha256"]).is_empty());
    counter.server.is_well().await;
}
