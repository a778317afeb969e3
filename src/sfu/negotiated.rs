//! What offer and answer agreed on about RTP: payload types, extensions, and which streams belong to which m-line.
//!
//! Read from the two texts themselves. The answer is ours; the offer is a stranger's, and bounded before it gets here.

use crate::rtp::header::ExtensionIds;
use crate::rtp::{Codec, Ssrc};

/// Streams of one m-line that are taken from an offer's `a=ssrc` lines. Three encodings with repairs are six.
const MOST_STREAMS: usize = 16;

/// What a payload type stands for. Bundled m-lines share one meaning (RFC 9143 §9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// Media.
    Media(Codec),
    /// Repairs of media (RFC 4588).
    Repair(Codec),
}

/// What an offer and its answer agreed on.
#[derive(Debug, Default)]
pub(super) struct Negotiated {
    /// The m-lines on which something may flow, in order.
    pub(super) lines: Vec<Line>,
    /// Payload types that we know, by number.
    payloads: Vec<(u8, Payload)>,
    /// Header extensions that the client sends; one meaning for all bundled m-lines (RFC 9143 §9).
    pub(super) ids: ExtensionIds,
    /// The client wants transport-wide feedback.
    pub(super) transport_feedback: bool,
}

/// One m-line.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) mid: String,
    pub(super) codec: Codec,
    pub(super) receives: bool,
    pub(super) sends: bool,
    /// What media goes out as.
    pub(super) payload_type: u8,
    /// The client sends lost packets again when it is asked to (RFC 4585 §6.2.1).
    pub(super) resends: bool,
    /// What repairs go out as.
    pub(super) repair_type: Option<u8>,
    /// The extensions that the client takes on this line.
    pub(super) ids: ExtensionIds,
    /// Our stream, and its repairs.
    pub(super) ours: Option<(Ssrc, Option<Ssrc>)>,
    pub(super) canonical_name: String,
    /// The client's streams as its offer names them, each with its repairs.
    pub(super) theirs: Vec<(Ssrc, Option<Ssrc>)>,
}

impl Negotiated {
    /// Reads what was agreed on.
    pub(super) fn read(offer: &str, answer: &str) -> Self {
        let offered: Vec<Section<'_>> = sections(offer);
        let mut negotiated = Self::default();
        for section in sections(answer) {
            let theirs = offered.iter().find(|offered| offered.mid == section.mid).map(Section::streams);
            negotiated.add(&section, theirs.unwrap_or_default());
        }
        negotiated
    }

    /// What a payload type stands for.
    pub(super) fn payload(&self, payload_type: u8) -> Option<Payload> {
        self.payloads.iter().find(|(known, _)| *known == payload_type).map(|(_, payload)| *payload)
    }

    fn add(&mut self, section: &Section<'_>, theirs: Vec<(Ssrc, Option<Ssrc>)>) {
        let wanted = if section.audio { Codec::Opus } else { Codec::Vp8 };
        let (Some(payload_type), false) = (section.media_type(wanted), section.refused) else { return };
        let repair_type = section.repair_type(payload_type);
        let known = [(Some(payload_type), Payload::Media(wanted)), (repair_type, Payload::Repair(wanted))];
        for (payload_type, payload) in known {
            if let Some(payload_type) = payload_type
                && self.payload(payload_type).is_none()
            {
                self.payloads.push((payload_type, payload));
            }
        }
        let ids = section.ids();
        merge(&mut self.ids, ids);
        let ours = section.streams();
        let (receives, sends) = section.directions();
        self.transport_feedback |= receives && ids.transport_sequence != 0 && section.has_feedback("transport-cc");
        self.lines.push(Line {
            mid: section.mid.to_owned(),
            codec: wanted,
            receives,
            sends: sends && !ours.is_empty(),
            payload_type,
            resends: section.has_feedback("nack"),
            repair_type,
            ids,
            canonical_name: section.canonical_name().to_owned(),
            ours: ours.first().copied(),
            theirs,
        });
    }
}

/// The first meaning of an id stays.
fn merge(into: &mut ExtensionIds, from: ExtensionIds) {
    for (into, from) in [
        (&mut into.audio_level, from.audio_level),
        (&mut into.rotation, from.rotation),
        (&mut into.mid, from.mid),
        (&mut into.rid, from.rid),
        (&mut into.repaired_rid, from.repaired_rid),
        (&mut into.transport_sequence, from.transport_sequence),
    ] {
        if *into == 0 {
            *into = from;
        }
    }
}

/// The same offer without the streams that it names: `str0m` need not know of them, since we receive them.
pub(super) fn without_streams(offer: &str) -> String {
    let names_streams = |line: &&str| line.starts_with("a=ssrc:") || line.starts_with("a=ssrc-group:");
    offer.lines().filter(|line| !names_streams(line)).flat_map(|line| [line, "\r\n"]).collect()
}

/// One m-line with its attributes.
struct Section<'a> {
    audio: bool,
    refused: bool,
    mid: &'a str,
    formats: Vec<u8>,
    attributes: Vec<&'a str>,
}

fn sections(sdp: &str) -> Vec<Section<'_>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    for line in sdp.lines() {
        if let Some(media) = line.strip_prefix("m=") {
            let mut words = media.split(' ');
            let kind = words.next().unwrap_or_default();
            let port = words.next().unwrap_or_default();
            sections.push(Section {
                audio: kind == "audio",
                refused: port == "0" || (kind != "audio" && kind != "video"),
                mid: "",
                formats: words.skip(1).filter_map(|format| format.parse().ok()).collect(),
                attributes: Vec::new(),
            });
        } else if let (Some(attribute), Some(section)) = (line.strip_prefix("a="), sections.last_mut()) {
            if let Some(mid) = attribute.strip_prefix("mid:") {
                section.mid = mid;
            }
            section.attributes.push(attribute);
        }
    }
    sections
}

impl<'a> Section<'a> {
    fn values(&self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.attributes.iter().filter_map(move |attribute| attribute.strip_prefix(key))
    }

    /// What we receive and send, as this answer says it.
    fn directions(&self) -> (bool, bool) {
        let has = |direction: &str| self.attributes.contains(&direction);
        match (has("sendonly"), has("recvonly"), has("inactive")) {
            (true, ..) => (false, true),
            (_, true, _) => (true, false),
            (_, _, true) => (false, false),
            // RFC 8866 §6.7.2: without a word it is both.
            _ => (true, true),
        }
    }

    /// `a=rtpmap` (RFC 8866 §6.6).
    fn encoding(&self, payload_type: u8) -> &'a str {
        let mut maps = self.values("rtpmap:").filter_map(|map| map.split_once(' '));
        maps.find(|(number, _)| number.parse() == Ok(payload_type)).map(|(_, encoding)| encoding).unwrap_or_default()
    }

    fn media_type(&self, codec: Codec) -> Option<u8> {
        let name = match codec {
            Codec::Opus => "opus/48000",
            Codec::Vp8 => "vp8/90000",
        };
        let is_wanted =
            |format: &u8| self.encoding(*format).get(..name.len()).is_some_and(|e| e.eq_ignore_ascii_case(name));
        self.formats.iter().copied().find(is_wanted)
    }

    /// `a=fmtp` with `apt` (RFC 4588 §8.6).
    fn repair_type(&self, payload_type: u8) -> Option<u8> {
        let repairs = |format: &u8| {
            self.encoding(*format).to_ascii_lowercase().starts_with("rtx/")
                && self.values("fmtp:").filter_map(|value| value.split_once(' ')).any(|(number, parameters)| {
                    number.parse() == Ok(*format)
                        && parameters
                            .split(';')
                            .filter_map(|parameter| parameter.trim().strip_prefix("apt="))
                            .any(|apt| apt.parse() == Ok(payload_type))
                })
        };
        self.formats.iter().copied().find(repairs)
    }

    fn has_feedback(&self, wanted: &str) -> bool {
        self.values("rtcp-fb:").filter_map(|value| value.split_once(' ')).any(|(_, feedback)| feedback == wanted)
    }

    /// `a=extmap` (RFC 8285 §8).
    fn ids(&self) -> ExtensionIds {
        let mut ids = ExtensionIds::default();
        for (id, uri) in self.values("extmap:").filter_map(|value| value.split_once(' ')) {
            let Ok(id) = id.split('/').next().unwrap_or_default().parse::<u8>() else { continue };
            let place = match uri.split(' ').next().unwrap_or_default() {
                "urn:ietf:params:rtp-hdrext:ssrc-audio-level" => &mut ids.audio_level,
                "urn:3gpp:video-orientation" => &mut ids.rotation,
                "urn:ietf:params:rtp-hdrext:sdes:mid" => &mut ids.mid,
                "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id" => &mut ids.rid,
                "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id" => &mut ids.repaired_rid,
                "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01" => {
                    &mut ids.transport_sequence
                }
                _ => continue,
            };
            *place = id;
        }
        ids
    }

    /// `a=ssrc` and `a=ssrc-group:FID` (RFC 5576 §4): streams, each with its repairs.
    fn streams(&self) -> Vec<(Ssrc, Option<Ssrc>)> {
        let pairs: Vec<(u32, u32)> = self
            .values("ssrc-group:FID ")
            .filter_map(|pair| pair.trim_end().split_once(' '))
            .filter_map(|(media, repairs)| Some((media.parse().ok()?, repairs.parse().ok()?)))
            .take(MOST_STREAMS)
            .collect();
        let mut streams: Vec<(Ssrc, Option<Ssrc>)> = Vec::new();
        for ssrc in self.values("ssrc:").filter_map(|value| value.split(' ').next()?.parse::<u32>().ok()) {
            let is_repair = pairs.iter().any(|(_, repairs)| *repairs == ssrc);
            if is_repair || streams.len() >= MOST_STREAMS || streams.iter().any(|(known, _)| known.0 == ssrc) {
                continue;
            }
            let repairs = pairs.iter().find(|(media, _)| *media == ssrc).map(|(_, repairs)| Ssrc(*repairs));
            streams.push((Ssrc(ssrc), repairs));
        }
        streams
    }

    fn canonical_name(&self) -> &'a str {
        let names = self.values("ssrc:").filter_map(|value| value.split_once(' ')?.1.strip_prefix("cname:"));
        names.into_iter().next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ssrc:11 cname:them\r\na=ssrc:11 msid:a b\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:1\r\na=ssrc-group:FID 21 22\r\na=ssrc:21 cname:them\r\na=ssrc:22 cname:them\r\n";
    const ANSWER: &str = "v=0\r\na=ice-lite\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=recvonly\r\na=rtpmap:111 opus/48000/2\r\n\
        a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:1\r\na=recvonly\r\na=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 transport-cc\r\n\
        a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
        a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:2\r\na=sendonly\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\n\
        a=fmtp:97 apt=96\r\na=ssrc:31 cname:us\r\na=ssrc:32 cname:us\r\na=ssrc-group:FID 31 32\r\n\
        m=video 0 UDP/TLS/RTP/SAVPF 98\r\na=mid:3\r\na=inactive\r\nm=application 9 X 1\r\na=mid:4\r\n";

    #[test]
    fn both_texts_together_say_which_streams_flow_and_how() {
        let negotiated = Negotiated::read(OFFER, ANSWER);
        assert_eq!(negotiated.payload(111), Some(Payload::Media(Codec::Opus)));
        assert_eq!(negotiated.payload(97), Some(Payload::Repair(Codec::Vp8)));
        assert_eq!(negotiated.payload(98), None);
        assert!(negotiated.transport_feedback);
        assert_eq!((negotiated.ids.audio_level, negotiated.ids.mid, negotiated.ids.transport_sequence), (1, 4, 3));
        let [voice, camera, slot] = &negotiated.lines[..] else { panic!("{:?}", negotiated.lines) };
        assert_eq!(voice.theirs, [(Ssrc(11), None)]);
        assert_eq!(camera.theirs, [(Ssrc(21), Some(Ssrc(22)))]);
        assert!(camera.receives && !camera.sends && slot.sends && !slot.receives);
        assert_eq!(slot.ours, Some((Ssrc(31), Some(Ssrc(32)))));
        assert_eq!((slot.payload_type, slot.repair_type), (96, Some(97)));
        assert_eq!((&*slot.mid, &*slot.canonical_name), ("2", "us"));
        assert_eq!(slot.ids, ExtensionIds::default(), "this line agreed on none");
    }

    #[test]
    fn the_offer_without_its_streams_is_otherwise_the_same() {
        let without = without_streams(OFFER);
        assert!(!without.contains("ssrc"));
        assert!(without.contains("a=mid:1\r\n"));
    }

    #[test]
    fn malformed_lines_are_passed_over() {
        let hostile = "m=\r\nm=audio\r\na=ssrc:\r\na=ssrc:x y\r\na=ssrc-group:FID 1\r\na=fmtp:\r\na=rtpmap:1\r\na=extmap:x\r\n\
                       a=extmap:300 urn:3gpp:video-orientation\r\nm=video 9 X 96\r\na=rtpmap:96 V\u{2603}P8\r\n";
        assert!(Negotiated::read(hostile, hostile).lines.is_empty());
    }
}
