//! The command line as somebody meets it who knows nothing yet.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

mod support;

use support::{fails, holon, output, succeeds, text};

#[test]
fn help_names_every_command_and_where_to_start() {
    let help = succeeds(holon().arg("--help"));
    for command in [
        "serve",
        "import",
        "check",
        "backup",
        "restore",
        "migrate",
        "rebuild",
        "shards",
        "config",
        "openapi",
        "completions",
        "version",
    ] {
        assert!(
            help.lines().any(|line| line.trim_start().starts_with(command)),
            "{command}:\n{help}"
        );
    }
    for word in [
        "EXAMPLES",
        "holon serve --demo",
        "HOLON_TOKEN",
        "admin.token",
        "EXIT STATUS",
    ] {
        assert!(help.contains(word), "{word}:\n{help}");
    }
    let serve = succeeds(holon().args(["help", "serve"]));
    for word in [
        "--data <DIR>",
        "--listen <ADDR>",
        "--systems <LIST>",
        "--config <FILE>",
        "--demo",
        "SIGTERM",
    ] {
        assert!(serve.contains(word), "{word}:\n{serve}");
    }
    let import = succeeds(holon().args(["import", "social", "--help"]));
    for word in [
        "--edges <FILE>",
        "--posts <FILE>",
        "--wait",
        "--concurrency <N>",
        "2654435761",
    ] {
        assert!(import.contains(word), "{word}:\n{import}");
    }
}

#[test]
fn a_wrong_command_line_is_status_2_and_a_failure_is_status_1() {
    assert_eq!(output(holon().arg("sevre")).status.code(), Some(2));
    assert_eq!(
        output(holon().args(["check", "--data", "/does/not/exist"]))
            .status
            .code(),
        Some(1)
    );
    assert_eq!(
        output(holon().args(["import", "social", "--edges", "a", "--posts", "b"]))
            .status
            .code(),
        Some(1)
    );
}

#[test]
fn config_shows_each_setting_and_prints_a_file_to_start_from() {
    let shown = succeeds(holon().arg("config").env("HOLON_FEED_PUSH_BELOW", "123"));
    assert!(shown.contains("feed.push_below = 123   [environment]"), "{shown}");
    assert!(
        shown.contains("default 10000, environment HOLON_FEED_PUSH_BELOW"),
        "{shown}"
    );
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("holon.toml");
    let printed = succeeds(holon().args(["config", "--format", "toml", "--set", "feed.push_below=77"]));
    std::fs::write(&file, printed).unwrap();
    let shown = succeeds(holon().arg("config").arg("--config").arg(&file));
    assert!(shown.contains("feed.push_below = 77   [file]"), "{shown}");
}

#[test]
fn unknown_settings_are_refused_with_a_suggestion() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("holon.toml");
    std::fs::write(&file, "lisen = '127.0.0.1:0'\n").unwrap();
    let error = fails(holon().arg("serve").arg("--config").arg(&file));
    assert!(
        error.contains("lisen") && error.contains("did you mean \"listen\""),
        "{error}"
    );
    assert!(!directory.path().join("data").exists());
}

#[test]
fn completions_and_version_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            succeeds(holon().args(["completions", shell])).contains("holon"),
            "{shell}"
        );
    }
    assert!(succeeds(holon().arg("version")).starts_with("holon "));
}

#[test]
fn the_api_document_needs_no_data_directory() {
    let here = tempfile::tempdir().unwrap();
    let output = output(holon().arg("openapi").current_dir(here.path()));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in [
        "/v1/identity/login",
        "/v1/feed/home",
        "/v1/admin/overview",
        "/readyz",
    ] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 0);
}
