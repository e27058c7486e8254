//! What a post's text says: how long it is, which tags it carries, whom it names.
//!
//! Length is counted as people count: in grapheme clusters (Unicode UAX #29), so that a family emoji, a flag or a
//! letter with three accents is one. A hashtag is `#` and letters, digits, marks or `_` with at least one that is no
//! digit; a mention is `@` and a handle. Both begin only where no word goes before them, so that `a@b.c` names nobody.

use unicode_segmentation::UnicodeSegmentation;

/// The longest text, in grapheme clusters.
pub const MAX_GRAPHEMES: usize = 280;
/// The longest text, in bytes: a cluster may be any number of code points, a row may not.
pub const MAX_BYTES: usize = 8_192;
/// The longest hashtag, in characters; longer ones are no tags.
pub const MAX_TAG_CHARS: usize = 64;
/// The longest handle, in characters.
pub const MAX_HANDLE_CHARS: usize = 32;

/// Why a text cannot be posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    #[error("text is empty; write at least one character")]
    Empty,
    #[error("text is {0} characters long; at most {MAX_GRAPHEMES} fit")]
    TooLong(usize),
    #[error("text is {0} bytes long; at most {MAX_BYTES} fit")]
    TooManyBytes(usize),
    #[error("text holds the character U+0000; leave it out")]
    Nul,
}

/// Checks a text and takes off the white space around it.
pub fn check(text: &str) -> Result<&str, TextError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(TextError::Empty);
    }
    if text.len() > MAX_BYTES {
        return Err(TextError::TooManyBytes(text.len()));
    }
    // Other control characters are harmless where text is shown as text, and real texts hold them (a backspace that
    // once underlined a word); taking them out would change what somebody said.
    if text.contains('\0') {
        return Err(TextError::Nul);
    }
    match length(text) {
        // No byte of a text that is not white space is seen: zero-width characters alone say nothing.
        _ if text.chars().all(is_invisible) => Err(TextError::Empty),
        long if long > MAX_GRAPHEMES => Err(TextError::TooLong(long)),
        _ => Ok(text),
    }
}

fn is_invisible(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{ad}')
}

/// How long a text is, as people count.
pub fn length(text: &str) -> usize {
    text.graphemes(true).count()
}

/// The tags of a text, lower case, each once, in the order of their first use.
pub fn hashtags(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for tag in marked(text, '#', is_tag_char) {
        let tag = tag.to_lowercase();
        let says_something = tag.chars().any(|c| !c.is_numeric() && c != '_');
        if says_something && tag.chars().count() <= MAX_TAG_CHARS && !found.contains(&tag) {
            found.push(tag);
        }
    }
    found
}

/// The handles that a text names, lower case, each once, in the order of their first use.
pub fn mentions(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for handle in marked(text, '@', |c| c.is_ascii_alphanumeric() || c == '_') {
        let handle = handle.to_ascii_lowercase();
        if handle.len() <= MAX_HANDLE_CHARS && !found.contains(&handle) {
            found.push(handle);
        }
    }
    found
}

/// Whether a text points at the web.
pub fn has_link(text: &str) -> bool {
    text.split_whitespace().any(|word| {
        let word = word.trim_start_matches(['(', '[', '<', '"', '\'']);
        ["http://", "https://"]
            .iter()
            .any(|scheme| word.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
    })
}

/// A tag as it is looked up: without `#`, lower case; `None` if it can be no tag.
pub fn canonical_tag(tag: &str) -> Option<String> {
    let tag = tag.strip_prefix('#').unwrap_or(tag).to_lowercase();
    let valid = !tag.is_empty() && tag.chars().count() <= MAX_TAG_CHARS && tag.chars().all(is_tag_char);
    valid.then_some(tag)
}

fn is_tag_char(c: char) -> bool {
    // Combining marks belong to letters of many scripts (Devanagari, Thai), so they are part of a word.
    c.is_alphanumeric() || c == '_' || is_mark(c)
}

fn is_mark(c: char) -> bool {
    // A mark joins the cluster of the letter before it; that is what makes it one.
    !c.is_ascii() && !c.is_whitespace() && {
        let mut probe = String::from("a");
        probe.push(c);
        c != '\u{200d}' && !('\u{fe00}'..='\u{fe0f}').contains(&c) && probe.graphemes(true).count() == 1
    }
}

/// The words that follow a mark which begins a word.
fn marked(text: &str, mark: char, part: impl Fn(char) -> bool) -> impl Iterator<Item = &str> {
    text.char_indices().filter_map(move |(at, c)| {
        let begins_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '#' | '@' | '&' | '/' | '.');
        if c != mark || text[..at].chars().next_back().is_some_and(begins_word) {
            return None;
        }
        let word = &text[at + mark.len_utf8()..];
        let end = word
            .char_indices()
            .find(|(_, c)| !part(*c))
            .map_or(word.len(), |(end, _)| end);
        (end > 0).then(|| &word[..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn length_is_what_a_person_counts() {
        for (text, expected) in [
            ("", 0),
            ("hello", 5),
            ("né", 2),
            ("ne\u{301}", 2),
            ("👨\u{200d}👩\u{200d}👧\u{200d}👦", 1),
            ("👍🏽", 1),
            ("🇫🇷🇩🇪", 2),
            ("🏳\u{fe0f}\u{200d}🌈", 1),
            ("각", 1),
            ("\u{1100}\u{1161}\u{11a8}", 1),
            ("नि", 1),
            ("a\r\nb", 3),
            ("Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍", 1),
        ] {
            assert_eq!(length(text), expected, "{text:?}");
        }
    }

    #[test]
    fn two_hundred_and_eighty_families_fit_and_one_more_does_not() {
        let family = "👨\u{200d}👩\u{200d}👧\u{200d}👦";
        assert!(check(&family.repeat(280)).is_ok());
        assert_eq!(check(&family.repeat(281)), Err(TextError::TooLong(281)));
        assert_eq!(check(&"x".repeat(281)), Err(TextError::TooLong(281)));
    }

    #[test]
    fn a_cluster_of_a_thousand_accents_is_too_many_bytes() {
        let zalgo = format!("a{}", "\u{301}".repeat(5_000));
        assert_eq!(length(&zalgo), 1);
        assert_eq!(check(&zalgo), Err(TextError::TooManyBytes(10_001)));
    }

    #[test]
    fn what_says_nothing_is_refused() {
        for text in ["", "  \n ", "\u{200b}\u{200b}", "\u{feff}"] {
            assert_eq!(check(text), Err(TextError::Empty), "{text:?}");
        }
        assert_eq!(check("a\u{0}b"), Err(TextError::Nul));
        assert_eq!(check("  two\nlines\t "), Ok("two\nlines"));
    }

    #[test]
    fn tags_and_handles_are_found_where_a_word_begins() {
        assert_eq!(
            hashtags("#Rust, #rust (#日本語) a#b #1 #1st ##x #a-b &#39; x.#y #été"),
            ["rust", "日本語", "1st", "a", "été"]
        );
        assert_eq!(
            mentions("@Ann,(@bob) me@mail.org @@x @ann @under_score! .@y"),
            ["ann", "bob", "under_score"]
        );
        assert_eq!(hashtags("#हिन्दी"), ["हिन्दी"]);
        assert!(has_link("see (https://example.org)"));
        assert!(!has_link("https:// nothing"));
        assert_eq!(canonical_tag("#Rust").as_deref(), Some("rust"));
        assert_eq!(canonical_tag("a b"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = (check(&text), length(&text), mentions(&text), has_link(&text));
            for tag in hashtags(&text) {
                prop_assert_eq!(canonical_tag(&tag), Some(tag));
            }
        }

        #[test]
        fn what_passes_is_within_its_limits(text in "\\PC{0,400}") {
            if let Ok(kept) = check(&text) {
                prop_assert!(length(kept) <= MAX_GRAPHEMES && !kept.is_empty() && kept.len() <= MAX_BYTES);
            }
        }
    }
}
