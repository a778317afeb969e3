//! What one client sends: its streams are told apart, opened, counted, and asked for again where they have holes.
//!
//! Pure: datagrams and time in, packets out.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::negotiated::{Negotiated, Payload};
use crate::clock::MonoTime;
use crate::media::Source;
use crate::rtp::header::{Header, Values, without_padding};
use crate::rtp::nack::{Missing, Noted};
use crate::rtp::report::{Reception, RemoteClock};
use crate::rtp::rtcp::{Block, Compound, MOST_BLOCKS, SenderInfo};
use crate::rtp::sequence::{Unwrapper, Window};
use crate::rtp::srtp::Opener;
use crate::rtp::twcc::Arrivals;
use crate::rtp::{Codec, Extensions, Packet, SenderReport, Ssrc};

/// Streams of one client that are kept apart; the one that was silent for the longest makes room. Three encodings of
/// camera and screen with their repairs, a voice, and as many again while a client changes them.
const MOST_STREAMS: usize = 32;

/// A client that sends several encodings may stop the one that was taken: after so long another is. Shorter than what
/// makes the room take the camera for stopped.
const ENCODING_SILENCE: Duration = Duration::from_millis(1_200);

/// Payloads are cut from pieces of this size: larger ones are pinned for longer by the last packet in them, smaller
/// ones are allocated more often.
const PIECE: usize = 64 << 10;

/// Memory that payloads are kept in: one piece serves many packets, of all peers of a worker.
#[derive(Debug, Default)]
pub(super) struct Payloads {
    piece: BytesMut,
}

impl Payloads {
    fn keep(&mut self, payload: &[u8]) -> Bytes {
        if self.piece.capacity() < payload.len() {
            self.piece.reserve(PIECE.max(payload.len()));
        }
        self.piece.extend_from_slice(payload);
        self.piece.split().freeze()
    }
}

/// An encoding's name (RFC 8852 §3), at most 16 bytes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rid([u8; 16]);

impl Rid {
    fn new(text: &[u8]) -> Self {
        let mut rid = [0; 16];
        for (into, from) in rid.iter_mut().zip(text) {
            *into = *from;
        }
        Self(rid)
    }
}

/// Which encoding of a source is taken: the first that comes; of simulcast the others are left while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Any,
    Only { rid: Option<Rid>, last: MonoTime },
}

impl Encoding {
    /// Takes this encoding if none was taken before, or if that one has stopped.
    fn takes(&mut self, rid: Option<Rid>, now: MonoTime) -> bool {
        match *self {
            Self::Only { rid: taken, last } if taken != rid && now.since(last) <= ENCODING_SILENCE => false,
            _ => {
                *self = Self::Only { rid, last: now };
                true
            }
        }
    }

    fn is(self, wanted: Option<Rid>) -> bool {
        matches!(self, Self::Only { rid, .. } if rid == wanted)
    }
}

/// An m-line that the client sends on.
#[derive(Debug)]
struct SourceLine {
    source: Source,
    mid: String,
    codec: Codec,
    encoding: Encoding,
    theirs: Vec<(Ssrc, Option<Ssrc>)>,
    /// Missing packets are asked for: there is a way for them to come.
    repairs: bool,
}

#[derive(Debug)]
struct Stream {
    ssrc: Ssrc,
    window: Window,
    last: MonoTime,
    role: Role,
}

#[derive(Debug)]
enum Role {
    Media {
        line: usize,
        rid: Option<Rid>,
        timestamps: Unwrapper,
        missing: Missing,
        reception: Reception,
    },
    Repair {
        line: usize,
        rid: Option<Rid>,
    },
    /// Padding that only probes the way: browsers send it with SSRC 0.
    Probe,
}

/// What an opened packet asks for besides being passed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wants {
    /// It left a hole: packets are to be asked for now.
    pub(super) repairs: bool,
    /// The hole is so large that only a keyframe helps.
    pub(super) keyframe: Option<Source>,
}

/// What a datagram became.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) media: Option<(Source, Packet)>,
    pub(super) wants: Wants,
}

/// A packet that was opened.
struct Plain<'a> {
    header: Header,
    extensions: Extensions,
    transport_sequence: Option<u16>,
    index: u64,
    payload: &'a [u8],
}

/// Everything that one client sends.
#[derive(Debug, Default)]
pub(super) struct Ingress {
    lines: Vec<SourceLine>,
    streams: Vec<Stream>,
    arrivals: Arrivals,
    clock: RemoteClock,
    /// Packets to ask for, while feedback is written.
    requests: Vec<u16>,
}

impl Ingress {
    /// The sources among the m-lines: the first of audio, the first and the second of video.
    pub(super) fn new(negotiated: &Negotiated) -> Self {
        let mut lines: Vec<SourceLine> = Vec::new();
        for line in negotiated.lines.iter().filter(|line| line.receives) {
            let has = |source| lines.iter().any(|line: &SourceLine| line.source == source);
            let source = match (line.codec, has(Source::Microphone), has(Source::Camera), has(Source::Screen)) {
                (Codec::Opus, false, ..) => Source::Microphone,
                (Codec::Vp8, _, false, _) => Source::Camera,
                (Codec::Vp8, _, true, false) => Source::Screen,
                _ => {
                    tracing::debug!(mid = line.mid, "an m-line too many is not received");
                    continue;
                }
            };
            lines.push(SourceLine {
                source,
                mid: line.mid.clone(),
                codec: line.codec,
                encoding: Encoding::Any,
                theirs: line.theirs.clone(),
                repairs: line.resends,
            });
        }
        Self { lines, ..Self::default() }
    }

    /// Opens a datagram of RTP in place. `None`: it is not authentic, was seen before, or belongs to no source.
    pub(super) fn receive(
        &mut self,
        now: MonoTime,
        opener: &Opener,
        negotiated: &Negotiated,
        datagram: &mut [u8],
        payloads: &mut Payloads,
    ) -> Option<Received> {
        let header = Header::parse(datagram)?;
        let values = Values::read(&header, datagram, &negotiated.ids);
        let (extensions, transport_sequence) = (values.forwarded, values.transport_sequence);
        let (ssrc, sequence, length) = (header.ssrc, header.sequence, header.length);
        let (at, opened) = if let Some(at) = self.streams.iter().position(|stream| stream.ssrc == ssrc) {
            let stream = self.streams.get_mut(at)?;
            let opened = opener.open(&mut stream.window, ssrc, sequence, datagram, length).ok()?;
            stream.last = now;
            (at, opened)
        } else {
            // Only what is authentic becomes a stream.
            let role = self.identify(&header, &values, negotiated)?;
            let mut stream = Stream { ssrc, window: Window::default(), last: now, role };
            let opened = opener.open(&mut stream.window, ssrc, sequence, datagram, length).ok()?;
            (self.add(stream), opened)
        };
        let opened = Plain { header, extensions, transport_sequence, index: opened.index, payload: opened.payload };
        Some(self.take(now, at, &opened, payloads))
    }

    /// Makes a packet of what was opened.
    fn take(&mut self, now: MonoTime, at: usize, opened: &Plain<'_>, payloads: &mut Payloads) -> Received {
        let &Plain { header, extensions, transport_sequence, index, payload } = opened;
        if let Some(sequence) = transport_sequence {
            self.arrivals.note(sequence, now);
        }
        let mut received = Received { media: None, wants: Wants::default() };
        let payload = if header.padding { without_padding(payload) } else { Some(payload) };
        let Some(mut payload) = payload else { return received };
        let (mut at, mut index, mut ssrc) = (at, index, header.ssrc);
        let repaired = match self.streams.get(at).map(|stream| &stream.role) {
            Some(&Role::Repair { line, rid }) => Some((line, rid)),
            Some(Role::Media { .. }) => None,
            Some(Role::Probe) | None => return received,
        };
        if let Some((line, rid)) = repaired {
            // RFC 4588 §4: the original number stands before the payload. Padding alone has none.
            let Some((&original, rest)) = payload.split_first_chunk::<2>() else { return received };
            payload = rest;
            let is_repaired = |stream: &Stream| matches!(stream.role, Role::Media { line: of, rid: encoding, .. } if of == line && encoding == rid);
            let Some(media) = self.streams.iter().rposition(is_repaired) else { return received };
            let Some(stream) = self.streams.get_mut(media) else { return received };
            let Some(original) = stream.window.extend(u16::from_be_bytes(original)) else { return received };
            if !stream.window.is_new(original) {
                return received;
            }
            stream.window.accept(original);
            (at, index, ssrc) = (media, original, stream.ssrc);
        }
        let Some(Stream { role: Role::Media { line, rid, timestamps, missing, reception }, .. }) =
            self.streams.get_mut(at)
        else {
            return received;
        };
        let Some(line) = self.lines.get_mut(*line) else { return received };
        let timestamp = timestamps.extend(header.timestamp);
        if repaired.is_none() {
            reception.note(index, timestamp, line.codec.clock_rate(), now);
        }
        let noted = if line.repairs { missing.note(index, now) } else { Noted::Fine };
        if !line.encoding.takes(*rid, now) {
            return received;
        }
        match noted {
            Noted::Fine => {}
            Noted::Gap => received.wants.repairs = true,
            Noted::Hopeless => received.wants.keyframe = Some(line.source),
        }
        let packet = Packet {
            ssrc,
            codec: line.codec,
            sequence: index,
            timestamp,
            marker: header.marker,
            arrival: now,
            extensions,
            payload: payloads.keep(payload),
        };
        received.media = Some((line.source, packet));
        received
    }

    /// Whose stream an unknown SSRC is: by the offer's `a=ssrc` lines, by the `mid` that it carries (RFC 9143 §9.2), or
    /// because only one m-line may send such payload types.
    fn identify(&self, header: &Header, values: &Values<'_>, negotiated: &Negotiated) -> Option<Role> {
        if header.ssrc.0 == 0 {
            return Some(Role::Probe);
        }
        let named = |line: &SourceLine| {
            line.theirs.iter().any(|(media, repairs)| *media == header.ssrc || *repairs == Some(header.ssrc))
        };
        let payload = negotiated.payload(header.payload_type)?;
        let (Payload::Media(codec) | Payload::Repair(codec)) = payload;
        let alone = || {
            let mut lines = self.lines.iter().enumerate().filter(|(_, line)| line.codec == codec);
            lines.next().filter(|_| lines.next().is_none()).map(|(at, _)| at)
        };
        let line = match values.mid {
            Some(mid) => self.lines.iter().position(|line| line.mid.as_bytes() == mid)?,
            None => self.lines.iter().position(named).or_else(alone)?,
        };
        if self.lines.get(line)?.codec != codec {
            return None;
        }
        let rid = values.repaired_rid.or(values.rid).map(Rid::new);
        Some(match payload {
            Payload::Repair(_) => Role::Repair { line, rid },
            // Padding on a repair's stream may come under the media's payload type; its encoding tells.
            Payload::Media(_) if values.repaired_rid.is_some() => Role::Repair { line, rid },
            Payload::Media(_) => Role::Media {
                line,
                rid,
                timestamps: Unwrapper::default(),
                missing: Missing::default(),
                reception: Reception::default(),
            },
        })
    }

    fn add(&mut self, stream: Stream) -> usize {
        if self.streams.len() >= MOST_STREAMS {
            let silent = self.streams.iter().enumerate().min_by_key(|(_, stream)| stream.last).map(|(at, _)| at);
            if let Some(at) = silent {
                self.streams.remove(at);
            }
        }
        self.streams.push(stream);
        self.streams.len() - 1
    }

    /// Takes a sender report: whose it is, and when its moment was on our clock.
    pub(super) fn note_report(&mut self, now: MonoTime, info: &SenderInfo) -> Option<(Source, SenderReport, MonoTime)> {
        let stream = self.streams.iter_mut().find(|stream| stream.ssrc == info.ssrc)?;
        let Role::Media { line, rid, reception, .. } = &mut stream.role else { return None };
        reception.note_report(info.ntp, now);
        let line = self.lines.get(*line)?;
        if !line.encoding.is(*rid) {
            return None;
        }
        let report = SenderReport { ssrc: info.ssrc, ntp: info.ntp, rtp_timestamp: info.rtp_timestamp, arrival: now };
        let local = self.clock.local(&report);
        Some((line.source, report, local))
    }

    /// The stream to ask for a keyframe of this source.
    pub(super) fn stream_of(&self, source: Source) -> Option<Ssrc> {
        let wanted = |stream: &&Stream| match stream.role {
            Role::Media { line, rid, .. } => {
                self.lines.get(line).is_some_and(|line| line.source == source && line.encoding.is(rid))
            }
            _ => false,
        };
        self.streams.iter().rev().find(wanted).map(|stream| stream.ssrc)
    }

    /// How each stream was received since the last time.
    pub(super) fn blocks(&mut self, now: MonoTime, blocks: &mut [Block; MOST_BLOCKS]) -> usize {
        let mut count = 0;
        for stream in &mut self.streams {
            if let Role::Media { reception, .. } = &mut stream.role
                && let Some(place) = blocks.get_mut(count)
                && let Some(block) = reception.block(stream.ssrc, now)
            {
                *place = block;
                count += 1;
            }
        }
        count
    }

    /// When packets are to be asked for next.
    pub(super) fn requests_due(&self) -> Option<MonoTime> {
        let due = |stream: &Stream| match &stream.role {
            Role::Media { missing, .. } => missing.due(),
            _ => None,
        };
        self.streams.iter().filter_map(due).min()
    }

    /// Asks for what is missing. `full` is asked to send what was written after each stream.
    pub(super) fn write_requests(
        &mut self,
        now: MonoTime,
        round_trip: Duration,
        sender: Ssrc,
        out: &mut Vec<u8>,
        mut full: impl FnMut(&mut Vec<u8>),
    ) {
        for stream in &mut self.streams {
            let Role::Media { line, rid, missing, .. } = &mut stream.role else { continue };
            let taken = self.lines.get(*line).is_some_and(|line| line.encoding.is(*rid));
            self.requests.clear();
            missing.request(now, round_trip, &mut self.requests);
            if taken && !self.requests.is_empty() {
                Compound::new(out).nack(sender, stream.ssrc, &self.requests);
                full(out);
            }
        }
    }

    /// Whether arrivals wait to be told.
    pub(super) fn has_arrivals(&self) -> bool {
        self.arrivals.is_waiting()
    }

    /// Tells when packets came.
    pub(super) fn write_arrivals(&mut self, sender: Ssrc, compound: &mut Compound<'_>) {
        // RFC 4585 §6.1: feedback on the transport names any stream of it.
        let media = self.streams.first().map_or(Ssrc(0), |stream| stream.ssrc);
        compound.transport_feedback(sender, media, |out| self.arrivals.write(out));
    }
}
