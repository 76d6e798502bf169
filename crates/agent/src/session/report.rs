//! What a shell reports when it has sourced a file: `TRAPS STATUS FLAGS ID`, ended by a NUL byte.
//!
//! Before it may come records `=NAME=VALUE`, each ended by a NUL byte too. The descriptor is the
//! shell's own, but code of the session can write to it, so nothing here is believed to be well
//! formed.

use std::{
    future::poll_fn,
    mem::MaybeUninit,
    os::fd::AsFd,
    pin::Pin,
    task::{Poll, ready},
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    net::unix::pipe,
};

use super::Broken;

/// Bytes of one report at most: twice what the kernel starts a program with (execve(2)).
pub(super) const REPORT_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of traps that are given back to later commands.
const TRAPS_BYTES: usize = 64 * 1024;

/// Bytes read at once: a report is short.
const CHUNK_BYTES: usize = 4096;

/// How a sourced file ended, and what it left behind in the shell that must not act in between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Of the line that named the file; none if the command destroyed it.
    pub(super) id: Option<u64>,
    /// `$?`.
    pub(super) status: i32,
    /// Of `$-`, the options that the loop takes away.
    pub(super) flags: String,
    /// Commands that set the traps that the loop takes away.
    pub(super) traps: Vec<u8>,
    /// Exported variables, if they were asked for.
    pub(super) variables: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Report {
    /// True when something acts on commands, or shows, that the loop has taken away.
    pub(super) fn has_surprises(&self) -> bool {
        !self.flags.is_empty() || !self.traps.is_empty()
    }
}

/// The reading end of a shell's reports.
#[derive(Debug)]
pub(super) struct Reports {
    pipe: pipe::Receiver,
    buffer: Vec<u8>,
}

impl Reports {
    pub(super) fn new(pipe: pipe::Receiver) -> Self {
        Self { pipe, buffer: Vec::new() }
    }

    /// The next report.
    ///
    /// Cancel safety: what was read of it stays in the buffer.
    pub(super) async fn next(&mut self) -> Result<Report, Broken> {
        loop {
            if let Some(report) = self.take()? {
                return Ok(report);
            }
            self.fill().await?;
        }
    }

    /// The next report, if it is there already.
    pub(super) async fn now(&mut self) -> Result<Option<Report>, Broken> {
        // What is there is told of, so this does not wait.
        while sys::pipe::pending(self.pipe.as_fd()).is_ok_and(|bytes| bytes > 0) {
            self.fill().await?;
        }
        self.take()
    }

    /// Waits for more of it.
    async fn fill(&mut self) -> Result<(), Broken> {
        let Self { pipe, buffer } = self;
        poll_fn(|context| {
            let mut space = [MaybeUninit::uninit(); CHUNK_BYTES];
            let mut chunk = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut *pipe).poll_read(context, &mut chunk))
                .map_err(|_closed| Broken)?;
            let is_good = !chunk.filled().is_empty() && buffer.len() < REPORT_BYTES;
            buffer.extend_from_slice(chunk.filled());
            Poll::Ready(if is_good { Ok(()) } else { Err(Broken) })
        })
        .await
    }

    fn take(&mut self) -> Result<Option<Report>, Broken> {
        let mut variables = Vec::new();
        let mut start = 0;
        while let Some(length) = self.buffer.iter().skip(start).position(|byte| *byte == 0) {
            let record = self.buffer.get(start..start + length).unwrap_or_default();
            start += length + 1;
            match record.split_first() {
                Some((b'=', variable)) => variables.extend(split(variable, b'=')),
                _ => {
                    let report = parse(record).ok_or(Broken)?;
                    self.buffer.drain(..start);
                    return Ok(Some(Report { variables, ..report }));
                }
            }
        }
        Ok(None)
    }
}

fn split(bytes: &[u8], at: u8) -> Option<(Vec<u8>, Vec<u8>)> {
    let at = bytes.iter().position(|byte| *byte == at)?;
    Some((bytes.get(..at)?.to_vec(), bytes.get(at + 1..)?.to_vec()))
}

fn parse(record: &[u8]) -> Option<Report> {
    let end = record.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let (traps, line) = record.split_at(end);
    let mut fields = std::str::from_utf8(line).ok()?.split(' ');
    let (status, flags, id) = (fields.next()?, fields.next()?, fields.next()?);
    let flags = flags.chars().filter(|flag| matches!(flag, 'e' | 'v' | 'x')).collect();
    // POSIX mode says that there is no trap.
    let mut lines = traps.split_inclusive(|byte| *byte == b'\n');
    let has_traps = lines.any(|line| !line.starts_with(b"trap -- - "));
    let traps = if has_traps && traps.len() <= TRAPS_BYTES { traps.to_vec() } else { Vec::new() };
    let status = status.parse::<u16>().ok()?.into();
    let id = id.parse().ok();
    Some(Report { id, status, flags, traps, variables: Vec::new() })
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use super::*;

    fn report(status: i32, flags: &str, traps: &[u8]) -> Option<Report> {
        let (flags, traps) = (flags.to_owned(), traps.to_vec());
        Some(Report { id: Some(7), status, flags, traps, variables: vec![] })
    }

    #[test]
    fn a_report_has_a_status_options_and_traps() {
        assert_eq!(parse(b"0 hiBHs 7"), report(0, "", b""));
        assert_eq!(parse(b"255 ehixBHs 7"), report(255, "ex", b""));
        let traps = b"trap -- 'echo\n1 e' DEBUG\n";
        assert_eq!(parse(&[&traps[..], b"7 himvBHs 7"].concat()), report(7, "v", traps));
        let none = b"trap -- - DEBUG\ntrap -- - RETURN\n0 hiBHs 7";
        assert_eq!(parse(none), report(0, "", b""));
        assert_eq!(parse(b"300 hiBHs ").map(|report| report.id), Some(None));
        for bad in
            [&b""[..], b"0", b"0 h", b"x y 7", b"65536 h 7", b"-1 h 7", b"\xff 0 7", b"0 h 7\n"]
        {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    fn pipe() -> (io::PipeWriter, Reports) {
        let (reader, writer) = io::pipe().unwrap();
        (writer, Reports::new(pipe::Receiver::from_owned_fd(reader.into()).unwrap()))
    }

    #[tokio::test]
    async fn reports_come_whole_however_they_are_cut() {
        let (mut writer, mut reports) = pipe();
        let (first, second) = (&b"=A=x=y\n\0=B=\0\x30 h 7\0"[..], &b"3 e 7\0"[..]);
        for byte in first {
            assert_eq!(reports.now().await.unwrap(), None);
            writer.write_all(&[*byte]).unwrap();
        }
        writer.write_all(second).unwrap();
        let variable =
            |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        let first = reports.next().await.unwrap();
        assert_eq!(first.variables, [variable("A", "x=y\n"), variable("B", "")]);
        assert_eq!(reports.now().await.unwrap(), report(3, "e", b""));
        assert_eq!(reports.now().await.unwrap(), None);
    }

    #[tokio::test]
    async fn nonsense_is_no_report() {
        let (mut writer, mut reports) = pipe();
        writer.write_all(b"hello\0").unwrap();
        assert!(reports.next().await.is_err());
    }

    #[test]
    fn hostile_records_are_refused_or_bounded() {
        let examples: [&[u8]; 3] =
            [b"0 hB 12", b"trap -- 'x\ny' EXIT\ntrap -- '' INT\n255 ehvx 3", b"65535  "];
        hostile::bytes(&examples, |record| {
            if let Some(report) = parse(record) {
                assert!(report.traps.len() <= TRAPS_BYTES && report.flags.len() <= record.len());
            }
        });
    }
}
