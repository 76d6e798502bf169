//! A directory on its way in.

use std::{
    io::{self, Write},
    os::fd::OwnedFd,
};

use api::{
    archive::{ArchiveFormat, Unpacked, WriteArchive},
    error::{ApiError, ErrorCode},
    limit::ARCHIVE_WINDOW_BYTES,
};
use archive::{ArchiveError, Fault, UnpackOptions, Unpacker};
use axum::body::Body;
use bytes::Bytes;
use sys::file;
use zstd::stream::write::Decoder;

use crate::file::{
    blocking,
    fault::{fault, io_fault},
    mkdir::directories,
    path::{self, FilePath},
    write::gather,
};

const WRITE: &str = "write";

/// Unpacks `body` into `path`.
///
/// Cancel safety: dropping the future leaves what is written, each file whole.
pub(super) async fn unpack(
    path: FilePath,
    query: WriteArchive,
    mut body: Body,
) -> Result<Unpacked, ApiError> {
    let mut unpacking = blocking(move || Unpacking::begin(path, &query)).await?;
    let mut gathered = gather(&mut body).await;
    loop {
        let Ok((pieces, is_last)) = gathered else {
            return blocking(move || Err(unpacking.refuse(broken_off()))).await;
        };
        let taken = move || {
            for piece in pieces {
                unpacking.take(&piece)?;
            }
            Ok(unpacking)
        };
        if is_last {
            return blocking(move || taken()?.finish()).await;
        }
        // The next pieces come while these are unpacked.
        let next = async { Ok(gather(&mut body).await) };
        (unpacking, gathered) = tokio::try_join!(blocking(taken), next)?;
    }
}

/// A directory that is being unpacked.
struct Unpacking {
    /// None once it is dropped.
    input: Option<Input>,
    path: FilePath,
}

/// What has come whole is still written then, which is no work for the thread of everybody's
/// requests.
impl Drop for Unpacking {
    fn drop(&mut self) {
        let input = self.input.take();
        tokio::task::spawn_blocking(move || drop(input));
    }
}

enum Input {
    Tar(Box<Sink>),
    Zstd(Box<Decoder<'static, Sink>>),
}

impl Unpacking {
    fn begin(path: FilePath, query: &WriteArchive) -> Result<Self, ApiError> {
        let options = UnpackOptions {
            strip_components: query.strip_components,
            keep_owner: query.keep_owner,
            keep_times: query.keep_times,
        };
        let sink = Sink { unpacker: Unpacker::new(directory(&path)?, options), error: None };
        let input = match query.format {
            ArchiveFormat::Tar => Input::Tar(Box::new(sink)),
            ArchiveFormat::TarZst => {
                let decoder = Decoder::new(sink).and_then(|mut decoder| {
                    decoder.window_log_max(ARCHIVE_WINDOW_BYTES.ilog2())?;
                    Ok(decoder)
                });
                Input::Zstd(Box::new(decoder.map_err(|error| io_fault(WRITE, &path, &error))?))
            }
        };
        Ok(Self { input: Some(input), path })
    }

    fn take(&mut self, piece: &Bytes) -> Result<(), ApiError> {
        let taken = match self.input() {
            Input::Tar(sink) => sink.write_all(piece),
            Input::Zstd(decoder) => decoder.write_all(piece),
        };
        taken.map_err(|error| self.told(&error))
    }

    fn finish(mut self) -> Result<Unpacked, ApiError> {
        if let Input::Zstd(decoder) = self.input() {
            let finished = decoder.do_finish();
            finished.map_err(|error| self.told(&error))?;
        }
        self.sink().unpacker.finish().map_err(|error| self.refuse(error))
    }

    fn input(&mut self) -> &mut Input {
        self.input.as_mut().expect("it is taken only when it is dropped")
    }

    fn sink(&mut self) -> &mut Sink {
        match self.input() {
            Input::Tar(sink) => sink,
            Input::Zstd(decoder) => decoder.get_mut(),
        }
    }

    /// What a failed write means: an error of the archive, or one of the compression around it.
    fn told(&mut self, error: &io::Error) -> ApiError {
        match self.sink().error.take() {
            Some(error) => self.refuse(error),
            None if error.kind() == io::ErrorKind::UnexpectedEof => self.refuse(broken_off()),
            None => {
                let text = format!("the archive is no zstd stream that can be read: {error}");
                self.so_far(ApiError::new(ErrorCode::InvalidArchive, text))
            }
        }
    }

    fn refuse(&mut self, error: ArchiveError) -> ApiError {
        let error = refusal(&self.path, error);
        self.so_far(error)
    }

    /// Adds what was written before, and stays.
    fn so_far(&mut self, error: ApiError) -> ApiError {
        let done = self.sink().unpacker.stop();
        error.with("entries", done.entries()).with("bytes", done.bytes)
    }
}

/// Takes what comes out of the decoder, and keeps the error that an `io::Error` cannot carry.
struct Sink {
    unpacker: Unpacker,
    error: Option<ArchiveError>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.unpacker.feed(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.error = Some(error);
                Err(io::ErrorKind::Other.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens the directory to unpack into, and makes it when it is missing.
fn directory(path: &FilePath) -> Result<OwnedFd, ApiError> {
    let flags = file::O_RDONLY | file::O_DIRECTORY;
    let open = || {
        path::open(file::cwd(), path.as_c_str(), flags).map_err(|error| fault(WRITE, path, error))
    };
    match open() {
        Err(error) if error.code == ErrorCode::FileNotFound => {
            directories(path).map_err(|error| fault("make the directory", path, error))?;
            open()
        }
        opened => opened,
    }
}

fn broken_off() -> ArchiveError {
    ArchiveError::Invalid { path: Vec::new(), fault: Fault::BrokenOff }
}

/// An error of an archive of the directory `top`.
pub(super) fn refusal(top: &FilePath, error: ArchiveError) -> ApiError {
    match error {
        ArchiveError::File { attempt, path, source } => {
            let below = String::from_utf8_lossy(&path);
            let path = path::absolute(&top.shown(), if below.is_empty() { "." } else { &below });
            fault(attempt, path.as_ref().unwrap_or(top), source)
        }
        ArchiveError::Invalid { ref path, .. } => {
            let shown = String::from_utf8_lossy(path).into_owned();
            ApiError::new(ErrorCode::InvalidArchive, error.to_string()).with("path", shown)
        }
        error => ApiError::new(ErrorCode::InternalError, error.to_string()),
    }
}
