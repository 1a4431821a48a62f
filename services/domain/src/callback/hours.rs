//! Callable hours in the caller's own time zone.
//!
//! The zone tables are embedded (jiff's bundled IANA data): the same booking is called at
//! the same moment on every machine, whatever is installed there. Rejected: a fixed offset
//! a line, which is wrong for two hours a year and for every caller from another zone.

use std::sync::LazyLock;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::TimeMs;
use crate::id::FieldError;

/// Parsed once: the database is a table in the binary and never changes.
static DATABASE: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// Longest name of a time zone, in bytes; IANA's own longest is half of it.
const ZONE_BYTES_MAX: usize = 64;

/// A time zone that exists.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone(TimeZone);

impl Zone {
    /// The zone of an IANA name such as `America/New_York`.
    ///
    /// # Errors
    /// `time_zone` if the name is empty, too long, or not in the embedded tables.
    pub fn parse(name: &str) -> Result<Self, FieldError> {
        let fault = || {
            FieldError::new(
                "time_zone",
                "an IANA time zone of at most 64 bytes",
                name.escape_default(),
            )
        };
        if name.is_empty() || name.len() > ZONE_BYTES_MAX {
            return Err(fault());
        }
        DATABASE.get(name).map(Zone).map_err(|_| fault())
    }

    /// Coordinated Universal Time: used when a record names a zone that this build's
    /// tables no longer have.
    #[must_use]
    pub fn utc() -> Self {
        Zone(TimeZone::UTC)
    }

    /// The local date and time at a moment.
    fn local(&self, at: TimeMs) -> DateTime {
        // Beyond the year 9999 a clamp is as good as anything: nothing is booked there.
        let milliseconds = i64::try_from(at.0).unwrap_or(i64::MAX);
        let timestamp = Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::MAX);
        self.0.to_datetime(timestamp)
    }

    /// The moment of a local date and time; in a gap, as far after it as was asked for.
    fn moment(&self, local: DateTime) -> Option<TimeMs> {
        let timestamp = self.0.to_timestamp(local).ok()?;
        u64::try_from(timestamp.as_millisecond()).ok().map(TimeMs)
    }
}

/// Local hours within which people may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    /// Earliest hour, 0 to 23.
    pub from_hour: u32,
    /// Hour from which nobody is called, 1 to 24, after `from_hour`.
    pub until_hour: u32,
}

impl Hours {
    /// Whether a caller in `zone` may be called at `at`.
    #[must_use]
    pub fn are_callable(&self, zone: &Zone, at: TimeMs) -> bool {
        let hour = u32::from(zone.local(at).hour().unsigned_abs());
        (self.from_hour..self.until_hour).contains(&hour)
    }

    /// `at` itself if it is callable, else the next moment that is.
    #[must_use]
    pub fn next_callable(&self, zone: &Zone, at: TimeMs) -> TimeMs {
        if self.are_callable(zone, at) {
            return at;
        }
        let local = zone.local(at);
        let opening = i8::try_from(self.from_hour).unwrap_or(0);
        let before_opening = u32::from(local.hour().unsigned_abs()) < self.from_hour;
        let mut date = local.date();
        if !before_opening {
            date = date.tomorrow().unwrap_or(date);
        }
        // A day can lack its opening hour altogether (Samoa skipped 30 December 2011), so
        // look a few days ahead before giving up.
        for _ in 0..3 {
            if let Some(moment) = zone.moment(date.at(opening, 0, 0, 0))
                && moment > at
                && self.are_callable(zone, moment)
            {
                return moment;
            }
            date = date.tomorrow().unwrap_or(date);
        }
        at.plus(3_600_000)
    }

    /// Whether a whole window lies within one day's callable hours.
    #[must_use]
    pub fn hold(&self, zone: &Zone, from: TimeMs, until: TimeMs) -> bool {
        let last = until.minus(1);
        from < until
            && self.are_callable(zone, from)
            && self.are_callable(zone, last)
            && zone.local(from).date() == zone.local(last).date()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOURS: Hours = Hours {
        from_hour: 8,
        until_hour: 21,
    };

    fn at(text: &str) -> TimeMs {
        let timestamp: Timestamp = text.parse().expect("a timestamp");
        TimeMs(u64::try_from(timestamp.as_millisecond()).expect("after 1970"))
    }

    #[test]
    fn the_same_moment_is_callable_in_one_zone_and_not_in_another() {
        let moment = at("2026-04-13T12:30:00Z");
        let new_york = Zone::parse("America/New_York").expect("exists");
        let los_angeles = Zone::parse("America/Los_Angeles").expect("exists");
        assert!(HOURS.are_callable(&new_york, moment), "08:30 there");
        assert!(!HOURS.are_callable(&los_angeles, moment), "05:30 there");
        assert_eq!(HOURS.next_callable(&new_york, moment), moment);
        assert_eq!(
            HOURS.next_callable(&los_angeles, moment),
            at("2026-04-13T15:00:00Z")
        );
    }

    #[test]
    fn after_the_last_hour_the_next_morning_is_next_even_across_a_change_of_clocks() {
        let zone = Zone::parse("America/New_York").expect("exists");
        // 7 March 2026, 21:00 EST; clocks go forward that night, so 08:00 is EDT.
        let evening = at("2026-03-08T02:00:00Z");
        assert!(!HOURS.are_callable(&zone, evening));
        assert_eq!(
            HOURS.next_callable(&zone, evening),
            at("2026-03-08T12:00:00Z")
        );
    }

    #[test]
    fn an_opening_hour_that_the_change_of_clocks_skips_opens_when_the_gap_ends() {
        let zone = Zone::parse("America/New_York").expect("exists");
        let early = Hours {
            from_hour: 2,
            until_hour: 5,
        };
        let midnight = at("2026-03-08T05:30:00Z");
        assert_eq!(
            early.next_callable(&zone, midnight),
            at("2026-03-08T07:00:00Z")
        );
    }

    #[test]
    fn a_window_over_night_is_not_callable_although_both_ends_are() {
        let zone = Zone::parse("America/Chicago").expect("exists");
        let evening = at("2026-04-14T00:00:00Z");
        let morning = at("2026-04-14T14:00:00Z");
        assert!(HOURS.are_callable(&zone, evening) && HOURS.are_callable(&zone, morning));
        assert!(!HOURS.hold(&zone, evening, morning));
        assert!(HOURS.hold(&zone, morning, morning.plus(3_600_000)));
    }

    #[test]
    fn a_window_may_end_when_the_last_hour_does() {
        let zone = Zone::parse("UTC").expect("exists");
        assert!(HOURS.hold(
            &zone,
            at("2026-04-14T20:00:00Z"),
            at("2026-04-14T21:00:00Z")
        ));
        assert!(!HOURS.hold(
            &zone,
            at("2026-04-14T20:00:00Z"),
            at("2026-04-14T21:00:01Z")
        ));
    }

    #[test]
    fn a_zone_that_does_not_exist_names_the_field() {
        for name in ["", "Mars/Olympus", &"x".repeat(65)] {
            let error = Zone::parse(name).expect_err("does not exist");
            assert_eq!(error.field, "time_zone");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_next_callable_moment_is_callable_and_never_more_than_a_day_away(
            seconds in 1_500_000_000u64..2_500_000_000,
            zone in proptest::sample::select(vec![
                "America/New_York", "America/Anchorage", "Pacific/Honolulu", "America/Puerto_Rico",
                "Asia/Kathmandu", "Australia/Lord_Howe", "Europe/Paris", "Pacific/Chatham",
            ]),
            from_hour in 0u32..23,
            length in 1u32..24,
        ) {
            let hours = Hours { from_hour, until_hour: (from_hour + length).min(24) };
            let zone = Zone::parse(zone).expect("exists");
            let at = TimeMs(seconds * 1_000);
            let next = hours.next_callable(&zone, at);
            proptest::prop_assert!(next >= at);
            // Two days: an opening hour that falls into a gap can make a day without one.
            proptest::prop_assert!(next.since(at) <= 2 * 86_400_000);
            proptest::prop_assert!(hours.are_callable(&zone, next));
        }
    }
}
