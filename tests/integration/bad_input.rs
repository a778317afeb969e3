//! Bad input gets a clear 4xx or silence, a counter, and never a panic.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::{Server, delega, offer, refused};

const MEDIA: &str = "/v1/session/media";

fn post_sdp(server: &Server, session: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
    server.request(Method::POST, MEDIA, session).header("content-type", "application/sdp").body(body)
}

#[tokio::test]
async fn a_broken_offer_is_a_bad_offer() {
    let mut server = Server::start().await;
    let (_, operator) = server.open_room().await;
    let good = offer();
    let without = |what: &str| {
        good.lines().filter(|line| !line.contains(what)).flat_map(|line| [line, "\r\n"]).collect::<String>()
    };
    let broken = [
        String::new(),
        "v=0\r\n".to_owned(),
        "{\"type\":\"offer\"}".to_owned(),
        "\0\u{fffd}m=audio".repeat(100),
        without("m="),
        without("a=fingerprint"),
        good.replace("VP8", "VP9").replace("opus", "L16").replace("H264", "H263").replace("AV1", "AV9"),
        good.replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"),
    ];
    let before = server.counter("sportello_http_requests_total").await;
    for sdp in broken {
        let shown: String = sdp.chars().take(60).collect();
        let response = post_sdp(&server, &operator, sdp).send().await.unwrap();
        assert_eq!(response.status(), 400, "{shown:?}");
        crate::server::problem(response, 400, "bad-offer").await;
    }
    server.counts_beyond("sportello_http_requests_total", before).await;
    server.is_well().await;
}

#[tokio::test]
async fn an_offer_cut_or_changed_anywhere_is_answered_or_refused_but_never_breaks_the_server() {
    let mut server = Server::start().await;
    let (_, operator) = server.open_room().await;
    let good = offer();
    for cut in (0..good.len()).step_by(good.len() / 40) {
        let response = post_sdp(&server, &operator, good[..cut].to_owned()).send().await.unwrap();
        assert!([201, 400].contains(&response.status().as_u16()), "cut at {cut}: {}", response.status());
    }
    // Every line once doubled, once left out, once with its value replaced.
    let lines: Vec<&str> = good.lines().collect();
    for at in 0..lines.len() {
        for change in ["double", "drop", "replace"] {
            let mut changed = lines.clone();
            match change {
                "double" => changed.insert(at, lines[at]),
                "drop" => drop(changed.remove(at)),
                _ => changed[at] = "a=rtpmap:99999999999999999999 \u{1f980}/-1",
            }
            let sdp: String = changed.iter().flat_map(|line| [*line, "\r\n"]).collect();
            let response = post_sdp(&server, &operator, sdp).send().await.unwrap();
            assert!(
                [201, 400].contains(&response.status().as_u16()),
                "{change} {:?}: {}",
                lines[at],
                response.status()
            );
        }
    }
    assert_eq!(
        post_sdp(&server, &operator, good).send().await.unwrap().status(),
        201,
        "a good offer is still answered"
    );
    server.is_well().await;
}

#[tokio::test]
async fn an_unknown_token_link_or_room_opens_nothing() {
    let mut server = Server::start().await;
    server.book(&delega()).await;
    let token = "A".repeat(43);
    refused(server.request(Method::GET, "/v1/session", &token), 401, "unauthenticated").await;
    refused(post_sdp(&server, &token, offer()), 401, "unauthenticated").await;
    refused(
        server.anonymous(Method::POST, MEDIA).header("content-type", "application/sdp").body(offer()),
        401,
        "unauthenticated",
    )
    .await;
    refused(server.anonymous(Method::GET, "/v1/join/AAAAAAAAAAAAAAAAAAAAAA"), 404, "unknown-link").await;
    let code = json!({"code": "123456"});
    refused(server.anonymous(Method::POST, "/v1/join/AAAAAAAAAAAAAAAAAAAAAA").json(&code), 404, "unknown-link").await;
    let nowhere = "/v1/rooms/0199c1c2-7b1e-7cc3-9a5e-0f4b7c7e2d11";
    refused(server.request(Method::GET, nowhere, server.key("booking")), 404, "unknown-room").await;
    refused(server.anonymous(Method::GET, "/v1/nothing-here"), 404, "not-found").await;
    let not_an_id = server.request(Method::GET, "/v1/rooms/..%2f..%2fetc", server.key("booking")).send().await.unwrap();
    assert!(not_an_id.status().is_client_error(), "{}", not_an_id.status());
    server.is_well().await;
}

#[tokio::test]
async fn a_body_that_is_too_long_or_of_another_kind_is_refused_as_that() {
    let mut server = Server::start().await;
    let (_, operator) = server.open_room().await;
    let limit = 128 << 10;
    refused(post_sdp(&server, &operator, "a".repeat(limit + 1)), 413, "too-large").await;
    refused(post_sdp(&server, &operator, "a".repeat(limit)), 400, "bad-offer").await;
    let json_offer = server.request(Method::POST, MEDIA, &operator).json(&json!({"sdp": offer()}));
    refused(json_offer, 415, "unsupported-media-type").await;
    refused(server.request(Method::POST, MEDIA, &operator).body(offer()), 415, "unsupported-media-type").await;

    let booking = || server.request(Method::POST, "/v1/rooms", server.key("booking"));
    let long = booking().header("content-type", "application/json").body("[".repeat(128 << 10));
    refused(long, 413, "too-large").await;
    refused(booking().header("content-type", "text/plain").body("{}"), 415, "unsupported-media-type").await;
    refused(booking().header("content-type", "application/json").body("{"), 400, "malformed-request").await;
    // Deep nesting must not overflow a stack.
    let deep = booking().header("content-type", "application/json").body("[".repeat(30_000)).send().await.unwrap();
    assert!(deep.status().is_client_error(), "{}", deep.status());
    server.is_well().await;
}

#[tokio::test]
async fn garbage_on_the_http_port_ends_that_connection_only() {
    let mut server = Server::start().await;
    for garbage in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"GET / HTTP/9.9\r\n\r\n", b"\0\0\0\0\r\n\r\n"]
    {
        let mut socket = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        socket.write_all(garbage).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "the connection stays open after {garbage:?}");
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{garbage:?} was accepted");
    }
    server.is_well().await;
}

#[tokio::test]
async fn garbage_and_strangers_on_the_udp_port_get_silence_and_are_counted() {
    let mut server = Server::start().await;
    // A room with a session is there, so that there is somebody to be confused with.
    let (_, operator) = server.open_room().await;
    let answer = post_sdp(&server, &operator, offer()).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    let media = udp_candidate(&answer.text().await.unwrap());

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut noise = 0x2545_f491_4f6c_dd1d_u64;
    let mut datagrams: Vec<Vec<u8>> = (0..200_usize)
        .map(|n| {
            let bytes = (0..n * 7).map(|_| {
                // xorshift: the same noise each time.
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise.to_le_bytes()[0]
            });
            bytes.collect()
        })
        .collect();
    datagrams.push(strangers_binding_request("nobody:stranger"));
    datagrams.push(strangers_binding_request(""));
    datagrams.push(strangers_binding_request(&":".repeat(513)));
    // What starts like DTLS, RTP and RTCP (RFC 7983, section 7) and goes on as nothing.
    datagrams.push([&[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 200][..], &[1; 40]].concat());
    datagrams.push([&[0x80, 111, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1][..], &[7; 100]].concat());
    datagrams.push([&[0x81, 206, 0, 2, 0, 0, 0, 1][..], &[0; 4]].concat());

    let before = server.counter("sportello_datagrams_refused_total").await;
    for datagram in &datagrams {
        socket.send_to(datagram, media).unwrap();
    }
    server.counts_beyond("sportello_datagrams_refused_total", before).await;
    let answer = socket.recv_from(&mut [0; 2_000]);
    assert!(answer.is_err(), "a stranger was answered: {answer:?}");
    server.is_well().await;
}

/// The address of an answer's first UDP candidate (RFC 8839, section 5.1).
fn udp_candidate(answer: &str) -> SocketAddr {
    let line = answer.lines().find(|line| line.starts_with("a=candidate:") && line.to_lowercase().contains(" udp "));
    let words: Vec<&str> = line.expect("the answer has a candidate").split(' ').collect();
    SocketAddr::new(words[4].parse().unwrap(), words[5].parse().unwrap())
}

/// A well-formed STUN binding request (RFC 8489, section 5) of somebody whom the server does not know.
fn strangers_binding_request(user: &str) -> Vec<u8> {
    let attribute = |kind: u16, value: &[u8]| {
        let length = u16::try_from(value.len()).unwrap();
        let mut bytes = [kind.to_be_bytes(), length.to_be_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let attributes = [
        attribute(0x0006, user.as_bytes()),    // USERNAME
        attribute(0x0024, &[0x6e, 0, 1, 255]), // PRIORITY
        attribute(0x802a, &[1; 8]),            // ICE-CONTROLLING
        attribute(0x0008, &[0x5a; 20]),        // MESSAGE-INTEGRITY, not by any key of ours
    ]
    .concat();
    // The length covers FINGERPRINT (8 bytes), which covers all before it (RFC 8489, section 14.7).
    let length = u16::try_from(attributes.len() + 8).unwrap();
    let mut message =
        [&[0x00, 0x01][..], &length.to_be_bytes(), &0x2112_a442_u32.to_be_bytes(), b"stranger-007"].concat();
    message.extend_from_slice(&attributes);
    let fingerprint = crc32(&message) ^ 0x5354_554e;
    message.extend_from_slice(&attribute(0x8028, &fingerprint.to_be_bytes()));
    message
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[test]
fn the_strangers_fingerprint_is_the_standards_crc() {
    // RFC 8489 takes the CRC-32 of ITU V.42, whose check value this is.
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
}
