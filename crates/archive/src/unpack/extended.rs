//! What is said about an entry before its header.

use crate::{Fault, header::Type, pax::Records};

/// Extended headers before an entry, and the global ones.
#[derive(Debug, Default)]
pub(super) struct Extended {
    next: Next,
    global: Records,
}

/// Those before the next entry.
#[derive(Debug, Default)]
struct Next {
    records: Option<Records>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    bytes: usize,
}

impl Extended {
    /// Bytes that are kept for the next entry.
    pub(super) fn bytes(&self) -> usize {
        self.next.bytes
    }

    /// What the global ones say about the archive.
    pub(super) fn about(&self) -> Option<&[u8]> {
        self.global.about.as_deref()
    }

    /// True when nothing was said about a next entry.
    pub(super) fn is_empty(&self) -> bool {
        let Next { records, long_name, long_link, .. } = &self.next;
        records.is_none() && long_name.is_none() && long_link.is_none()
    }

    /// Keeps what a header says. Two of one kind before one entry, or of two kinds that say the same,
    /// could be read in two ways.
    pub(super) fn add(&mut self, kind: Type, text: &[u8]) -> Result<(), Fault> {
        let next = &mut self.next;
        match kind {
            Type::GlobalRecords => {
                self.global.read(text)?;
                let is_misplaced = self.global.names_one_entry();
                return if is_misplaced { Err(Fault::Extended) } else { Ok(()) };
            }
            Type::Records if next.records.is_none() => {
                let mut records = Records::default();
                records.read(text)?;
                next.records = Some(records);
            }
            Type::LongName if next.long_name.is_none() => next.long_name = Some(c_text(text)),
            Type::LongLink if next.long_link.is_none() => next.long_link = Some(c_text(text)),
            _ => return Err(Fault::Extended),
        }
        next.bytes += text.len();
        let records = next.records.as_ref();
        let is_double =
            |long: &Option<Vec<u8>>, short: Option<&Vec<u8>>| long.is_some() && short.is_some();
        if is_double(&next.long_name, records.and_then(|records| records.path.as_ref()))
            || is_double(&next.long_link, records.and_then(|records| records.link.as_ref()))
        {
            return Err(Fault::Extended);
        }
        Ok(())
    }

    /// All that was said about the entry whose header has come.
    pub(super) fn take(&mut self) -> Records {
        let Next { records, long_name, long_link, .. } = std::mem::take(&mut self.next);
        let records = records.unwrap_or_default().over(&self.global);
        Records { path: long_name.or(records.path), link: long_link.or(records.link), ..records }
    }
}

/// A text up to the zero byte that ends it.
fn c_text(text: &[u8]) -> Vec<u8> {
    text.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}
