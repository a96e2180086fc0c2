//! Points in time as they stand on the wire.

use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::FormatItem;
use time::macros::format_description;

/// RFC 3339 in UTC with `Z` and always six fractional digits: some clients sort timestamps as text.
const WIRE: &[FormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// A point in time, written as `2026-01-02T03:04:05.678901Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "sqlx", derive(sqlx::Type), sqlx(transparent))]
pub struct Timestamp(pub OffsetDateTime);

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.0.to_offset(time::UtcOffset::UTC).format(WIRE).map_err(|_| std::fmt::Error)?;
        f.write_str(&text)
    }
}

impl From<OffsetDateTime> for Timestamp {
    fn from(time: OffsetDateTime) -> Self {
        Self(time)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn it_is_utc_with_six_digits() {
        // 1.R16, 4.R4
        let noon = Timestamp(datetime!(2026-04-17 14:00:00.5 +02:00));
        assert_eq!(serde_json::to_string(&noon).unwrap(), "\"2026-04-17T12:00:00.500000Z\"");
    }
}
