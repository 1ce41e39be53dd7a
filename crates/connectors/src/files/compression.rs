//! Compressed files, decompressed and compressed as streams.

use std::fs::File;
use std::io::{Read, Write};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trib_core::{Code, Error, Result};

use super::input::pipe;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    #[default]
    None,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
    /// An archive with one file in it; read only.
    Zip,
}

impl Compression {
    pub fn of_extension(extension: &str) -> Option<Self> {
        Some(match extension.to_ascii_lowercase().as_str() {
            "gz" | "gzip" => Compression::Gzip,
            "zst" | "zstd" => Compression::Zstd,
            "bz2" | "bzip2" => Compression::Bzip2,
            "xz" => Compression::Xz,
            "zip" => Compression::Zip,
            _ => return None,
        })
    }

    /// With its dot; empty for none.
    pub fn extension(self) -> &'static str {
        match self {
            Compression::None => "",
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
            Compression::Bzip2 => ".bz2",
            Compression::Xz => ".xz",
            Compression::Zip => ".zip",
        }
    }

    /// What is inside. Files that are several compressed streams one after the other (as `pigz` and `bgzip` make them) are read to
    /// their end. Not for zip, which needs a seekable file: see [`unzip`].
    pub fn decompress(self, raw: Box<dyn Read + Send>) -> Result<Box<dyn Read + Send>> {
        Ok(match self {
            Compression::None => raw,
            Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(raw)),
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(raw)?),
            Compression::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(raw)),
            Compression::Xz => Box::new(liblzma::read::XzDecoder::new_multi_decoder(raw)),
            Compression::Zip => return Err(Error::internal("a zip archive was opened as a stream")),
        })
    }

    pub fn compress<W: Write>(self, out: W) -> Result<Compressor<W>> {
        Ok(match self {
            Compression::None => Compressor::None(out),
            Compression::Gzip => Compressor::Gzip(flate2::write::GzEncoder::new(out, flate2::Compression::default())),
            Compression::Zstd => Compressor::Zstd(zstd::stream::write::Encoder::new(out, 0)?),
            Compression::Bzip2 => Compressor::Bzip2(bzip2::write::BzEncoder::new(out, bzip2::Compression::default())),
            Compression::Xz => Compressor::Xz(liblzma::write::XzEncoder::new(out, 6)),
            Compression::Zip => {
                return Err(Error::new(Code::Unsupported, "zip archives are read, not written").hint("set `compression: gzip`"));
            }
        })
    }
}

/// A writer that must be finished, since the end of a compressed file is part of it.
pub enum Compressor<W: Write> {
    None(W),
    Gzip(flate2::write::GzEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
    Bzip2(bzip2::write::BzEncoder<W>),
    Xz(liblzma::write::XzEncoder<W>),
}

impl<W: Write> Compressor<W> {
    /// Writes the end, and gives the output back.
    pub fn finish(self) -> Result<W> {
        Ok(match self {
            Compressor::None(out) => out,
            Compressor::Gzip(encoder) => encoder.finish()?,
            Compressor::Zstd(encoder) => encoder.finish()?,
            Compressor::Bzip2(encoder) => encoder.finish()?,
            Compressor::Xz(encoder) => encoder.finish()?,
        })
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Compressor::None(w) => w.write(bytes),
            Compressor::Gzip(w) => w.write(bytes),
            Compressor::Zstd(w) => w.write(bytes),
            Compressor::Bzip2(w) => w.write(bytes),
            Compressor::Xz(w) => w.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Compressor::None(w) => w.flush(),
            Compressor::Gzip(w) => w.flush(),
            Compressor::Zstd(w) => w.flush(),
            Compressor::Bzip2(w) => w.flush(),
            Compressor::Xz(w) => w.flush(),
        }
    }
}

/// The one file in a zip archive, unpacked on a thread of its own.
pub fn unzip(file: File) -> Result<Box<dyn Read + Send>> {
    let invalid = |e| Error::new(Code::DataInvalid, "the zip archive cannot be read").source(e);
    let mut archive = zip::ZipArchive::new(file).map_err(invalid)?;
    // macOS adds members of its own.
    let members: Vec<String> =
        archive.file_names().filter(|n| !n.ends_with('/') && !n.starts_with("__MACOSX/")).map(str::to_owned).collect();
    let [member] = members.as_slice() else {
        return Err(Error::new(Code::Unsupported, "a zip archive must hold one file")
            .detail(format!("it holds {}: {}", members.len(), members.iter().take(5).cloned().collect::<Vec<_>>().join(", ")))
            .hint("unpack it, and give the folder as `path`"));
    };
    archive.by_name(member).map_err(invalid)?;
    let (mut writer, reader) = pipe();
    let member = member.clone();
    std::thread::spawn(move || {
        let copied = archive.by_name(&member).map_err(std::io::Error::other).and_then(|mut inner| std::io::copy(&mut inner, &mut writer));
        match copied {
            Ok(_) => writer.finish(),
            Err(e) => writer.fail(e),
        }
    });
    Ok(Box::new(reader))
}
