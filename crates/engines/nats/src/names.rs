//! What things are called on the servers.
//!
//! A dot separates the parts of a subject and may not be in the name of a stream, so the dots in the names of topics
//! and groups become hyphens there. Names hold no hyphens themselves, so this can be undone.

/// The names of one deployment.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    prefix: String,
}

/// The writer of events that are appended without an outbox.
pub(crate) const APPENDED: &str = "append";

/// 1 to 32 of `a-z`, `0-9` and `_`.
pub(crate) fn is_prefix(prefix: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    (1..=32).contains(&prefix.len()) && prefix.bytes().all(plain)
}

/// What the names of topics and groups are: 1 to 64 of `a-z`, `0-9`, `.` and `_`, without an empty part.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'_';
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}

/// A name as one part of a subject.
fn part(name: &str) -> String {
    name.replace('.', "-")
}

/// The name that became a part.
fn name(part: &str) -> String {
    part.replace('-', ".")
}

/// The part that stands for a source of a relay: letters, digits and `_` as they are, other bytes as `=` and two
/// hexadecimal digits.
pub(crate) fn source_part(source: &str) -> String {
    let mut out = String::from("relay-");
    for byte in source.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("={byte:02x}"));
        }
    }
    out
}

impl Names {
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// The stream of a partition.
    pub fn stream(&self, topic: &str, partition: u16) -> String {
        format!("{}-log-{}-{partition}", self.prefix, part(topic))
    }

    /// The subject that one writer tells events of a partition on; `>` for those of all writers.
    pub fn events(&self, topic: &str, partition: u16, writer: &str) -> String {
        format!("{}.log.{}.{partition}.{writer}", self.prefix, part(topic))
    }

    pub fn state_stream(&self) -> String {
        format!("{}-state", self.prefix)
    }

    pub fn state(&self, key: &str) -> String {
        format!("{}.state.{key}", self.prefix)
    }

    pub fn topic_record(&self, topic: &str) -> String {
        self.state(&format!("topic.{}", part(topic)))
    }

    pub fn group_record(&self, topic: &str, group: &str) -> String {
        self.state(&format!("group.{}.{}", part(topic), part(group)))
    }

    pub fn offset_record(&self, topic: &str, group: &str, partition: u16) -> String {
        self.state(&format!("offset.{}.{}.{partition}", part(topic), part(group)))
    }

    /// The names in the last parts of a subject.
    pub fn last_parts<const N: usize>(subject: &str) -> Option<[String; N]> {
        let mut parts: Vec<String> = subject.rsplit('.').take(N).map(name).collect();
        parts.reverse();
        parts.try_into().ok()
    }

    pub fn dead_stream(&self) -> String {
        format!("{}-dead", self.prefix)
    }

    pub fn dead(&self, topic: &str, group: &str) -> String {
        format!("{}.dead.{}.{}", self.prefix, part(topic), part(group))
    }

    /// Where the processes that have members in a group talk to each other.
    pub fn group_talk(&self, topic: &str, group: &str) -> String {
        format!("{}.group.{}.{}", self.prefix, part(topic), part(group))
    }

    pub fn partition_lease(&self, topic: &str, group: &str, partition: u16) -> String {
        format!("log:{}:{topic}:{group}:{partition}", self.prefix)
    }

    pub fn relay_lease(&self, source: &str) -> String {
        format!("relay:{}:{source}", self.prefix)
    }

    /// What comes before a subject of the bus.
    pub fn bus(&self) -> String {
        format!("{}.bus.", self.prefix)
    }

    /// A subject that nobody listens on.
    pub fn nobody(&self) -> String {
        format!("{}.nobody", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_be_found_again() {
        let names = Names::new("main");
        let record = names.offset_record("feed.posts_new", "feed.fanout", 12);
        let [topic, group, partition] = Names::last_parts(&record).unwrap();
        assert_eq!(
            (topic.as_str(), group.as_str(), partition.as_str()),
            ("feed.posts_new", "feed.fanout", "12")
        );
        assert_ne!(names.stream("a.1", 2), names.stream("a", 1));
        assert_ne!(source_part("a.b"), source_part("a=2eb"));
    }
}
