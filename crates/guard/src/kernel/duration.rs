//! Durations as people write them: on the command line, in the configuration file, in ban files.

use std::time::Duration;

/// Reads `500ms`, `60s`, `10m`, `2h`, `1d`; a bare number is seconds.
pub fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| format!("'{text}' is no duration: 500ms, 60s, 10m, 2h or 1d"))?;
    let ms = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("'{unit}' is no unit: ms, s, m, h or d")),
    };
    Ok(Duration::from_millis(number.saturating_mul(ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let check = |text: &str, ms: u64| assert_eq!(parse(text).unwrap(), Duration::from_millis(ms));
        check("500ms", 500);
        check("60", 60_000);
        check("10m", 600_000);
        check("2h", 7_200_000);
        check("1d", 86_400_000);
        check("99999999999999999d", u64::MAX);
        for bad in ["", "s", "-1s", "1w", "1 s", "1.5h", "٣s"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
