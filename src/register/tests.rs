//! Numbers, receipts, the daily register, and the register over HTTP against one of this machine.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use jiff::Timestamp;
use tokio::net::TcpListener;

use super::*;
use crate::id::{DocumentId, RoomId};
use crate::media::DocumentKind;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn submission() -> Submission {
    let handed_in = at("2026-11-25T09:30:00Z");
    Submission {
        document: DocumentId::new(handed_in),
        room: RoomId::new(handed_in),
        handed_in,
        sender: "Łukasz Đorđević".into(),
        subject: "Delega all'uso della carta d'identità".into(),
        sha256: "ab".repeat(32),
        bytes: 48_213,
        kind: DocumentKind::Pdf,
    }
}

fn entry(number: u64, handed_in: &str) -> Entry {
    let submission = Submission { handed_in: at(handed_in), ..submission() };
    let numbered = Numbered { year: register_year(submission.handed_in), number, entered: at("2026-12-01T00:00:00Z") };
    Entry::new(&submission, numbered)
}

#[test]
fn numbers_have_seven_digits_at_least() {
    assert_eq!(entry(42, "2026-11-25T09:30:00Z").protocol(), "2026/0000042");
    assert_eq!(entry(123_456_789, "2026-11-25T09:30:00Z").protocol(), "2026/123456789");
}

#[test]
fn the_year_is_that_of_the_hand_in_in_italy() {
    for (handed_in, year) in [
        ("2026-12-31T22:59:59Z", 2026),
        ("2026-12-31T23:00:00Z", 2027),
        ("2027-01-01T00:00:00Z", 2027),
        ("2026-06-30T22:30:00Z", 2026),
    ] {
        assert_eq!(register_year(at(handed_in)), year, "{handed_in}");
    }
    // The register was down at 23:59:59: entered in the new year, it keeps the old one's date.
    let late = entry(1, "2026-12-31T22:59:59Z");
    assert_eq!((late.year, late.date().to_string()), (2026, "2026-12-31".to_owned()));
}

#[test]
fn nobody_is_named_in_what_is_logged() {
    let entry = entry(1, "2026-11-25T09:30:00Z");
    let receipt =
        Receipt { entry: entry.clone(), office: "Roma".into(), counter: "1".into(), file_name: "Rossi.pdf".into() };
    let day = day_export(entry.date(), std::slice::from_ref(&entry));
    for text in [format!("{:?}", submission()), format!("{entry:?}"), format!("{receipt:?}"), format!("{day:?}")] {
        assert!(!text.contains("Łukasz") && !text.contains("Delega") && !text.contains("Rossi"), "{text}");
    }
}

#[test]
fn a_daily_register_is_the_same_whatever_order_it_was_read_in() {
    let entries: Vec<Entry> = (1..=5).map(|number| entry(number, "2026-11-25T09:30:00Z")).collect();
    let other_day = entry(9, "2026-11-25T23:30:00Z");
    let date = entries.first().unwrap().date();
    let mut mixed: Vec<Entry> = entries.iter().rev().cloned().collect();
    mixed.push(other_day);
    mixed.extend(entries.first().cloned());
    let (first, second) = (day_export(date, &entries), day_export(date, &mixed));
    // Documents' ids differ between entries; what the register says does not hang on them.
    assert_eq!(serde_json::to_vec(&first).unwrap(), serde_json::to_vec(&second).unwrap());
    assert_eq!(first.entries.len(), 5);
    first.verify().unwrap();
    let empty = day_export(date, &[]);
    assert_eq!(empty.head, "0".repeat(64));
    empty.verify().unwrap();
}

#[test]
fn a_changed_daily_register_shows_it() {
    let entries: Vec<Entry> = (1..=3).map(|number| entry(number, "2026-11-25T09:30:00Z")).collect();
    let whole = day_export(entries.first().unwrap().date(), &entries);
    let mut changed = whole.clone();
    changed.entries.get_mut(1).unwrap().sender = "Anna".into();
    assert_eq!(changed.verify(), Err(DayFault::Line(2)));
    let mut missing = whole.clone();
    missing.entries.remove(0);
    assert_eq!(missing.verify(), Err(DayFault::Line(1)));
    let mut cut = whole;
    cut.entries.pop();
    assert_eq!(cut.verify(), Err(DayFault::Head));
}

#[test]
fn a_receipt_is_one_page_that_other_readers_open() {
    let mut entry = entry(42, "2026-11-25T09:30:00Z");
    entry.subject = "ß ŁŐŰŞȘĞİıĐŽČŠĦŊØÅÆÞÐĲĿŒ ΆΈΏϊ ЄЇЙЎЂЋЏЖЩЪ Ẁḃẞ ł\u{301} ".repeat(40);
    let receipt_of = Receipt {
        entry,
        office: "Ufficio «Roma 1»".into(),
        counter: "Sportello 3".into(),
        file_name: "漢字\u{202e}.pdf".into(),
    };
    let bytes = receipt(&receipt_of).unwrap();
    assert_eq!(bytes, receipt(&receipt_of).unwrap());
    assert!(bytes.starts_with(b"%PDF-1."));
    let document = lopdf::Document::load_mem(&bytes).unwrap();
    assert_eq!(document.get_pages().len(), 1);
    let text = document.extract_text(&[1]).unwrap();
    assert!(text.contains("0000042/2026"), "{text}");
}

#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<(HeaderMap, Bytes)>>>);

/// A register that answers this, and keeps what it was asked.
async fn register_that_answers(status: u16, body: &'static str) -> (HttpRegister, Asked) {
    let asked = Asked::default();
    let keep = asked.clone();
    let answer = move |headers: HeaderMap, bytes: Bytes| async move {
        keep.0.lock().unwrap().push((headers, bytes));
        (StatusCode::from_u16(status).unwrap(), [("location", "http://127.0.0.1:9/")], body)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/protocollo", listener.local_addr().unwrap());
    let router = Router::new().route("/protocollo", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let config = HttpRegisterConfig { url, token: "segreto".into(), timeout: Duration::from_secs(10) };
    (HttpRegister::new(config).unwrap(), asked)
}

#[tokio::test]
async fn a_document_is_posted_under_its_id_and_gets_its_number() {
    let body = r#"{"year": 2026, "number": 42, "entered": "2026-11-25T09:30:01Z"}"#;
    let (register, asked) = register_that_answers(201, body).await;
    let submission = submission();
    let numbered = register.register(&submission).await.unwrap();
    assert_eq!(numbered.protocol(), "2026/0000042");
    assert_eq!(register.register(&submission).await.unwrap(), numbered);
    let asked = asked.0.lock().unwrap();
    assert_eq!(asked.len(), 2);
    for (headers, body) in asked.iter() {
        assert_eq!(headers.get("idempotency-key").unwrap(), &submission.document.to_string());
        assert_eq!(headers.get("authorization").unwrap(), "Bearer segreto");
        let sent: Submission = serde_json::from_slice(body).unwrap();
        assert!(sent == submission);
    }
}

#[tokio::test]
async fn a_refusal_is_final_and_says_why() {
    for status in [400, 409, 413, 415, 422] {
        let (register, _) = register_that_answers(status, r#"{"reason": "Oggetto\n mancante"}"#).await;
        let refused = register.register(&submission()).await;
        assert_eq!(refused, Err(RegisterError::Refused { reason: "Oggetto mancante".into() }), "{status}");
    }
}

#[tokio::test]
async fn whatever_breaks_the_contract_is_asked_again() {
    for (status, body) in [
        (200, "{}"),
        (200, "<html>"),
        (201, r#"{"year": 2027, "number": 1, "entered": "2027-01-01T00:00:00Z"}"#),
        (201, r#"{"year": 2026, "number": 0, "entered": "2026-11-25T09:30:01Z"}"#),
        (201, r#"{"year": 2026, "number": -1, "entered": "2026-11-25T09:30:01Z"}"#),
        (201, r#"{"year": 2026, "number": 18446744073709551615, "entered": "2026-11-25T09:30:01Z"}"#),
        (202, "{}"),
        (302, ""),
        (401, r#"{"reason": "x"}"#),
        (404, ""),
        (429, ""),
        (500, ""),
        (503, ""),
    ] {
        let (register, _) = register_that_answers(status, body).await;
        let answer = register.register(&submission()).await;
        assert!(matches!(answer, Err(RegisterError::Unavailable(_))), "{status} {body}: {answer:?}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_none() {
    let endless: &'static str = Box::leak(" ".repeat(100_000).into_boxed_str());
    let (register, _) = register_that_answers(201, endless).await;
    assert!(matches!(register.register(&submission()).await, Err(RegisterError::Unavailable(_))));
}

#[tokio::test]
async fn a_register_that_is_not_there_is_asked_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let config = HttpRegisterConfig { url, token: String::new(), timeout: Duration::from_millis(200) };
    let register = HttpRegister::new(config).unwrap();
    let unavailable = |what: &str| Err(RegisterError::Unavailable(what.to_owned()));
    assert_eq!(register.register(&submission()).await, unavailable("it took too long"));
    drop(listener);
    assert_eq!(register.register(&submission()).await, unavailable("no connection"));
    for url in ["", "ftp://x/", "protocollo", "file:///etc/passwd"] {
        let config = HttpRegisterConfig { url: url.into(), token: String::new(), timeout: Duration::from_secs(1) };
        assert!(matches!(HttpRegister::new(config), Err(RegisterClientError::Address)), "{url}");
    }
}
