//! Times and amounts as people read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use executr_spec::Timestamp;

/// The time by this machine's clock.
pub(crate) fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
}

/// `3m ago`, or `in 3m` for what is still to come.
pub(crate) fn ago(time: Timestamp, now: Timestamp) -> String {
    if time > now.plus(Duration::from_secs(1)) {
        format!("in {}", span(time.since(now)))
    } else if now.since(time) < Duration::from_secs(1) {
        "now".to_owned()
    } else {
        format!("{} ago", span(now.since(time)))
    }
}

/// A span in its largest unit, with one digit more where that says something: `41ms`, `1.5s`, `12s`, `3m`, `2h`, `5d`.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 if span.as_millis() == 0 => format!("{}us", span.as_micros()),
        0 => format!("{}ms", span.as_millis()),
        1..10 => format!("{seconds}.{}s", span.subsec_millis() / 100),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// An amount of bytes: `17 B`, `1.5 KiB`, `300 MiB`.
pub(crate) fn amount(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    if unit == "B" || size >= 100.0 { format!("{size:.0} {unit}") } else { format!("{size:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        for (millis, text) in [
            (0, "0us"),
            (41, "41ms"),
            (1_560, "1.5s"),
            (12_900, "12s"),
            (200_000, "3m"),
            (7_300_000, "2h"),
            (172_800_000, "2d"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn times_are_told_from_now() {
        let now = Timestamp(1_000_000_000);
        assert_eq!(ago(now.minus(Duration::from_secs(75)), now), "1m ago");
        assert_eq!(ago(now.plus(Duration::from_secs(75)), now), "in 1m");
        // Clocks of two machines differ a little.
        assert_eq!(ago(now.plus(Duration::from_millis(300)), now), "now");
    }

    #[test]
    fn amounts_have_one_unit() {
        for (bytes, text) in [(17, "17 B"), (1_536, "1.5 KiB"), (314_572_800, "300 MiB")] {
            assert_eq!(amount(bytes), text);
        }
    }
}
