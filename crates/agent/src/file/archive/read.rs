//! A directory on its way out.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
};

use api::{
    archive::{ArchiveFormat, ReadArchive},
    error::{ApiError, ErrorCode},
    pattern::Pattern,
};
use archive::{ArchiveError, Layer, PackOptions, Packer, Source};
use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Map, Value};
use sys::{SysError, errno, file, file_system};
use tokio::sync::SemaphorePermit;
use zstd::stream::write::Encoder;

use crate::file::{
    blocking,
    fault::{fault, io_fault},
    path::{self, FilePath},
};

const READ: &str = "read";

/// Bytes of the buffer for one piece: some more than a packer adds.
const PIECE_BYTES: usize = 336 * 1024;

/// zstd's fastest level proper: packs as fast as files are opened, in 1 MiB of memory.
const LEVEL: i32 = 1;

/// Reads a query in which `exclude` may stand several times.
pub(super) fn query(pairs: Vec<(String, String)>) -> Result<ReadArchive, ApiError> {
    let invalid = |text: String| ApiError::new(ErrorCode::ValidationFailed, text);
    let (exclude, others): (Vec<_>, Vec<_>) =
        pairs.into_iter().partition(|(name, _)| name == "exclude");
    let mut fields = Map::new();
    for (name, value) in others {
        if fields.insert(name.clone(), Value::String(value)).is_some() {
            return Err(invalid(format!(
                "invalid request: in the query: duplicate field `{name}`"
            )));
        }
    }
    if !exclude.is_empty() {
        let exclude = exclude.into_iter().map(|(_, value)| Value::String(value)).collect();
        fields.insert("exclude".to_owned(), exclude);
    }
    serde_json::from_value(Value::Object(fields))
        .map_err(|fault| invalid(format!("invalid request: in the query: {fault}")))
}

/// An archive in the making.
pub(super) struct Packing {
    packer: Packer,
    encoder: Option<Encoder<'static, Vec<u8>>>,
}

impl Packing {
    pub(super) fn begin(
        path: &FilePath,
        exclude: Vec<Pattern>,
        format: ArchiveFormat,
    ) -> Result<Self, ApiError> {
        let options = PackOptions { exclude, cross_mounts: false };
        let packer = Packer::new(source(path)?, options)
            .map_err(|error| super::write::refusal(path, error))?;
        Self::of(packer, path, format)
    }

    /// The files of the first volume among the views, as the layer of a checkpoint.
    pub(super) fn begin_layer(about: Vec<u8>, format: ArchiveFormat) -> Result<Self, ApiError> {
        let root = path::absolute("/", "/")?;
        Self::of(layer(&root, about, Packer::layer)?, &root, format)
    }

    fn of(packer: Packer, path: &FilePath, format: ArchiveFormat) -> Result<Self, ApiError> {
        let encoder = match format {
            ArchiveFormat::Tar => None,
            ArchiveFormat::TarZst => {
                let encoder = Encoder::new(Vec::new(), LEVEL);
                Some(encoder.map_err(|error| io_fault(READ, path, &error))?)
            }
        };
        Ok(Self { packer, encoder })
    }

    /// The next bytes, none perhaps, and whether more follow.
    fn next(&mut self) -> io::Result<(Bytes, bool)> {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let is_more = self.packer.fill(&mut piece).map_err(io::Error::other)?;
        let Some(encoder) = &mut self.encoder else { return Ok((piece.into(), is_more)) };
        encoder.write_all(&piece)?;
        if !is_more {
            encoder.do_finish()?;
        }
        Ok((std::mem::take(encoder.get_mut()).into(), is_more))
    }
}

/// The files of the first volume among the views, as `begin` takes them.
fn layer(
    root: &FilePath,
    about: Vec<u8>,
    begin: fn(OwnedFd, Layer) -> Result<Packer, ArchiveError>,
) -> Result<Packer, ApiError> {
    let [below, whole, own, ..] = jail::VIEWS;
    let view = |place| {
        let how = file::How::new(file::O_RDONLY | file::O_DIRECTORY);
        file::open(file::cwd(), place, how).map_err(|error| fault(READ, root, error))
    };
    let layer = Layer { below: view(below)?, whole: view(whole)?, about };
    begin(view(own)?, layer).map_err(|error| super::write::refusal(root, error))
}

/// Refuses a layer that would break off because it is too large, as files do that are mostly holes: only
/// before its first byte can that be told.
pub(super) async fn weigh() -> Result<(), ApiError> {
    let root = path::absolute("/", "/")?;
    let begun = root.clone();
    let mut packer = blocking(move || layer(&begun, Vec::new(), Packer::weigh_layer)).await?;
    loop {
        let root = root.clone();
        let step = blocking(move || {
            let more = packer.fill(&mut Vec::new());
            let more = more.map_err(|error| super::write::refusal(&root, error))?;
            Ok((packer, more))
        });
        match step.await? {
            (back, true) => packer = back,
            (_, false) => return Ok(()),
        }
    }
}

/// Opens what is packed.
fn source(path: &FilePath) -> Result<Source, ApiError> {
    let refuse = |errno| fault(READ, path, SysError { call: "open", errno });
    let opened = path::open(file::cwd(), path.as_c_str(), file::O_RDONLY)
        .map_err(|error| fault(READ, path, error))?;
    // What is in /proc is no file that could be unpacked, and some of it is the agent's.
    match file_system::of(opened.as_fd()) {
        Ok(file_system) if file_system.is_proc() => return Err(refuse(errno::EACCES)),
        Ok(_) => {}
        Err(error) => return Err(fault(READ, path, error)),
    }
    let file = File::from(opened);
    let kind = file.metadata().map_err(|error| io_fault(READ, path, &error))?.file_type();
    if kind.is_dir() {
        return Ok(Source::Directory(file.into()));
    }
    if !kind.is_file() {
        return Err(refuse(errno::ENODEV));
    }
    let name = path.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    Ok(Source::File { file, name: name.to_vec() })
}

/// The response. An error ends the body before its end, and so the connection.
pub(super) fn respond(
    packing: Packing,
    format: ArchiveFormat,
    place: SemaphorePermit<'static>,
) -> Response {
    let pieces = stream::try_unfold(Some((packing, place)), |state| async move {
        let Some((mut packing, place)) = state else { return Ok(None) };
        loop {
            let step = tokio::task::spawn_blocking(move || {
                let piece = packing.next();
                (packing, piece)
            });
            let (back, piece) = step.await.map_err(io::Error::other)?;
            packing = back;
            match piece? {
                (piece, true) if piece.is_empty() => {}
                (piece, true) => return Ok(Some((piece, Some((packing, place))))),
                (piece, false) => return Ok::<_, io::Error>(Some((piece, None))),
            }
        }
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let kind = HeaderValue::from_static(format.content_type());
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<ReadArchive, String> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        query(pairs.collect()).map_err(|error| error.message)
    }

    #[test]
    fn a_query_has_one_path_and_many_patterns() {
        let found = read(&[("exclude", "a"), ("path", "/x"), ("exclude", "b")]).unwrap();
        assert_eq!((&*found.path, found.format), ("/x", ArchiveFormat::Tar));
        assert_eq!(found.exclude, ["a", "b"]);
        assert_eq!(
            read(&[("path", "/x"), ("format", "tar.zst")]).unwrap().format,
            ArchiveFormat::TarZst
        );
        for (pairs, told) in [
            (&[][..], "path"),
            (&[("path", "a"), ("path", "b")], "duplicate field `path`"),
            (&[("path", "a"), ("format", "zip")], "zip"),
            (&[("path", "a"), ("else", "b")], "else"),
        ] {
            let error = read(pairs).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
