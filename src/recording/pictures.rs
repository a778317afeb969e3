//! Pictures of which nothing can be recorded until a keyframe comes: asked for one, and told of when none comes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::Fact;
use super::connection::Connection;
use crate::clock::MonoTime;
use crate::id::ConnectionId;
use crate::media::Source;

/// A new picture begins with a keyframe, of several packets: so long it is waited for before one is asked for. Shorter
/// asks every camera for a second one; longer delays a picture whose first keyframe was lost.
const FIRST_KEYFRAME: Duration = Duration::from_millis(300);

/// Least time between two requests to one source. A keyframe costs ten ordinary frames; a browser answers within this
/// time.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// A picture that none of three requests brought back is missing. Longer keeps the operator in the dark, who is to
/// know within 5 s; shorter calls every longer loss of packets a missing picture.
const MISSING_AFTER: Duration = Duration::from_millis(3_500);

/// The pictures of a room that wait for a keyframe.
#[derive(Debug, Default)]
pub(super) struct Pictures(BTreeMap<(ConnectionId, Source), Waiting>);

#[derive(Debug)]
struct Waiting {
    since: MonoTime,
    asked: Option<MonoTime>,
    /// It was told that the picture is missing.
    told: bool,
}

impl Pictures {
    /// Looks which pictures wait, and says what is to be asked for and told.
    pub(super) fn look(
        &mut self,
        connections: &BTreeMap<ConnectionId, Connection>,
        now: MonoTime,
        facts: &mut VecDeque<Fact>,
    ) {
        let mut waiting = BTreeMap::new();
        for (&connection, entry) in connections {
            for (source, _) in entry.pictures(now).filter(|(_, waits)| *waits) {
                let new = Waiting { since: now, asked: None, told: false };
                let mut picture = self.0.remove(&(connection, source)).unwrap_or(new);
                picture.wait(connection, source, now, facts);
                waiting.insert((connection, source), picture);
            }
        }
        // These have their keyframe, or do not arrive any more.
        for ((connection, source), picture) in std::mem::replace(&mut self.0, waiting) {
            if picture.told {
                facts.push_back(Fact::PictureBack { connection, source });
            }
        }
    }
}

impl Waiting {
    fn wait(&mut self, connection: ConnectionId, source: Source, now: MonoTime, facts: &mut VecDeque<Fact>) {
        let due = match self.asked {
            None => now.since(self.since) >= FIRST_KEYFRAME,
            Some(asked) => now.since(asked) >= ASK_EVERY,
        };
        if due {
            self.asked = Some(now);
            metrics::counter!("sportello_recording_keyframes_wanted_total").increment(1);
            facts.push_back(Fact::KeyframeWanted { connection, source });
        }
        if !self.told && now.since(self.since) >= MISSING_AFTER {
            self.told = true;
            facts.push_back(Fact::PictureMissing { connection, source, since: self.since });
        }
    }
}
