//! A backup: one file, or one stream, of everything that a deployment holds.
//!
//! ```text
//!  "HOLON BACKUP 1\n"   frame  frame  ...  last frame        frame: length (u32), plain length (u32), check (8), bytes
//! ```
//!
//! A frame holds records one after the other, compressed (zlib, RFC 1950). Its check is the start of the SHA-256 of the
//! check before it, the two lengths and the bytes as they are stored: a chain, so that a frame that was altered, left
//! out or put elsewhere is found where it is, before anything of it is unpacked. The last frame is the manifest: what
//! was written, by part, with the checksums of [`Tally`]. A file without it was cut off.

use super::{CopyError, record::Record, tally::Tally};
use bytes::Bytes;
use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::io::{Read, Write};

const MAGIC: &[u8] = b"HOLON BACKUP 1\n";
/// A frame is closed once it has this much, before it is compressed.
const FRAME_BYTES: usize = 1 << 20;
/// No frame is larger: a record and what fitted before it. Chunks are up to 16 MiB.
const LARGEST_FRAME: u32 = 32 << 20;
const CHECK: usize = 8;
const HEAD: usize = 8 + CHECK;
/// Set in the length of the last frame.
const LAST: u32 = 1 << 31;

/// What the last frame says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub records: u64,
    pub tally: Tally,
}

fn check(before: [u8; CHECK], lengths: [u32; 2], stored: &[u8]) -> [u8; CHECK] {
    let hash = Sha256::new()
        .chain_update(before)
        .chain_update(lengths[0].to_be_bytes())
        .chain_update(lengths[1].to_be_bytes())
        .chain_update(stored)
        .finalize();
    let mut check = [0; CHECK];
    check.copy_from_slice(&hash[..CHECK]);
    check
}

/// Writes a backup, front to back.
pub struct ArchiveWriter<W: Write> {
    out: W,
    check: [u8; CHECK],
    plain: Vec<u8>,
    manifest: Manifest,
}

impl<W: Write> ArchiveWriter<W> {
    pub fn new(mut out: W) -> Result<Self, CopyError> {
        out.write_all(MAGIC).map_err(CopyError::Write)?;
        Ok(Self {
            out,
            check: [0; CHECK],
            plain: Vec::with_capacity(FRAME_BYTES + (64 << 10)),
            manifest: Manifest {
                records: 0,
                tally: Tally::default(),
            },
        })
    }

    /// Where it was written to so far, but for the frame that is open.
    pub fn out(&mut self) -> &mut W {
        &mut self.out
    }

    pub fn add(&mut self, record: &Record) -> Result<(), CopyError> {
        record.encode(&mut self.plain)?;
        self.manifest.records += 1;
        self.manifest.tally.add(record)?;
        if self.plain.len() >= FRAME_BYTES {
            let plain = std::mem::take(&mut self.plain);
            self.frame(&plain, 0)?;
            self.plain = plain;
            self.plain.clear();
        }
        Ok(())
    }

    /// Writes what is left and the manifest. Answers where it was written to, flushed.
    pub fn finish(mut self) -> Result<(W, Manifest), CopyError> {
        let plain = std::mem::take(&mut self.plain);
        if !plain.is_empty() {
            self.frame(&plain, 0)?;
        }
        let manifest =
            serde_json::to_vec(&self.manifest).map_err(|error| CopyError::Record(error.to_string()))?;
        self.frame(&manifest, LAST)?;
        self.out.flush().map_err(CopyError::Write)?;
        Ok((self.out, self.manifest))
    }

    fn frame(&mut self, plain: &[u8], last: u32) -> Result<(), CopyError> {
        let mut encoder = ZlibEncoder::new(Vec::with_capacity(plain.len() / 2), Compression::fast());
        encoder.write_all(plain).map_err(CopyError::Write)?;
        let stored = encoder.finish().map_err(CopyError::Write)?;
        let lengths = [stored.len() as u32 | last, plain.len() as u32];
        self.check = check(self.check, lengths, &stored);
        for part in [
            &lengths[0].to_be_bytes()[..],
            &lengths[1].to_be_bytes(),
            &self.check,
            &stored,
        ] {
            self.out.write_all(part).map_err(CopyError::Write)?;
        }
        Ok(())
    }
}

/// Reads a backup, front to back. What it answers was checked; that nothing is missing is known at the end.
pub struct ArchiveReader<R: Read> {
    from: R,
    /// Bytes read so far, for errors.
    at: u64,
    check: [u8; CHECK],
    plain: Bytes,
    manifest: Option<Manifest>,
    found: Manifest,
}

impl<R: Read> ArchiveReader<R> {
    pub fn new(mut from: R) -> Result<Self, CopyError> {
        let mut magic = [0; MAGIC.len()];
        let read = fill(&mut from, &mut magic)?;
        if read < MAGIC.len() || magic != MAGIC {
            let known = magic.starts_with(b"HOLON BACKUP ");
            return Err(CopyError::Archive(match known {
                true => "it was written by a newer program; restore it with that one".into(),
                false => "it does not begin as a backup does".into(),
            }));
        }
        Ok(Self {
            from,
            at: MAGIC.len() as u64,
            check: [0; CHECK],
            plain: Bytes::new(),
            manifest: None,
            found: Manifest {
                records: 0,
                tally: Tally::default(),
            },
        })
    }

    /// The next record; `None` at the end, once it is certain that everything is there.
    pub fn next(&mut self) -> Result<Option<Record>, CopyError> {
        while self.plain.is_empty() && self.manifest.is_none() {
            self.read_frame()?;
        }
        if let Some(manifest) = &self.manifest {
            if *manifest != self.found {
                let differences = manifest.tally.differences(&self.found.tally);
                let first = differences.first().cloned().unwrap_or_else(|| "records".into());
                return Err(CopyError::Archive(format!(
                    "its manifest says otherwise: {first}"
                )));
            }
            return Ok(None);
        }
        let at = self.at;
        let record = Record::decode(&mut self.plain)
            .map_err(|error| CopyError::Archive(format!("before byte {at}: {error}")))?;
        self.found.records += 1;
        self.found.tally.add(&record)?;
        Ok(Some(record))
    }

    /// What the manifest says; after the end.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    fn cut_off(&self) -> CopyError {
        CopyError::Archive(format!(
            "it ends at byte {} without its manifest: it was cut off",
            self.at
        ))
    }

    fn read_frame(&mut self) -> Result<(), CopyError> {
        let mut head = [0; HEAD];
        let read = fill(&mut self.from, &mut head)?;
        if read < HEAD {
            self.at += read as u64;
            return Err(self.cut_off());
        }
        let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let lengths = [number(0), number(4)];
        let (is_last, stored) = (lengths[0] & LAST != 0, lengths[0] & !LAST);
        let altered = |at: u64| CopyError::Archive(format!("what begins at byte {at} was altered"));
        if stored > LARGEST_FRAME || lengths[1] > LARGEST_FRAME {
            return Err(altered(self.at));
        }
        let mut bytes = vec![0; stored as usize];
        let read = fill(&mut self.from, &mut bytes)?;
        if read < bytes.len() {
            self.at += (HEAD + read) as u64;
            return Err(self.cut_off());
        }
        let expected = check(self.check, lengths, &bytes);
        if head[8..] != expected {
            return Err(altered(self.at));
        }
        self.check = expected;
        let mut plain = Vec::with_capacity(lengths[1] as usize);
        ZlibDecoder::new(&bytes[..])
            .take(u64::from(lengths[1]) + 1)
            .read_to_end(&mut plain)
            .map_err(|_| altered(self.at))?;
        if plain.len() != lengths[1] as usize {
            return Err(altered(self.at));
        }
        self.at += (HEAD + bytes.len()) as u64;
        if !is_last {
            self.plain = plain.into();
            return Ok(());
        }
        let manifest = serde_json::from_slice(&plain);
        self.manifest = Some(manifest.map_err(|error| CopyError::Archive(format!("its manifest: {error}")))?);
        if fill(&mut self.from, &mut [0])? > 0 {
            return Err(CopyError::Archive(format!(
                "something follows its end at byte {}",
                self.at
            )));
        }
        Ok(())
    }
}

/// Reads until the buffer is full or there is no more; answers how much.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> Result<usize, CopyError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CopyError::Read(error)),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let secret = |number: u32| Record::Secret {
            name: format!("secret-{number}"),
            secret: [number as u8; 32],
        };
        (0..40_000).map(secret).collect()
    }

    fn written(records: &[Record]) -> Vec<u8> {
        let mut writer = ArchiveWriter::new(Vec::new()).unwrap();
        for record in records {
            writer.add(record).unwrap();
        }
        writer.finish().unwrap().0
    }

    fn read(bytes: &[u8]) -> Result<Vec<Record>, CopyError> {
        let mut reader = ArchiveReader::new(bytes)?;
        let mut records = Vec::new();
        while let Some(record) = reader.next()? {
            records.push(record);
        }
        Ok(records)
    }

    #[test]
    fn what_was_written_comes_back() {
        let records = records();
        let bytes = written(&records);
        assert_eq!(read(&bytes).unwrap(), records);
        assert!(read(&written(&[])).unwrap().is_empty());
    }

    #[test]
    fn what_was_cut_or_altered_anywhere_is_refused() {
        let records = records();
        let whole = written(&records);
        let step = whole.len() / 97;
        for at in (0..whole.len()).step_by(step).chain([whole.len() - 1]) {
            let error = read(&whole[..at]).unwrap_err().to_string();
            assert!(
                error.contains("cut off") || at < MAGIC.len(),
                "cut at {at}: {error}"
            );
            let mut altered = whole.clone();
            altered[at] ^= 0x10;
            let error = read(&altered).unwrap_err().to_string();
            assert!(
                error.contains("byte") || at < MAGIC.len(),
                "altered at {at}: {error}"
            );
        }
        let error = read(&[&whole[..], b"more"].concat()).unwrap_err().to_string();
        assert!(error.contains("something follows"), "{error}");
        assert!(read(b"").unwrap_err().to_string().contains("does not begin"));
        assert!(
            read(b"HOLON BACKUP 9\n")
                .unwrap_err()
                .to_string()
                .contains("newer")
        );
    }

    #[test]
    fn a_frame_in_another_place_is_refused() {
        let whole = written(&records());
        let body = MAGIC.len();
        let length = u32::from_be_bytes(whole[body..body + 4].try_into().unwrap()) as usize;
        let second = body + HEAD + length;
        let without_first = [&whole[..body], &whole[second..]].concat();
        let error = read(&without_first).unwrap_err().to_string();
        assert!(error.contains("altered"), "{error}");
    }
}
