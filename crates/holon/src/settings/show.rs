//! How settings are printed: as a table for people, and as a file to start from.

use super::{Loaded, SETTINGS, Settings};
use std::fmt::Write as _;

/// Every setting with its value, where that comes from, its default, its environment name and what it does.
pub fn table(loaded: &Loaded) -> String {
    let defaults = Settings::default();
    let mut text = String::new();
    for setting in SETTINGS {
        let shown = |settings: &Settings| match (setting.show)(settings) {
            empty if empty.is_empty() => "(not set)".to_owned(),
            shown => shown,
        };
        let (value, default) = (shown(&loaded.settings), shown(&defaults));
        let origin = loaded.origin(setting).name();
        let _ = writeln!(text, "{} = {value}   [{origin}]", setting.key);
        let _ = writeln!(text, "    {}", setting.doc());
        let _ = writeln!(
            text,
            "    default {default}, environment {}\n",
            setting.environment()
        );
    }
    text
}

/// A settings file with every setting: those at their default are commented out.
pub fn toml_file(loaded: &Loaded) -> String {
    let defaults = Settings::default();
    let mut text = String::from("# Settings of Holon. What is commented out shows the default.\n");
    let mut section = "";
    for setting in SETTINGS {
        let (own_section, name) = setting.key.split_once('.').unwrap_or(("", setting.key));
        if own_section != section {
            section = own_section;
            let _ = write!(text, "\n[{section}]\n");
        }
        let value = (setting.toml)(&loaded.settings);
        let comment = if value == (setting.toml)(&defaults) {
            "# "
        } else {
            ""
        };
        let is_left_out =
            setting.is_secret && value.is_none() && !(setting.show)(&loaded.settings).is_empty();
        let value = value.unwrap_or_else(|| "\"\"".into());
        let _ = writeln!(text, "\n# {}", setting.doc());
        if is_left_out {
            let name = setting.environment();
            let _ = writeln!(text, "# It is set, and not printed here; {name} can hold it.");
        }
        let _ = writeln!(text, "{comment}{name} = {value}");
    }
    text
}
