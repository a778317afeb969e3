//! Italy's public holidays.

use jiff::civil::Date;

/// Whether a day is a public holiday in all of Italy: Law 260/1949, art. 2, as it stands after Law 54/1977,
/// DPR 792/1985 (Epiphany), Law 336/2000 (2 June) and Law 151/2025 (4 October, in force since 1 January 2026).
///
/// Sundays are for the weekdays to tell, patron saints for each office's `closed`.
pub(super) fn is_italian_holiday(day: Date) -> bool {
    match (day.month(), day.day()) {
        (1, 1 | 6) | (4, 25) | (5, 1) | (6, 2) | (8, 15) | (11, 1) | (12, 8 | 25 | 26) => true,
        (10, 4) => day.year() >= 2026,
        _ => {
            let easter = easter_sunday(day.year());
            easter == Some(day) || easter.is_some_and(|sunday| sunday.tomorrow().ok() == Some(day))
        }
    }
}

/// Easter Sunday of the Gregorian calendar: the algorithm «Meeus/Jones/Butcher» (J. Meeus, Astronomical Algorithms,
/// chapter 8), its letters kept.
pub(super) fn easter_sunday(year: i16) -> Option<Date> {
    let y = i32::from(year);
    let (a, b, c) = (y % 19, y / 100, y % 100);
    let (d, e) = (b / 4, b % 4);
    let f = (b + 8) / 25;
    let g = (b - f + 1) / 3;
    let h = (19 * a + b - d - g + 15) % 30;
    let (i, k) = (c / 4, c % 4);
    let l = (32 + 2 * e + 2 * i - h - k) % 7;
    let m = (a + 11 * h + 22 * l) / 451;
    let sum = h + l - 7 * m + 114;
    Date::new(year, i8::try_from(sum / 31).ok()?, i8::try_from(sum % 31 + 1).ok()?).ok()
}
