//! A directory on its way in.

use std::{
    io::{self, Write},
    os::fd::OwnedFd,
};

use api::{
    archive::{ArchiveFormat, Unpacked, WriteArchive},
    checkpoint::CheckpointExport,
    error::{ApiError, ErrorCode},
    limit::{ARCHIVE_ENTRIES, ARCHIVE_WINDOW_BYTES, EXPORT_BYTES},
};
use archive::{ArchiveError, Fault, UnpackOptions, Unpacker};
use axum::body::Body;
use bytes::Bytes;
use sys::file;
use zstd::stream::write::Decoder;

use crate::file::{
    blocking,
    fault::{fault, io_fault},
    mkdir::{directories_telling, remove_made},
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
    body: Body,
) -> Result<Unpacked, ApiError> {
    run(blocking(move || Unpacking::begin(path, &query)).await?, body).await
}

/// Unpacks `body`, the export of a checkpoint over the image with digest `image`, into the root.
pub(super) async fn unpack_layer(
    format: ArchiveFormat,
    image: String,
    body: Body,
) -> Result<Unpacked, ApiError> {
    run(blocking(move || Unpacking::begin_layer(format, image)).await?, body).await
}

async fn run(mut unpacking: Unpacking, mut body: Body) -> Result<Unpacked, ApiError> {
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
    /// Directories that were made for it, outermost first: they go when it comes to nothing.
    made: Vec<FilePath>,
    /// The image that a layer has to be of.
    image: Option<String>,
    /// It has said so.
    is_checked: bool,
}

/// What has come whole is still written then, which is no work for the thread of everybody's
/// requests.
impl Drop for Unpacking {
    fn drop(&mut self) {
        let input = self.input.take();
        let made = std::mem::take(&mut self.made);
        tokio::task::spawn_blocking(move || {
            if let Some(mut input) = input {
                discard(&input.sink().unpacker.stop(), &made);
            }
        });
    }
}

enum Input {
    Tar(Box<Sink>),
    Zstd(Box<Decoder<'static, Sink>>),
}

impl Input {
    fn sink(&mut self) -> &mut Sink {
        match self {
            Self::Tar(sink) => sink,
            Self::Zstd(decoder) => decoder.get_mut(),
        }
    }
}

impl Unpacking {
    fn begin(path: FilePath, query: &WriteArchive) -> Result<Self, ApiError> {
        let options = UnpackOptions {
            strip_components: query.strip_components,
            keep_owner: query.keep_owner,
            keep_times: query.keep_times,
            ..UnpackOptions::default()
        };
        Self::of(path, options, query.format, None)
    }

    /// For the layer of a checkpoint that was made over the image with this digest.
    fn begin_layer(format: ArchiveFormat, image: String) -> Result<Self, ApiError> {
        let options = UnpackOptions { layer: true, ..UnpackOptions::default() };
        Self::of(path::absolute("/", "/")?, options, format, Some(image))
    }

    fn of(
        path: FilePath,
        options: UnpackOptions,
        format: ArchiveFormat,
        image: Option<String>,
    ) -> Result<Self, ApiError> {
        let (directory, made) = directory(&path)?;
        let new_top = made.last() == Some(&path.trimmed());
        let options = UnpackOptions { new_top, ..options };
        let sink = Sink { unpacker: Unpacker::new(directory, options), error: None };
        let input = match format {
            ArchiveFormat::Tar => Input::Tar(Box::new(sink)),
            ArchiveFormat::TarZst => {
                let decoder = Decoder::new(sink).and_then(|mut decoder| {
                    decoder.window_log_max(ARCHIVE_WINDOW_BYTES.ilog2())?;
                    Ok(decoder)
                });
                Input::Zstd(Box::new(decoder.map_err(|error| io_fault(WRITE, &path, &error))?))
            }
        };
        Ok(Self { input: Some(input), path, made, is_checked: image.is_none(), image })
    }

    fn take(&mut self, piece: &Bytes) -> Result<(), ApiError> {
        let taken = match self.input() {
            Input::Tar(sink) => sink.write_all(piece),
            Input::Zstd(decoder) => decoder.write_all(piece),
        };
        taken.map_err(|error| self.told(&error))?;
        self.check_image(false)
    }

    /// Refuses a layer of another image, as soon as that is known.
    fn check_image(&mut self, is_end: bool) -> Result<(), ApiError> {
        if self.is_checked {
            return Ok(());
        }
        let unpacker = &self.sink().unpacker;
        let is_to_come = !is_end && unpacker.entries() == 0;
        let about = unpacker.about().map(serde_json::from_slice::<CheckpointExport>);
        let image = self.image.as_deref().unwrap_or_default();
        match about {
            Some(Ok(about)) if about.image_digest == image => self.is_checked = true,
            Some(Ok(about)) => return Err(other_image(&about, image)),
            None if is_to_come => {}
            _ => return Err(no_export()),
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Unpacked, ApiError> {
        if let Input::Zstd(decoder) = self.input() {
            let finished = decoder.do_finish();
            finished.map_err(|error| self.told(&error))?;
        }
        self.check_image(true)?;
        let finished = self.sink().unpacker.finish();
        let mut done = finished.map_err(|error| self.refuse(error))?;
        if self.image.is_some() {
            // What its maker left out is missing here, too.
            let told = self.sink().unpacker.comment();
            let told = told.and_then(|told| serde_json::from_slice(told).ok());
            done.left_out.add(told.unwrap_or_default());
        }
        self.made.clear();
        Ok(done)
    }

    fn input(&mut self) -> &mut Input {
        self.input.as_mut().expect("it is taken only when it is dropped")
    }

    fn sink(&mut self) -> &mut Sink {
        self.input().sink()
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
        let made = std::mem::take(&mut self.made);
        discard(&done, &made);
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

/// Opens the directory to unpack into, and makes it and its parents as far as they are missing. Tells
/// which it made, outermost first.
fn directory(path: &FilePath) -> Result<(OwnedFd, Vec<FilePath>), ApiError> {
    let flags = file::O_RDONLY | file::O_DIRECTORY;
    let open = || {
        path::open(file::cwd(), path.as_c_str(), flags).map_err(|error| fault(WRITE, path, error))
    };
    match open() {
        Err(error) if error.code == ErrorCode::FileNotFound => {
            let mut made = Vec::new();
            let opened = directories_telling(path, |new| made.push(new))
                .map_err(|error| fault("make the directory", path, error))
                .and_then(|_path_only| open());
            match opened {
                Ok(directory) => Ok((directory, made)),
                Err(error) => {
                    remove_made(&made);
                    Err(error)
                }
            }
        }
        opened => Ok((opened?, Vec::new())),
    }
}

/// Removes the directories that were made for what came to nothing.
fn discard(done: &Unpacked, made: &[FilePath]) {
    if done.entries() == 0 {
        remove_made(made);
    }
}

fn other_image(about: &CheckpointExport, image: &str) -> ApiError {
    let text = format!(
        "the export was made over the image {} with the digest {}, and this sandbox began from one \
         with the digest {image}: import it into a sandbox of that image",
        about.image, about.image_digest
    );
    ApiError::new(ErrorCode::ImageMismatch, text)
        .with("needs", about.image_digest.as_str())
        .with("has", image)
}

fn no_export() -> ApiError {
    let text = "the archive is not the export of a checkpoint: it does not begin with what that says \
                about itself";
    ApiError::new(ErrorCode::InvalidArchive, text)
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
        ArchiveError::LayerTooLarge { ref path } => {
            let shown = String::from_utf8_lossy(path).into_owned();
            ApiError::new(ErrorCode::TreeTooLarge, error.to_string())
                .with("path", shown)
                .with("limitBytes", EXPORT_BYTES)
                .with("limitEntries", ARCHIVE_ENTRIES)
        }
        error => ApiError::new(ErrorCode::InternalError, error.to_string()),
    }
}
