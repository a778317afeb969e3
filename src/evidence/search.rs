//! Finding recordings. What was looked for is written to the audit before anybody is told what was found.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;

use super::access::{line, reason};
use super::{Error, Evidence, RecordingPage, RecordingView, access_of, detail};
use crate::audit::Action;
use crate::id::RoomId;
use crate::store::{Personal, RecordingFilter};

impl Evidence {
    /// Recorded rooms, newest first, a page at a time; `cursor` is a page's `next_cursor`.
    ///
    /// The audit is told by which fields was looked and which rooms were found: not the fiscal code, which could then
    /// never be deleted any more.
    pub async fn search(
        &self,
        caller: &str,
        why: &str,
        mut filter: RecordingFilter,
        cursor: Option<&str>,
    ) -> Result<RecordingPage, Error> {
        let why = reason(why)?;
        for (field, text) in [("office", &mut filter.office), ("counter", &mut filter.counter)] {
            // As they are booked: what a booking cannot hold is not looked for.
            *text = text.take().map(|text| line(field, &text, 200)).transpose()?;
        }
        filter.fiscal_code = filter.fiscal_code.map(|code| fiscal_code(&code)).transpose()?;
        filter.after = cursor.map(parse_cursor).transpose()?;
        let asked_by = [
            ("from", filter.from.is_some()),
            ("to", filter.to.is_some()),
            ("office", filter.office.is_some()),
            ("counter", filter.counter.is_some()),
            ("room", filter.room.is_some()),
            ("fiscal_code", filter.fiscal_code.is_some()),
        ];
        let asked_by: Vec<_> = asked_by.into_iter().filter(|(_, is_set)| *is_set).map(|(field, _)| field).collect();
        let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        filter.limit = filter.limit.saturating_add(1);
        let mut rows = self.0.store.find_recordings(&filter).await?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| more).map(|last| write_cursor(last.room.start, last.room.id));
        let found: Vec<_> = rows.iter().map(|row| row.room.id.to_string()).collect();
        let noted = detail([("asked_by", asked_by.into()), ("found", found.into())]);
        self.0.store.note_access(&access_of(caller, Action::Searched, None, &why, noted), self.now()).await?;
        let recordings = rows.into_iter().map(|row| RecordingView {
            sealing_percent: self.0.sealing.percent(row.room.id),
            ..RecordingView::from(row)
        });
        Ok(RecordingPage { recordings: recordings.collect(), next_cursor })
    }
}

/// As bookings bring it into its one form.
fn fiscal_code(code: &Personal) -> Result<Personal, Error> {
    let code = code.expose().trim().to_ascii_uppercase();
    let usual = code.len() == 16 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let provisional = code.len() == 11 && code.bytes().all(|byte| byte.is_ascii_digit());
    if usual || provisional {
        return Ok(Personal::new(code));
    }
    Err(Error::Invalid { field: "fiscal_code", reason: "16 letters and digits, or 11 digits".into() })
}

fn write_cursor(start: Timestamp, id: RoomId) -> String {
    URL_SAFE_NO_PAD.encode(format!("{} {id}", start.as_millisecond()))
}

fn parse_cursor(cursor: &str) -> Result<(Timestamp, RoomId), Error> {
    let read = || {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
        let (start, id) = text.split_once(' ')?;
        Some((Timestamp::from_millisecond(start.parse().ok()?).ok()?, id.parse().ok()?))
    };
    read().ok_or_else(|| Error::Invalid { field: "cursor", reason: "a `next_cursor` of an earlier page".into() })
}
