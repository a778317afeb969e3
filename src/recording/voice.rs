//! What can be said of a voice by measuring: how long it spoke, was silent, was too loud, and how loud it is.
//!
//! Pure. Speech is what stands out from the noise of its own surroundings, which is followed as it changes: no model,
//! so that everyone can check the result. A hum that never changes becomes noise after a while.

use serde::{Deserialize, Serialize};

use super::mix::peak;

/// Milliseconds in a measured frame.
const FRAME_MS: u64 = 20;

/// Frames of a recording's beginning from which the noise is taken: half a second.
const FIRST_FRAMES: u64 = 25;

/// The noise is taken to lie between these, dBFS. A higher ceiling loses people who speak quietly in a loud room;
/// a lower floor takes breathing for speech.
const NOISE: (f32, f32) = (-75.0, -30.0);

/// How fast the noise may be taken to rise, dB per frame: 1 dB/s. Faster takes long vowels for noise.
const NOISE_RISES: f32 = 0.02;

/// How much of the way down it goes in a frame.
const NOISE_FALLS: f32 = 0.2;

/// Speech is louder than the noise by this, dB, and louder than [`QUIETEST_SPEECH`].
const STANDS_OUT: f32 = 8.0;

/// dBFS.
const QUIETEST_SPEECH: f32 = -58.0;

/// Frames that must stand out in a row: a knock is no word.
const WORD: u64 = 3;

/// Frames after a word that still belong to it: the pauses between words.
const HANGOVER: u64 = 12;

/// A sample this loud was cut off, or nearly.
const CLIPPED: f32 = 0.985;

/// So many in a frame are no accident.
const CLIPPED_SAMPLES: usize = 3;

/// What was measured of one person, over all their connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoiceReport {
    /// Time in which a microphone was being recorded, milliseconds.
    pub recorded_ms: u64,
    /// Of this: speech, with the short pauses in it.
    pub speech_ms: u64,
    /// Of this: no speech.
    pub silence_ms: u64,
    /// Of this: too loud for the microphone or its sender, so that it was cut off.
    pub clipped_ms: u64,
    /// Of this: lost packets that were made up or rebuilt. Only in the session copy: originals hold nothing for them.
    pub concealed_ms: u64,
    /// Mean level of the speech, whole dB below full scale; `None` without speech.
    pub level_dbfs: Option<i32>,
    /// The loudest sample, whole dB below full scale; `None` if there never was a sound.
    pub peak_dbfs: Option<i32>,
}

/// Listens to one person.
#[derive(Debug, Default)]
pub(super) struct Listener {
    frames: u64,
    speech: u64,
    clipped: u64,
    /// Sum of the mean squares of frames with speech, and how many they are.
    energy: f64,
    energetic: u64,
    peak: f32,
    noise: f32,
    /// Frames in a row that stand out.
    run: u64,
    hangover: u64,
}

impl Listener {
    /// Takes the next frame of 20 ms in which a microphone was being recorded.
    pub(super) fn hear(&mut self, samples: &[f32]) {
        let loudest = peak(samples);
        self.peak = self.peak.max(loudest);
        if loudest >= CLIPPED && samples.iter().filter(|sample| sample.abs() >= CLIPPED).count() >= CLIPPED_SAMPLES {
            self.clipped += 1;
        }
        let energy = mean_square(samples);
        let level = decibels(energy);
        self.follow_noise(level);
        self.frames += 1;
        if level > (self.noise + STANDS_OUT).max(QUIETEST_SPEECH) {
            self.run += 1;
            self.energy += f64::from(energy);
            self.energetic += 1;
            if self.run > WORD || self.hangover > 0 {
                self.speech += 1;
            } else if self.run == WORD {
                self.speech += WORD;
            }
            if self.run >= WORD {
                self.hangover = HANGOVER;
            } else {
                self.hangover = self.hangover.saturating_sub(1);
            }
        } else {
            self.run = 0;
            self.speech += u64::from(self.hangover > 0);
            self.hangover = self.hangover.saturating_sub(1);
        }
    }

    /// What was measured; `concealed_ms` is the mixer's to say.
    pub(super) fn report(&self, concealed_ms: u64) -> VoiceReport {
        let speech = self.speech.min(self.frames);
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a mean is rounded")]
        let mean = (self.energy / self.energetic.max(1) as f64) as f32;
        VoiceReport {
            recorded_ms: self.frames * FRAME_MS,
            speech_ms: speech * FRAME_MS,
            silence_ms: (self.frames - speech) * FRAME_MS,
            clipped_ms: self.clipped * FRAME_MS,
            concealed_ms,
            level_dbfs: (speech > 0 && self.energetic > 0).then(|| whole(decibels(mean))),
            peak_dbfs: (self.peak > 0.0).then(|| whole(decibels(self.peak * self.peak))),
        }
    }

    fn follow_noise(&mut self, level: f32) {
        let noise = if self.frames == 0 {
            level
        } else if level < self.noise {
            let share = if self.frames < FIRST_FRAMES { 1.0 } else { NOISE_FALLS };
            self.noise + (level - self.noise) * share
        } else {
            (self.noise + NOISE_RISES).min(level)
        };
        self.noise = noise.clamp(NOISE.0, NOISE.1);
    }
}

fn mean_square(samples: &[f32]) -> f32 {
    let sum = samples.iter().fold(0.0, |sum, sample| sum + sample * sample);
    #[expect(clippy::cast_precision_loss, reason = "a frame has at most some thousand samples")]
    let count = samples.len().max(1) as f32;
    sum / count
}

fn decibels(square: f32) -> f32 {
    10.0 * (square + 1e-10).log10()
}

#[expect(clippy::cast_possible_truncation, reason = "levels lie between -100 and some dozens")]
fn whole(level: f32) -> i32 {
    level.round() as i32
}

#[cfg(test)]
mod tests {
    #![allow(clippy::cast_precision_loss, reason = "samples of a minute fit anywhere")]

    use super::*;

    /// So many frames of noise, with a tone on it.
    fn hear(listener: &mut Listener, frames: usize, noise: f32, tone: f32) {
        let mut state = 12_345_u32;
        for n in 0..frames {
            let frame: Vec<f32> = (0..960)
                .map(|i| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let random = (state >> 8) as f32 / 8_388_608.0 - 1.0;
                    let at = (n * 960 + i) as f32 / 48_000.0;
                    noise * random + tone * (at * 440.0 * std::f32::consts::TAU).sin()
                })
                .collect();
            listener.hear(&frame);
        }
    }

    #[test]
    fn speech_is_told_from_the_noise_of_its_room() {
        for noise in [0.0, 0.001, 0.02] {
            let mut listener = Listener::default();
            for _ in 0..10 {
                hear(&mut listener, 100, noise, 0.0);
                hear(&mut listener, 50, noise, 0.2);
            }
            let report = listener.report(0);
            assert_eq!(report.recorded_ms, 30_000);
            assert_eq!(report.speech_ms + report.silence_ms, 30_000);
            // Ten seconds, and the hangover after each of the ten words but the last.
            assert!(report.speech_ms.abs_diff(10_000 + 9 * 240) <= 400, "noise {noise}: {report:?}");
            assert_eq!((report.clipped_ms, report.level_dbfs), (0, Some(-17)));
            assert!(matches!(report.peak_dbfs, Some(-14 | -13)), "{report:?}");
        }
    }

    #[test]
    fn a_knock_is_no_word_and_noise_alone_no_speech() {
        let mut listener = Listener::default();
        hear(&mut listener, 200, 0.01, 0.0);
        hear(&mut listener, 2, 0.01, 0.5);
        hear(&mut listener, 200, 0.01, 0.0);
        let report = listener.report(0);
        assert_eq!((report.speech_ms, report.silence_ms, report.level_dbfs), (0, 8_040, None));
    }

    #[test]
    fn noise_that_begins_in_mid_call_is_soon_known_as_such() {
        let mut listener = Listener::default();
        hear(&mut listener, 500, 0.000_5, 0.0);
        hear(&mut listener, 6_000, 0.02, 0.0);
        let before = listener.report(0).speech_ms;
        hear(&mut listener, 500, 0.02, 0.0);
        assert_eq!(listener.report(0).speech_ms, before, "an air conditioner is no speaker");
        hear(&mut listener, 50, 0.02, 0.3);
        assert!(listener.report(0).speech_ms >= before + 1_000);
    }

    #[test]
    fn what_was_cut_off_is_counted() {
        let mut listener = Listener::default();
        let loud: Vec<f32> = (0..960).map(|i| (2.0 * (i as f32 * 0.06).sin()).clamp(-1.0, 1.0)).collect();
        for _ in 0..50 {
            listener.hear(&loud);
        }
        let report = listener.report(60);
        assert_eq!((report.clipped_ms, report.peak_dbfs, report.concealed_ms), (1_000, Some(0), 60));
    }
}
