//! What we look at in SDP ourselves: bounds before it is parsed, and the credentials of an ICE restart.

use std::iter;

use super::ConnectError;

/// M-lines that an offer may have. A page offers 11; every one costs memory for the call's whole length.
const MOST_MEDIA_LINES: usize = 40;

/// Lines of any kind; Chromium's offer with 11 m-lines has about 400.
const MOST_LINES: usize = 4_000;

/// Refuses what no client of ours would send, before a parser sees it.
pub(super) fn check_offer(offer: &str) -> Result<(), ConnectError> {
    if !offer.starts_with("v=0") {
        return Err(ConnectError::BadOffer("it does not begin with v=0".into()));
    }
    if offer.lines().count() > MOST_LINES {
        return Err(ConnectError::BadOffer(format!("more than {MOST_LINES} lines")));
    }
    let media = media_lines(offer).count();
    if media > MOST_MEDIA_LINES {
        return Err(ConnectError::BadOffer(format!("{media} m-lines, at most {MOST_MEDIA_LINES} are answered")));
    }
    if media_lines(offer).all(|line| !line.starts_with("m=audio") && !line.starts_with("m=video")) {
        return Err(ConnectError::NothingToAnswer);
    }
    Ok(())
}

/// Refuses an answer in which no media line has a codec left.
pub(super) fn check_answer(answer: &str) -> Result<(), ConnectError> {
    let has_codec =
        |line: &str| line.starts_with("a=rtpmap:") && (line.contains(" opus/48000") || line.contains(" VP8/90000"));
    if answer.lines().any(has_codec) { Ok(()) } else { Err(ConnectError::NothingToAnswer) }
}

/// The same offer with the credentials of a `trickle-ice-sdpfrag` (RFC 8840 §9). `None`: the fragment has none, or
/// those that are in use.
pub(super) fn with_credentials(offer: &str, fragment: &str) -> Result<Option<String>, ConnectError> {
    let value = |text: &str, key: &str| text.lines().find_map(|line| line.strip_prefix(key).map(str::to_owned));
    let (ufrag, pwd) = match (value(fragment, "a=ice-ufrag:"), value(fragment, "a=ice-pwd:")) {
        (None, None) => return Ok(None),
        (Some(ufrag), Some(pwd)) => (ufrag, pwd),
        _ => return Err(ConnectError::BadOffer("a fragment has ice-ufrag and ice-pwd, or neither".into())),
    };
    if !is_ice_text(&ufrag, 4) || !is_ice_text(&pwd, 22) {
        return Err(ConnectError::BadOffer("ice-ufrag or ice-pwd is malformed".into()));
    }
    if value(offer, "a=ice-ufrag:").as_deref() == Some(&*ufrag) && value(offer, "a=ice-pwd:").as_deref() == Some(&*pwd)
    {
        return Ok(None);
    }
    let lines = offer.lines().filter(|line| !line.starts_with("a=candidate:")).map(|line| match line {
        _ if line.starts_with("a=ice-ufrag:") => format!("a=ice-ufrag:{ufrag}\r\n"),
        _ if line.starts_with("a=ice-pwd:") => format!("a=ice-pwd:{pwd}\r\n"),
        _ => format!("{line}\r\n"),
    });
    Ok(Some(lines.collect()))
}

/// The same answer without feedback that its m-line was not offered: an answer adds none (RFC 4585 §4.2).
pub(super) fn with_offered_feedback(answer: &str, offer: &str) -> String {
    let mut offered = by_media_line(offer);
    let mut kept = String::with_capacity(answer.len());
    for section in by_media_line(answer) {
        let offered: Vec<_> = offered.next().into_iter().flat_map(str::lines).filter_map(feedback).collect();
        let is_offered = |line: &&str| {
            feedback(line).is_none_or(|(payload_type, wanted)| {
                offered.iter().any(|&(of, what)| what == wanted && (of == payload_type || of == "*"))
            })
        };
        for line in section.lines().filter(is_offered) {
            kept.push_str(line);
            kept.push_str("\r\n");
        }
    }
    kept
}

/// A payload type and what may be told about it.
fn feedback(line: &str) -> Option<(&str, &str)> {
    line.trim_end().strip_prefix("a=rtcp-fb:")?.split_once(' ')
}

/// What stands before the first m-line, then each m-line with its attributes.
fn by_media_line(sdp: &str) -> impl Iterator<Item = &str> {
    let starts = sdp.match_indices("\nm=").map(|(at, _)| at + 1);
    let ends = starts.clone().chain([sdp.len()]);
    iter::once(0).chain(starts).zip(ends).map(|(start, end)| &sdp[start..end])
}

/// The same answer with the candidates in every m-line. One bundled transport needs them once (RFC 9143 §7.2), and
/// there are clients that look for them in the last.
pub(super) fn with_candidates_everywhere(answer: &str) -> String {
    let is_candidate = |line: &str| line.starts_with("a=candidate:") || line == "a=end-of-candidates";
    let candidates: Vec<&str> = answer.lines().filter(|line| is_candidate(line)).collect();
    let mut lines: Vec<&str> = Vec::new();
    let mut open = false;
    for line in answer.lines().filter(|line| !is_candidate(line)).chain(iter::once("m=")) {
        if line.starts_with("m=") && std::mem::replace(&mut open, line.split(' ').nth(1) != Some("0")) {
            lines.extend(&candidates);
        }
        if line != "m=" {
            lines.push(line);
        }
    }
    lines.iter().flat_map(|line| [line, "\r\n"]).collect()
}

/// The credentials and candidates of an answer as a `trickle-ice-sdpfrag`.
pub(super) fn fragment_of(answer: &str) -> String {
    let mut fragment = String::new();
    let mut sections = 0;
    for line in answer.lines() {
        if line.starts_with("m=") {
            sections += 1;
        }
        let wanted = ["m=", "a=mid:", "a=ice-ufrag:", "a=ice-pwd:", "a=candidate:", "a=end-of-candidates"];
        // All m-lines share one transport (BUNDLE): the first speaks for it.
        if sections <= 1 && (line == "a=ice-lite" || wanted.iter().any(|prefix| line.starts_with(prefix))) {
            fragment.push_str(line);
            fragment.push_str("\r\n");
        }
    }
    fragment
}

fn media_lines(sdp: &str) -> impl Iterator<Item = &str> {
    sdp.lines().filter(|line| line.starts_with("m="))
}

/// `ice-char` text of a length within the grammar (RFC 8839 §5.4).
fn is_ice_text(text: &str, least: usize) -> bool {
    (least..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=ice-ufrag:abcd\r\n\
                         a=ice-pwd:aaaaaaaaaaaaaaaaaaaaaa\r\na=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\n";

    #[test]
    fn an_offer_is_bounded_before_it_is_parsed() {
        assert!(check_offer(OFFER).is_ok());
        assert!(matches!(check_offer("hello"), Err(ConnectError::BadOffer(_))));
        assert_eq!(check_offer("v=0\r\nm=application 9 X 1\r\n"), Err(ConnectError::NothingToAnswer));
        let many = format!("v=0\r\n{}", "m=audio 9 X 1\r\n".repeat(MOST_MEDIA_LINES + 1));
        assert!(matches!(check_offer(&many), Err(ConnectError::BadOffer(_))));
    }

    #[test]
    fn every_m_line_that_is_not_refused_holds_the_candidates() {
        let answer = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\na=end-of-candidates\r\n\
                      a=mid:0\r\nm=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:2\r\n";
        let expected = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\n\
                        a=end-of-candidates\r\nm=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n\
                        a=mid:2\r\na=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\na=end-of-candidates\r\n";
        assert_eq!(with_candidates_everywhere(answer), expected);
    }

    #[test]
    fn an_answer_holds_no_feedback_that_was_not_offered() {
        let offer = "v=0\r\nm=audio 9 X 111\r\na=rtcp-fb:111 transport-cc\r\nm=video 9 X 96\r\na=rtcp-fb:* nack\r\n\
                     a=rtcp-fb:96 nack pli\r\n";
        let answer = "v=0\r\nm=audio 9 X 111\r\na=rtcp-fb:111 transport-cc\r\na=rtcp-fb:111 nack\r\nm=video 9 X 96\r\n\
                      a=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 ccm fir\r\n";
        let expected = "v=0\r\nm=audio 9 X 111\r\na=rtcp-fb:111 transport-cc\r\nm=video 9 X 96\r\na=rtcp-fb:96 nack\r\n\
                        a=rtcp-fb:96 nack pli\r\n";
        assert_eq!(with_offered_feedback(answer, offer), expected);
    }

    #[test]
    fn a_fragment_with_new_credentials_changes_the_offer_and_one_without_does_not() {
        assert_eq!(with_credentials(OFFER, "a=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\n"), Ok(None));
        assert_eq!(with_credentials(OFFER, "a=ice-ufrag:abcd\r\na=ice-pwd:aaaaaaaaaaaaaaaaaaaaaa\r\n"), Ok(None));
        let changed =
            with_credentials(OFFER, "a=ice-ufrag:wxyz\r\na=ice-pwd:bbbbbbbbbbbbbbbbbbbbbb\r\n").unwrap().unwrap();
        assert!(changed.contains("a=ice-ufrag:wxyz") && !changed.contains("a=candidate"));
        assert!(with_credentials(OFFER, "a=ice-ufrag:wxyz\r\n").is_err());
        assert!(with_credentials(OFFER, "a=ice-ufrag:w\nxyz\r\na=ice-pwd:short\r\n").is_err());
    }
}
