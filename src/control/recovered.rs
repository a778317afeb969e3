//! Originals that were found when the node came up: what the database or a ledger does not know of them yet.

use super::actor::Ask;
use super::{Control, Error, Media, Recording, unavailable};
use crate::id::{ConnectionId, ParticipantId};
use crate::recording::recover::{OriginalEnd, RecoveredOriginal};
use crate::room::ledger::Line;
use crate::room::{Command, Event};
use crate::store::StoredOriginal;

impl<M: Media, R: Recording> Control<M, R> {
    /// Takes up what [`recover`](crate::recording::recover) found: each original that the database does not know, and a
    /// line in the ledger for each that was cut. Told again, it changes nothing.
    pub async fn take_recovered(&self, originals: Vec<RecoveredOriginal>) {
        for found in originals {
            let (room, file) = (found.room, found.original.file.clone());
            if let Err(error) = self.keep_recovered(found).await {
                tracing::error!(%room, file, cause = ?error, "an original that was found could not be written down");
            }
        }
    }

    async fn keep_recovered(&self, found: RecoveredOriginal) -> Result<(), Error> {
        let RecoveredOriginal { room, connection, original, end } = found;
        let lines = self.shared.store.ledger(room).await.map_err(unavailable)?;
        if lines.is_empty() {
            return Err(Error::UnknownRoom);
        }
        let participant = owner_in(&lines, connection).ok_or(Error::UnknownConnection)?;
        if let OriginalEnd::Cut { tail_bytes, lost_from } = end {
            let told =
                |line: &Line| matches!(&line.event, Event::RecordingRecovered { file, .. } if *file == original.file);
            if !lines.iter().any(told) {
                tracing::warn!(%room, file = original.file, tail_bytes, %lost_from, "a recording was cut to what is whole");
                let (file, until_ms) = (original.file.clone(), original.duration_ms);
                let command = Command::RecordingRecovered { participant, connection, file, until_ms, tail_bytes };
                self.ask(room, |reply| Ask::Command { caller: None, command, expected: None, reply }).await?;
            }
        }
        let stored = StoredOriginal { connection, participant, original };
        self.shared.store.add_original(room, &stored, self.shared.clock.now().wall).await.map_err(unavailable)
    }
}

/// Whose connection it was. That media was recorded may have been written down before that the connection stood.
fn owner_in(lines: &[Line], connection: ConnectionId) -> Option<ParticipantId> {
    lines.iter().find_map(|line| match line.event {
        Event::Connected { participant, connection: one }
        | Event::RecordingStarted { participant, connection: one }
            if one == connection =>
        {
            Some(participant)
        }
        _ => None,
    })
}
