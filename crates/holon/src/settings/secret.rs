//! Values that hold passwords. They are not printed: not by `holon config`, not in errors, not by `Debug`.

use super::value::{SettingValue, quoted};
use std::fmt;

const NOT_SHOWN: &str = "(not shown)";

/// A text that nobody but its user may see.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NOT_SHOWN)
    }
}

impl SettingValue for Secret {
    const IS_SECRET: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }
    fn show(&self) -> String {
        NOT_SHOWN.into()
    }
    fn toml(&self) -> Option<String> {
        None
    }
}

/// Addresses of servers with commas between. One may name several hosts, which have commas between as well
/// (`postgres://one:5432,two:5432/holon`): what has no `://` of its own belongs to the address before.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Urls(Vec<String>);

impl Urls {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// With the passwords that they hold.
    pub fn expose(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Debug for Urls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show())
    }
}

/// Without the user and the password, wherever they are.
fn redacted(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let (rest, parameters) = match rest.split_once('?') {
        Some((rest, parameters)) if !parameters.contains('@') => (rest, "?…"),
        // A password may hold a question mark that should have been encoded.
        _ => (rest, ""),
    };
    match rest.rsplit_once('@') {
        Some((_, place)) => format!("{scheme}://…@{place}{parameters}"),
        None => format!("{scheme}://{rest}{parameters}"),
    }
}

impl SettingValue for Urls {
    const IS_SECRET: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        let mut urls: Vec<String> = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match urls.last_mut() {
                _ if part.contains("://") => urls.push(part.to_owned()),
                Some(url) => {
                    url.push(',');
                    url.push_str(part);
                }
                None => {
                    return Err("expected addresses such as scheme://host:port with commas between".into());
                }
            }
        }
        Ok(Self(urls))
    }
    fn show(&self) -> String {
        let shown: Vec<String> = self.0.iter().map(|url| redacted(url)).collect();
        shown.join(",")
    }
    fn toml(&self) -> Option<String> {
        if self.0.iter().any(|url| redacted(url) != *url) {
            return None;
        }
        let items: Vec<String> = self.0.iter().map(|url| quoted(url)).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_their_hosts_and_show_no_password() {
        let text = "a=postgres://u:p,w@one:1,two:2/db?password=x, b=postgres://three/db,";
        let urls = Urls::read(text).unwrap();
        assert_eq!(
            urls.expose(),
            [
                "a=postgres://u:p,w@one:1,two:2/db?password=x",
                "b=postgres://three/db"
            ]
        );
        assert_eq!(
            urls.show(),
            "a=postgres://…@one:1,two:2/db?…,b=postgres://three/db"
        );
        assert_eq!(urls.toml(), None);
        assert_eq!(format!("{urls:?}"), urls.show());
        let open = Urls::read("nats://a:1,nats://b:2").unwrap();
        assert_eq!(Urls::read(&open.show()), Ok(open.clone()));
        assert_eq!(open.toml().unwrap(), r#"["nats://a:1", "nats://b:2"]"#);
        assert!(Urls::read("a:1").is_err());
        for url in ["x://u:p?w@host", "x://u:p/w@host/db", "x://u:p@w@host"] {
            assert!(!redacted(url).contains('p'), "{}", redacted(url));
        }
    }
}
