//! Everyone's voice into one sound: decodes each voice, places it on the session's timeline, mixes, limits, encodes.
//!
//! Pure, streaming: a voice holds what is decoded and not mixed yet, a fraction of a second. Times are samples at
//! 48 kHz from the session's zero. A voice stands where its block times say, to within a few milliseconds: sample
//! counts and block times drift apart (two clocks, RTCP corrections), so a packet may be stretched by a hundredth, and
//! is set anew, without a click, where that is not enough. What was lost is concealed up to a bound; a pause of the
//! sender is silence.

use opus::{Application, Bitrate, Channels, Decoder, Encoder};

/// Samples per second.
pub(super) const RATE: u32 = 48_000;

/// Samples per millisecond.
pub(super) const PER_MS: i64 = 48;

/// Samples mixed and encoded at a time: 20 ms.
pub(super) const FRAME: usize = 960;

/// The longest Opus packet: 120 ms (RFC 6716 §3.2.5).
const LONGEST_PACKET: usize = 5_760;

/// Lost packets are concealed up to 120 ms. Longer invents sound that nobody made; shorter cuts words that can still
/// be understood.
const LONGEST_CONCEALED: i64 = 120 * PER_MS;

/// How far ahead of the mix voices are decoded, ms: a gap's length is known before it is played, so that it is either
/// concealed or faded, never cut. More than [`LONGEST_CONCEALED`], two frames and a block's own time.
pub(super) const HORIZON_MS: i64 = 200;

/// A packet that stands further from its block's time is set anew. Higher and lips and voice drift apart; lower and
/// corrections that a stretch could still hide become splices.
const FURTHEST: i64 = 20 * PER_MS;

/// Smaller distances are left alone: block times are whole milliseconds.
const DEAD_ZONE: f32 = 48.0;

/// A packet is stretched by at most 1/100: nobody hears the pitch.
const GENTLE: i64 = 100;

/// Two sounds are blended over 5 ms where one is set anew.
const BLEND: usize = 240;

/// A sound that stops fades out over 10 ms of concealment.
const FADE_OUT: usize = 480;

/// A sound that begins after silence fades in over 2.5 ms.
const FADE_IN: usize = 120;

/// Samples by which interpolation lags: it looks at two more to the right.
const LAG: i64 = 2;

/// A packet of so few bytes says that nothing is sent for now (DTX, RFC 6716 §2.1.9).
const DTX_BYTES: usize = 2;

/// Bits per second of the mix: one channel of full-band sound, at which tests hear no difference.
const BITRATE: i32 = 64_000;

/// No packet of 20 ms at this bitrate is longer (RFC 6716 §3.2.1: a frame has at most 1,275 bytes).
const LARGEST_PACKET: usize = 1_275;

/// What happened to a voice on its way into the mix.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct VoiceCounts {
    /// Packets decoded.
    pub(super) packets: u64,
    /// Packets that no decoder takes.
    pub(super) unreadable: u64,
    /// Samples made up for lost packets, or rebuilt from what later ones told of them.
    pub(super) concealed: i64,
    /// Times that the voice was set anew because it stood too far from its block's time.
    pub(super) set_anew: u64,
    /// The furthest that a packet stood from its block's time, and the sum of all, samples.
    pub(super) furthest: i64,
    pub(super) distances: i64,
}

/// One connection's voice.
pub(super) struct Voice {
    decoder: Decoder,
    pre_skip: i64,
    /// Placed and not mixed yet; its first sample is at `begin`.
    placed: Vec<f32>,
    begin: i64,
    /// Where the last packet ended, by its block's time; `None` before the first.
    expected: Option<i64>,
    /// Sound is on at the end of `placed`, and must be faded before silence.
    sounding: bool,
    /// Smoothed distance between where packets stand and where their times say.
    distance: f32,
    /// Three earlier samples, then the packet.
    input: Vec<f32>,
    fresh: Vec<f32>,
    counts: VoiceCounts,
}

impl Voice {
    pub(super) fn new(pre_skip: u16) -> opus::Result<Self> {
        Ok(Self {
            decoder: Decoder::new(RATE, Channels::Mono)?,
            pre_skip: pre_skip.into(),
            placed: Vec::with_capacity(LONGEST_PACKET * 3),
            begin: 0,
            expected: None,
            sounding: false,
            distance: 0.0,
            input: vec![0.0; HISTORY + LONGEST_PACKET],
            fresh: Vec::with_capacity(LONGEST_PACKET * 2),
            counts: VoiceCounts::default(),
        })
    }

    pub(super) fn counts(&self) -> VoiceCounts {
        self.counts
    }

    /// Nothing is left to mix.
    pub(super) fn is_empty(&self) -> bool {
        self.placed.is_empty()
    }

    /// Takes the packet of a block at `at`; the blocks of the next [`HORIZON_MS`] are to come before the mix goes on.
    pub(super) fn push(&mut self, at: i64, packet: &[u8]) {
        let Ok(length) = self.decoder.get_nb_samples(packet) else {
            // Its time shows as a gap.
            self.counts.unreadable += 1;
            return;
        };
        let target = at - self.pre_skip - LAG;
        let hole = target - self.end();
        let missing = self.expected.is_some_and(|expected| (at - expected) * 2 >= signed(length));
        let mut stretch = 0;
        let mut back = 0;
        if self.sounding {
            if missing || hole > FURTHEST {
                self.counts.set_anew += u64::from(!missing);
                self.bridge(hole, packet);
                self.distance = 0.0;
            } else if hole < -FURTHEST {
                self.counts.set_anew += 1;
                self.distance = 0.0;
                back = -hole;
            } else {
                self.counts.furthest = self.counts.furthest.max(hole.abs());
                self.counts.distances += hole.abs();
                self.distance += (approximately(hole) - self.distance) / 16.0;
                let most = signed(length) / GENTLE;
                stretch = toward_zero(self.distance / DEAD_ZONE).clamp(-most, most);
            }
        }
        if !self.sounding {
            let hole = target - self.end();
            self.pad(hole);
            back = (-hole).max(0);
        }
        self.expected = Some(at + signed(length));
        if self.decode(packet, length, false).is_err() {
            self.counts.unreadable += 1;
            self.fall_silent();
            return;
        }
        self.counts.packets += 1;
        if packet.len() <= DTX_BYTES {
            if self.sounding {
                self.render(FADE_OUT.min(length), 0);
                self.end_fading();
            }
            return;
        }
        self.render(length, stretch);
        let fades_in = !self.sounding;
        self.append(unsigned(back), fades_in);
        self.sounding = true;
    }

    /// No packet follows within the horizon: lets the sound end if the mix, which goes on to `until`, needs more than
    /// there is.
    pub(super) fn trail_off(&mut self, until: i64) {
        if self.sounding && self.end() < until {
            self.fall_silent();
        }
    }

    /// Adds what stands at `from` and after to `mix`. Earlier samples are never asked for again.
    pub(super) fn mix_into(&mut self, mix: &mut [f32], from: i64) {
        let until = from + signed(mix.len());
        let lead = unsigned(self.begin - from).min(mix.len());
        let skip = unsigned(from - self.begin).min(self.placed.len());
        let (_, place) = mix.split_at_mut(lead);
        let (_, sound) = self.placed.split_at(skip);
        for (sum, sample) in place.iter_mut().zip(sound) {
            *sum += sample;
        }
        let used = unsigned(until - self.begin).min(self.placed.len());
        self.placed.drain(..used);
        self.begin += signed(used);
        if self.placed.is_empty() {
            self.begin = self.begin.max(until);
        }
    }

    /// The next sample goes here.
    fn end(&self) -> i64 {
        self.begin + signed(self.placed.len())
    }

    /// Fills the time before a packet that did not follow on: with what its neighbours tell, or with silence.
    fn bridge(&mut self, hole: i64, next: &[u8]) {
        // Concealment comes in steps of 2.5 ms; what is left over is drift.
        let steps = (hole + 60) / 120;
        if hole > LONGEST_CONCEALED {
            self.fall_silent();
        } else if steps > 0 {
            let length = unsigned(steps * 120);
            // The next packet may carry the lost one in coarse (FEC); without that the decoder goes on from the last.
            if self.decode(next, length, true).is_ok() {
                self.render(length, 0);
                self.append(0, false);
                self.counts.concealed += signed(length);
            } else {
                self.fall_silent();
            }
        }
    }

    /// Ends the sound with a short fade of what would have come next.
    fn fall_silent(&mut self) {
        if self.sounding && self.decode(&[], FADE_OUT, false).is_ok() {
            self.render(FADE_OUT, 0);
            self.end_fading();
        }
        self.sounding = false;
    }

    fn end_fading(&mut self) {
        let length = self.fresh.len();
        for (sample, left) in self.fresh.iter_mut().zip((0..length).rev()) {
            *sample *= share(left, length);
        }
        self.append(0, false);
        self.sounding = false;
        self.input.iter_mut().take(HISTORY).for_each(|sample| *sample = 0.0);
    }

    /// Decodes behind the history.
    fn decode(&mut self, packet: &[u8], length: usize, fec: bool) -> opus::Result<()> {
        let output = self.input.get_mut(HISTORY..HISTORY + length).unwrap_or_default();
        self.decoder.decode_float(packet, output, fec).map(drop)
    }

    /// Turns `length` decoded samples into `length + stretch` fresh ones, and keeps the last as history.
    fn render(&mut self, length: usize, stretch: i64) {
        let input = self.input.get(..HISTORY + length).unwrap_or_default();
        self.fresh.clear();
        if stretch == 0 {
            self.fresh.extend_from_slice(input.get(1..=length).unwrap_or_default());
        } else {
            interpolate(input, unsigned(signed(length) + stretch), &mut self.fresh);
        }
        self.input.copy_within(length..HISTORY + length, 0);
    }

    /// Places what is fresh, `back` samples before the end: blended with what stands there, less what is mixed already.
    fn append(&mut self, back: usize, fades_in: bool) {
        let kept = self.placed.len().saturating_sub(back);
        let mixed = back.saturating_sub(self.placed.len()).min(self.fresh.len());
        if fades_in {
            for (n, sample) in self.fresh.iter_mut().skip(mixed).take(FADE_IN).enumerate() {
                *sample *= share(n, FADE_IN);
            }
        }
        let fresh = self.fresh.get_mut(mixed..).unwrap_or_default();
        let old = self.placed.get(kept..).unwrap_or_default();
        let blend = BLEND.min(old.len()).min(fresh.len());
        for ((n, new), old) in fresh.iter_mut().take(blend).enumerate().zip(old) {
            *new = old + (*new - old) * share(n, blend);
        }
        self.placed.truncate(kept);
        self.placed.extend_from_slice(fresh);
    }

    fn pad(&mut self, samples: i64) {
        if self.placed.is_empty() {
            self.begin += samples.max(0);
        } else {
            self.placed.resize(self.placed.len() + unsigned(samples), 0.0);
        }
    }
}

/// Samples before a packet that its interpolation looks at.
const HISTORY: usize = 3;

/// `count` samples from the second of `input` to before its last but one, evenly spaced (cubic, Catmull-Rom).
fn interpolate(input: &[f32], count: usize, into: &mut Vec<f32>) {
    let span = approximate_count(input.len().saturating_sub(HISTORY));
    let step = span / approximate_count(count.max(1));
    for n in 0..count {
        let position = 1.0 + approximate_count(n) * step;
        let left = floor(position);
        let Some(&[before, from, to, after]) = input.get(left - 1..left + 3) else {
            return;
        };
        let (rise, slope, next_slope) = (to - from, (to - before) / 2.0, (after - from) / 2.0);
        let share = fraction(position);
        let bend = 3.0 * rise - 2.0 * slope - next_slope;
        let twist = slope + next_slope - 2.0 * rise;
        into.push(from + share * (slope + share * (bend + share * twist)));
    }
}

/// Mixes voices and encodes the mix.
pub(super) struct Mixer {
    encoder: Encoder,
    limiter: Limiter,
    packet: Vec<u8>,
}

impl Mixer {
    pub(super) fn new() -> opus::Result<Self> {
        let mut encoder = Encoder::new(RATE, Channels::Mono, Application::Audio)?;
        encoder.set_bitrate(Bitrate::Bits(BITRATE))?;
        Ok(Self { encoder, limiter: Limiter::new(), packet: vec![0; LARGEST_PACKET] })
    }

    /// Samples by which a frame that goes in must lie ahead of the packet that comes out.
    pub(super) const AHEAD: usize = LOOK_AHEAD * PART;

    /// Fills the look-ahead with the first [`Self::AHEAD`] samples.
    pub(super) fn prime(&mut self, sum: &[f32]) {
        self.limiter.prime(sum);
    }

    /// Takes the next 20 ms of everyone's sum, and gives the packet of the 20 ms that lie [`Self::AHEAD`] before them.
    pub(super) fn encode(&mut self, sum: &mut [f32; FRAME]) -> opus::Result<&[u8]> {
        self.limiter.limit(sum);
        let length = self.encoder.encode_float(sum, &mut self.packet)?;
        Ok(self.packet.get(..length).unwrap_or_default())
    }
}

/// The loudest that the mix becomes: −1 dBFS, which leaves the encoder room to overshoot.
const CEILING: f32 = 0.891;

/// The limiter sets its gain for 1 ms at a time.
const PART: usize = 48;

/// It sees loud parts coming 5 ms ahead, and turns down without a click.
const LOOK_AHEAD: usize = 5;

/// How much of the way back to full gain is made in 1 ms: 63 % in 300 ms. Faster pumps; slower stays quiet after a shout.
const RELEASE: f32 = 1.0 / 300.0;

/// Keeps the sum of voices under [`CEILING`].
struct Limiter {
    /// The samples that wait: [`Mixer::AHEAD`] of them at any time.
    waiting: Vec<f32>,
    gain: f32,
}

impl Limiter {
    fn new() -> Self {
        Self { waiting: Vec::with_capacity(Mixer::AHEAD + FRAME), gain: 1.0 }
    }

    fn prime(&mut self, samples: &[f32]) {
        self.waiting.clear();
        self.waiting.extend_from_slice(samples);
        self.waiting.resize(Mixer::AHEAD, 0.0);
        self.gain = CEILING / peak(&self.waiting).max(CEILING);
    }

    /// Replaces a frame by the one [`Mixer::AHEAD`] before it, limited.
    fn limit(&mut self, frame: &mut [f32; FRAME]) {
        self.waiting.extend_from_slice(frame);
        // The gain that each part may have at most, of this frame and of what is seen ahead.
        let mut most = [1.0_f32; FRAME / PART + LOOK_AHEAD];
        for (most, part) in most.iter_mut().zip(self.waiting.chunks(PART)) {
            *most = CEILING / peak(part).max(CEILING);
        }
        let parts = frame.chunks_mut(PART).zip(self.waiting.chunks(PART)).zip(most.windows(LOOK_AHEAD + 1));
        for ((into, part), ahead) in parts {
            let from = self.gain;
            let mut to = from + (1.0 - from) * RELEASE;
            // Evenly down, so that a loud part finds its gain where it begins.
            for (parts_away, most) in (0_u8..).zip(ahead) {
                let left = if parts_away > 1 { 1.0 - 1.0 / f32::from(parts_away) } else { 0.0 };
                to = to.min(most + (from - most).max(0.0) * left);
            }
            let step = (to - from) / 48.0;
            let mut gain = from;
            for (into, sample) in into.iter_mut().zip(part) {
                gain += step;
                *into = sample * gain;
            }
            self.gain = to;
        }
        self.waiting.drain(..FRAME);
    }
}

/// The loudest sample, regardless of its sign.
pub(super) fn peak(samples: &[f32]) -> f32 {
    samples.iter().fold(0.0, |peak, sample| peak.max(sample.abs()))
}

/// A count of samples as time.
pub(super) fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A time as a count of samples; nothing if it is negative.
pub(super) fn unsigned(samples: i64) -> usize {
    usize::try_from(samples).unwrap_or(0)
}

fn share(part: usize, whole: usize) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "a share is rounded")]
    let share = (approximate_count(part) / approximate_count(whole.max(1))) as f32;
    share
}

#[expect(clippy::cast_precision_loss, reason = "only distances within a second are taken for this")]
fn approximately(samples: i64) -> f32 {
    samples as f32
}

#[expect(clippy::cast_precision_loss, reason = "a packet has at most some thousand samples")]
fn approximate_count(samples: usize) -> f64 {
    samples as f64
}

#[expect(clippy::cast_possible_truncation, reason = "a cast saturates, and the caller clamps")]
fn toward_zero(value: f32) -> i64 {
    value as i64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positions are small and positive")]
fn floor(position: f64) -> usize {
    position as usize
}

#[expect(clippy::cast_possible_truncation, reason = "a fraction is rounded")]
fn fraction(position: f64) -> f32 {
    position.fract() as f32
}

#[cfg(test)]
mod tests;
