//! Italy's public holidays.

use jiff::civil::Date;

/// Whether a day is a public holiday in all of Italy: Law 260/1949, art. 2, as it stands after Law 54/1977,
/// DPR 792/1985 (Epiphany), Law 336/2000 (2 June) and Law 151/2025 (4 October, in force since 1 January 2026).
///
/// Sundays are for the weekdays to tell, patron saints for each office's `closed`.
pub(super) fn is_italian_holiday(day: Date) -> bool {
    match (day.month(), day.day()) {
        (1, 1 | 6) | (4, 25) | (5 | 11, 1) | (6, 2) | (8, 15) | (12, 8 | 25 | 26) => true,
        (10, 4) => day.year() >= 2026,
        _ => {
            let easter = easter_sunday(day.year());
            easter == Some(day) || easter.is_some_and(|sunday| sunday.tomorrow().ok() == Some(day))
        }
    }
}

/// Easter Sunday of the Gregorian calendar (years from 1583 on): the algorithm «Meeus/Jones/Butcher» (J. Meeus,
/// Astronomical Algorithms, chapter 8).
pub(super) fn easter_sunday(year: i16) -> Option<Date> {
    let year_number = i32::from(year);
    let (golden, century, of_century) = (year_number % 19, year_number / 100, year_number % 100);
    let moon_shift = (century - (century + 8) / 25 + 1) / 3;
    let epact = (19 * golden + century - century / 4 - moon_shift + 15) % 30;
    let to_sunday = (32 + 2 * (century % 4) + 2 * (of_century / 4) - epact - of_century % 4) % 7;
    let too_late = (golden + 11 * epact + 22 * to_sunday) / 451;
    let sum = epact + to_sunday - 7 * too_late + 114;
    Date::new(year, i8::try_from(sum / 31).ok()?, i8::try_from(sum % 31 + 1).ok()?).ok()
}
