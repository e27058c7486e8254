//! How what Holon keeps becomes what PostgreSQL keeps.
//!
//! - *Text* may hold a NUL in Holon and may not in PostgreSQL: NUL is written as `\0`, and `\` as `\\`. Entities and
//!   keys have neither as a rule, so that an operator finds `user:42` as `user:42`.
//! - *Documents* are kept twice: in `bytes` as they were put, which is what readers get, since a store never rewrites
//!   a document; and in `json` as `jsonb`, for operators and their indexes. `jsonb` alone would change spaces, the
//!   order of members and the writing of numbers, and a copy could not be verified by a checksum. What `jsonb` cannot
//!   hold ([`is_queryable`]) is there with `json` null.

use bytes::{BufMut, BytesMut};
use std::{borrow::Cow, error::Error};
use tokio_postgres::types::{IsNull, Kind, ToSql, Type, to_sql_checked};

/// As it is written to a `text` column.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| matches!(byte, 0 | b'\\')) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace('\\', "\\\\").replace('\0', "\\0"))
}

/// Undoes [`escape`].
pub(crate) fn unescape(text: String) -> String {
    if !text.contains('\\') {
        return text;
    }
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next() {
                Some('0') => '\0',
                Some(other) => other,
                None => '\\',
            },
            other => other,
        });
    }
    plain
}

const DEEPEST: u32 = 256;
const LONGEST_NUMBER: u32 = 400;
const LARGEST_EXPONENT: u32 = 3;

/// Whether `jsonb` can hold a document that is JSON. It has no NUL and no half of a surrogate pair in texts, and bounds on numbers and
/// depth; escapes of surrogates are refused whole, as no serialiser that writes UTF-8 makes them.
pub(crate) fn is_queryable(json: &str) -> bool {
    let bytes = json.as_bytes();
    let (mut depth, mut number, mut exponent) = (0_u32, 0_u32, None);
    let mut is_text = false;
    let mut i = 0;
    while i < bytes.len() {
        let byte = bytes[i];
        i += 1;
        if is_text {
            match byte {
                b'"' => is_text = false,
                b'\\' => {
                    let escape = bytes.get(i..i + 5).unwrap_or_default();
                    let is_surrogate = escape.len() == 5
                        && matches!(escape[1], b'd' | b'D')
                        && matches!(escape[2], b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F');
                    if escape.first() == Some(&b'u') && (escape == b"u0000" || is_surrogate) {
                        return false;
                    }
                    i += 1;
                }
                _ => {}
            }
            continue;
        }
        match byte {
            b'0'..=b'9' | b'.' | b'-' | b'+' => {
                number += 1;
                if let Some(digits) = &mut exponent {
                    *digits += u32::from(byte.is_ascii_digit());
                }
            }
            b'e' | b'E' if number > 0 => exponent = Some(0),
            _ => (number, exponent) = (0, None),
        }
        match byte {
            b'"' => is_text = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEEPEST || number > LONGEST_NUMBER || exponent > Some(LARGEST_EXPONENT) {
            return false;
        }
    }
    true
}

/// Writes the fields of a composite in PostgreSQL's binary format: how many, then each with its type and length.
pub(crate) struct Fields<'a> {
    out: &'a mut BytesMut,
}

type Written = Result<IsNull, Box<dyn Error + Sync + Send>>;

impl<'a> Fields<'a> {
    fn start(ty: &Type, count: i32, out: &'a mut BytesMut) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let Kind::Composite(fields) = ty.kind() else {
            return Err(format!("{ty} is no composite").into());
        };
        if fields.len() != count as usize {
            return Err(format!("{ty} has {} fields, not {count}", fields.len()).into());
        }
        out.put_i32(count);
        Ok(Self { out })
    }

    fn field(&mut self, ty: &Type, bytes: Option<&[u8]>) {
        self.out.put_u32(ty.oid());
        match bytes {
            Some(bytes) => {
                self.out.put_i32(bytes.len() as i32);
                self.out.put_slice(bytes);
            }
            None => self.out.put_i32(-1),
        }
    }

    fn i16(&mut self, value: i16) {
        self.field(&Type::INT2, Some(&value.to_be_bytes()));
    }

    fn i32(&mut self, value: i32) {
        self.field(&Type::INT4, Some(&value.to_be_bytes()));
    }

    fn i64(&mut self, value: Option<i64>) {
        let bytes = value.map(i64::to_be_bytes);
        self.field(&Type::INT8, bytes.as_ref().map(<[u8; 8]>::as_slice));
    }

    fn text(&mut self, value: Option<&str>) {
        self.field(&Type::TEXT, value.map(str::as_bytes));
    }
}

/// The place of a step or an event in a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub wave: i32,
    /// From 1.
    pub commit: i32,
}

/// `holon.step`.
#[derive(Debug)]
pub(crate) struct StepRow<'a> {
    pub place: Place,
    pub table: i32,
    pub prepared: &'a crate::commit::Prepared,
    pub step: &'a crate::commit::Step,
    pub slot: i32,
}

impl ToSql for StepRow<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Written {
        let step = self.step;
        let mut fields = Fields::start(ty, 20, out)?;
        fields.i32(self.place.wave);
        fields.i32(self.place.commit);
        fields.i32(step.op as i32);
        fields.i32(self.table);
        fields.i16(step.action as i16);
        fields.text(Some(self.prepared.tenant.as_str()));
        fields.text(Some(&self.prepared.entity));
        fields.i32(self.slot);
        fields.field(&Type::BYTEA, Some(&step.sort));
        let (condition, want) = step.condition_row();
        fields.i16(condition);
        fields.i64(want);
        fields.i16(step.kind);
        fields.field(&Type::BYTEA, step.bytes.as_deref());
        fields.field(&Type::BOOL, Some(&[u8::from(step.queryable)]));
        fields.i64(step.counter);
        fields.i64(Some(step.extra));
        fields.i64(Some(step.low));
        fields.i64(Some(step.high));
        fields.field(&Type::BOOL, Some(&[u8::from(step.fresh)]));
        fields.i64(step.expires.map(holon_base::Timestamp::millis));
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        ty.name() == "step"
    }

    to_sql_checked!();
}

/// `holon.event`.
#[derive(Debug)]
pub(crate) struct EventRow<'a> {
    pub place: Place,
    pub prepared: &'a crate::commit::PreparedEvent,
}

impl ToSql for EventRow<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Written {
        let event = &self.prepared.event;
        let mut fields = Fields::start(ty, 10, out)?;
        fields.i32(self.place.wave);
        fields.i32(self.place.commit);
        fields.text(Some(&escape(event.topic)));
        fields.i64(Some(self.prepared.id.as_u64() as i64));
        fields.text(Some(event.tenant.as_str()));
        fields.text(Some(&escape(&event.key)));
        fields.text(Some(&escape(event.kind)));
        fields.text(Some(&escape(&event.subject)));
        fields.field(&Type::BYTEA, Some(&event.data));
        let trace = event.traceparent.as_deref().map(escape);
        fields.text(trace.as_deref());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        ty.name() == "event"
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_comes_back() {
        for text in ["", "user:1", "user:1\0", "\\", "\\0", "\0\\", "ä\\\\0\0"] {
            let escaped = escape(text).into_owned();
            assert!(!escaped.contains('\0'));
            assert_eq!(unescape(escaped), text);
        }
        assert_ne!(escape("\0"), escape("\\0"));
    }

    #[test]
    fn what_jsonb_cannot_hold_is_known() {
        for fine in [
            "1",
            "{\"a\": [1, -2.5e10, \"\\u0041\\\\u0000\"]}",
            "\"e99999\"",
            "[1e9,1e9]",
        ] {
            assert!(is_queryable(fine), "{fine}");
        }
        let deep = "[".repeat(300) + &"]".repeat(300);
        let long = "1".repeat(500);
        for not in [
            "\"\\u0000\"",
            "\"\\ud800\"",
            "[1e99999]",
            "1E-99999",
            deep.as_str(),
            long.as_str(),
        ] {
            assert!(!is_queryable(not), "{not}");
        }
    }
}
