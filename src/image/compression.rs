//! Compressed streams, told apart by their content.

use std::io::{self, Cursor, Read, Write};

use serde::{Deserialize, Serialize};

use super::Section;
use crate::error::{Error, Result};

/// The largest window of a Zstandard frame, as a power of two: what RFC 8878 (3.1.1.1.2) asks every
/// decoder to take and every encoder to keep to. Levels above 19 and `--long` go beyond it.
const MAX_WINDOW_LOG: u32 = 23;

/// zstd's own default, with a window well below the largest.
const ZSTD_LEVEL: i32 = 3;

/// Whoever inflates a whole archive for [`super::Source`].
pub trait Inflate {
    /// Gives `take` the inflated stream, of which it may leave a rest.
    fn inflate(
        &self,
        packed: Section,
        compression: Compression,
        take: &mut dyn FnMut(&mut dyn Read) -> Result<()>,
    ) -> Result<()>;
}

/// How a stream is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// As it is.
    None,
    /// gzip, possibly of several members.
    Gzip,
    /// Zstandard, possibly of several frames.
    Zstd,
}

impl Compression {
    /// Tells by the first bytes; a packing that is recognised and not supported is an error.
    pub fn detect(head: &[u8]) -> Result<Self> {
        let unsupported = |name: &str| {
            Err(Error::new(format!("{name} compression is not supported"))
                .hint("repack it with gzip or zstd"))
        };
        match head {
            [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Compression::Zstd),
            // A skippable frame, as zstd:chunked and pzstd may put first.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Compression::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => unsupported("xz"),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => unsupported("bzip2"),
            [0x04, 0x22, 0x4d, 0x18, ..] => unsupported("lz4"),
            _ => Ok(Compression::None),
        }
    }

    /// The unpacked stream.
    pub fn decode<'a>(self, packed: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Compression::None => Box::new(packed),
            Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(packed)),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(packed)?;
                decoder.window_log_max(MAX_WINDOW_LOG)?;
                Box::new(decoder)
            }
        })
    }

    /// A writer that packs what it is given into `to`. The same bytes are packed the same way each
    /// time: no time, name or system is noted down.
    pub fn encode<W: Write>(self, to: W) -> io::Result<Encoder<W>> {
        Ok(match self {
            Compression::None => Encoder::None(to),
            Compression::Gzip => {
                Encoder::Gzip(flate2::write::GzEncoder::new(to, flate2::Compression::default()))
            }
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(to, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                Encoder::Zstd(encoder)
            }
        })
    }

    /// Its name, as options have it.
    pub fn option(self) -> &'static str {
        match self {
            Compression::None => "none",
            packed => packed.name(),
        }
    }

    /// Its name, as people write it; `tar` for none.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "tar",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }
}

/// Packs what is written.
pub enum Encoder<W: Write> {
    /// As it is.
    None(W),
    /// gzip, one member.
    Gzip(flate2::write::GzEncoder<W>),
    /// Zstandard, one frame with a checksum.
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    /// Writes the end of the packing; before, the stream is cut short.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Encoder::None(to) => Ok(to),
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Encoder::None(to) => to.write(buffer),
            Encoder::Gzip(encoder) => encoder.write(buffer),
            Encoder::Zstd(encoder) => encoder.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Encoder::None(to) => to.flush(),
            Encoder::Gzip(encoder) => encoder.flush(),
            Encoder::Zstd(encoder) => encoder.flush(),
        }
    }
}

/// Looks at the first bytes of a stream, up to `length` of them; the stream that is returned starts
/// with them again.
pub fn peek<R: Read>(mut stream: R, length: usize) -> io::Result<(Vec<u8>, impl Read + use<R>)> {
    let mut head = Vec::with_capacity(length);
    stream.by_ref().take(length as u64).read_to_end(&mut head)?;
    Ok((head.clone(), Cursor::new(head).chain(stream)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_unpacked() {
        for expected in [Compression::Gzip, Compression::Zstd, Compression::None] {
            let mut encoder = expected.encode(Vec::new()).unwrap();
            encoder.write_all(b"hello").unwrap();
            let packed = encoder.finish().unwrap();
            let (head, stream) = peek(&packed[..], 16).unwrap();
            let compression = Compression::detect(&head).unwrap();
            assert_eq!(compression, expected);
            let mut text = String::new();
            compression.decode(stream).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
        }
    }

    #[test]
    fn xz_is_named() {
        let error = Compression::detect(b"\xfd7zXZ\0..").unwrap_err();
        assert_eq!(error.to_string(), "xz compression is not supported");
    }
}
