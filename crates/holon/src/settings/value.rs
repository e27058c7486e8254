//! What a setting may hold: read from one text form, whether it comes from the file, the environment or a flag.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// A type that a setting may have.
pub trait SettingValue: Sized {
    /// True if it may hold a password: then errors do not repeat it, and what is printed leaves it out.
    const IS_SECRET: bool = false;

    /// Reads the text form; the error says what is expected.
    fn read(text: &str) -> Result<Self, String>;

    /// The text form, as [`SettingValue::read`] takes it; empty for "not set".
    fn show(&self) -> String;

    /// As a value in a TOML file; `None` for "not set".
    fn toml(&self) -> Option<String> {
        Some(quoted(&self.show()))
    }
}

/// A basic string of TOML.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

macro_rules! whole_numbers {
    ($($number:ty),*) => {
        $(impl SettingValue for $number {
            fn read(text: &str) -> Result<Self, String> {
                text.replace('_', "")
                    .parse()
                    .map_err(|_| format!("expected a whole number from 0 to {}", Self::MAX))
            }
            fn show(&self) -> String {
                self.to_string()
            }
            fn toml(&self) -> Option<String> {
                Some(self.to_string())
            }
        })*
    };
}
whole_numbers!(u16, u32, u64, usize);

impl SettingValue for bool {
    fn read(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err("expected true or false".into()),
        }
    }
    fn show(&self) -> String {
        self.to_string()
    }
    fn toml(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl SettingValue for String {
    fn read(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
    fn show(&self) -> String {
        self.clone()
    }
}

impl SettingValue for PathBuf {
    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("expected a path".into());
        }
        Ok(text.into())
    }
    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl SettingValue for SocketAddr {
    fn read(text: &str) -> Result<Self, String> {
        let numeric = text.replacen("localhost:", "127.0.0.1:", 1);
        numeric.parse().map_err(|_| {
            "expected an address and a port, such as 127.0.0.1:8080, [::1]:8080 or 0.0.0.0:80".into()
        })
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl SettingValue for IpAddr {
    fn read(text: &str) -> Result<Self, String> {
        text.parse()
            .map_err(|_| "expected an address such as 10.0.0.7 or fd00::7".into())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

/// A whole number with a unit: `500ms`, `30s`, `15m`, `24h`, `7d`.
impl SettingValue for Duration {
    fn read(text: &str) -> Result<Self, String> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let expected = || "expected a whole number and a unit, such as 500ms, 30s, 15m, 24h or 7d".to_owned();
        let number: u64 = number.parse().map_err(|_| expected())?;
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(expected()),
        };
        let ms = number.checked_mul(unit_ms).ok_or_else(expected)?;
        Ok(Self::from_millis(ms))
    }
    fn show(&self) -> String {
        let ms = self.as_millis();
        let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
        let fitting = units
            .iter()
            .find(|(unit, _)| ms >= *unit && ms.is_multiple_of(*unit));
        match fitting {
            Some((unit, name)) => format!("{}{name}", ms / unit),
            None => format!("{ms}ms"),
        }
    }
}

/// Text of several values, separated by commas; a list in a TOML file.
impl SettingValue for Vec<String> {
    fn read(text: &str) -> Result<Self, String> {
        Ok(text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect())
    }
    fn show(&self) -> String {
        self.join(",")
    }
    fn toml(&self) -> Option<String> {
        let items: Vec<String> = self.iter().map(|item| quoted(item)).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}

/// A setting that may be left out.
impl<T: SettingValue> SettingValue for Option<T> {
    const IS_SECRET: bool = T::IS_SECRET;

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(None);
        }
        T::read(text).map(Some)
    }
    fn show(&self) -> String {
        self.as_ref().map(T::show).unwrap_or_default()
    }
    fn toml(&self) -> Option<String> {
        self.as_ref().and_then(T::toml)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Debug;

    fn keeps<T: SettingValue + Debug + PartialEq>(text: &str, value: T) {
        assert_eq!(T::read(text).as_ref(), Ok(&value), "{text}");
        assert_eq!(T::read(&value.show()).as_ref(), Ok(&value), "{text}");
    }

    #[test]
    fn every_kind_reads_what_it_shows() {
        keeps("10_000", 10_000_u64);
        keeps("yes", true);
        keeps("90s", Duration::from_secs(90));
        keeps("1500ms", Duration::from_millis(1_500));
        keeps("7d", Duration::from_secs(7 * 86_400));
        keeps("0s", Duration::ZERO);
        keeps("localhost:80", SocketAddr::from(([127, 0, 0, 1], 80)));
        keeps("a, b,,c", vec!["a".to_owned(), "b".into(), "c".into()]);
        keeps("", None::<String>);
        keeps("x", Some("x".to_owned()));
    }

    #[test]
    fn what_cannot_be_read_says_what_is_expected() {
        assert!(u16::read("65536").unwrap_err().contains("65535"));
        assert!(Duration::read("10").unwrap_err().contains("30s"));
        assert!(Duration::read("-1s").is_err());
        assert!(SocketAddr::read("8080").unwrap_err().contains("127.0.0.1:8080"));
        assert!(bool::read("maybe").is_err());
    }
}
