//! What an entry of an archive becomes.

use std::{
    ffi::{CStr, CString},
    os::fd::AsFd,
};

use api::archive::LeftOutReason;
use sys::{SysError, errno, file};

use super::{
    Into, State, Unpacker,
    file::{NewFile, make_temporary},
    layer,
    name::Name,
    tree::{self, Attributes, FILLING_BITS, MODE_BITS},
};
use crate::{
    ArchiveError, Fault,
    header::{self, Header, Type},
    pax::Records,
};

/// Bytes of a file that is made only when all of its content is there.
const SMALL_BYTES: u64 = 64 * 1024;

impl Unpacker {
    /// Does what a header says; for a file with content, begins it.
    pub(super) fn entry(&mut self, mut header: Header) -> Result<(), ArchiveError> {
        let mut records = self.extended.take();
        let path = records.path.take().unwrap_or_else(|| std::mem::take(&mut header.path));
        self.path.clone_from(&path);
        let size = records.size.unwrap_or(header.size);
        let kind = match header.kind {
            // As it was written before directories had a type of their own.
            Type::File if path.ends_with(b"/") => Type::Directory,
            Type::ListedDirectory => Type::Directory,
            kind => kind,
        };
        let has_content =
            kind == Type::File || matches!(header.kind, Type::ListedDirectory | Type::Label);
        if size != 0 && !has_content {
            return Err(self.invalid(Fault::Content));
        }
        if kind == Type::Label {
            return self.begin_content(Into::Nothing, size);
        }
        let name = Name::new(&path, self.options.strip_components);
        let name = name.map_err(|fault| self.invalid(fault))?;
        let attributes = self.attributes(&records, &header)?;
        let link = records.link.take().unwrap_or(header.link);
        let mut into = Into::Nothing;
        if !name.is_stripped() {
            self.path = name.path();
            self.specials.forget(&self.path);
            if self.options.layer {
                self.begin_in_layer(&name, (kind, size), &records.attributes)?;
            }
            match kind {
                Type::File if self.whiteout(&name)? => {}
                Type::File => into = self.begin_file(&name, attributes, (size, &records))?,
                Type::Directory => self.directory(&name, attributes, records)?,
                Type::Symlink => self.symlink(&name, &link, attributes)?,
                Type::HardLink => self.hard_link(&name, &link)?,
                Type::Pipe if self.options.layer => self.pipe(&name, attributes)?,
                _ => self.leave_out(),
            }
        }
        self.begin_content(into, size)
    }

    /// Goes on with the content of the entry, if it has any.
    fn begin_content(&mut self, into: Into, size: u64) -> Result<(), ArchiveError> {
        self.state = State::Content { into, left: size, padding: header::padding(size) };
        if size == 0 { self.end_content() } else { Ok(()) }
    }

    /// The content of the entry is whole.
    pub(super) fn end_content(&mut self) -> Result<(), ArchiveError> {
        let State::Content { into, padding, .. } =
            std::mem::replace(&mut self.state, State::Broken)
        else {
            return Ok(());
        };
        match into {
            Into::Nothing => {}
            Into::Small(name, new) => {
                let name = (name, self.path.clone());
                self.crew.make(self.tree.dir(), name, new, &self.buffer)?;
                self.buffer.clear();
            }
            Into::File(file) => {
                let bytes = file.bytes();
                let kept = file.keep(self.tree.dir());
                kept.map_err(|source| self.refused("write", source))?;
                self.done.files += 1;
                self.done.bytes += bytes;
            }
        }
        self.pass(padding);
        Ok(())
    }

    fn attributes(&self, records: &Records, header: &Header) -> Result<Attributes, ArchiveError> {
        let most = if self.options.layer { layer::MOST_ID } else { u32::MAX };
        let id = |id: u64, name| {
            let id = u32::try_from(id).ok().filter(|id| *id <= most);
            id.ok_or_else(|| self.invalid(Fault::Number(name)))
        };
        let owner = if self.options.keep_owner {
            let uid = id(records.uid.unwrap_or(header.uid), "uid")?;
            Some((uid, id(records.gid.unwrap_or(header.gid), "gid")?))
        } else {
            None
        };
        let modified = records.modified.unwrap_or(header.modified);
        if self.options.keep_times && tree::time(modified).is_none() {
            return Err(self.invalid(Fault::Number("mtime")));
        }
        let modified = self.options.keep_times.then_some(modified);
        let bits = if self.options.layer { layer::MODE_BITS } else { MODE_BITS };
        Ok(Attributes { mode: header.mode & bits, owner, modified })
    }

    fn begin_file(
        &mut self,
        name: &Name,
        new: Attributes,
        (size, records): (u64, &Records),
    ) -> Result<Into, ArchiveError> {
        let (name, above) = self.split(name)?;
        self.tree.enter(above).map_err(|source| self.refused("write", source))?;
        let is_layer = self.options.layer;
        let has_attributes = !records.attributes.is_empty();
        let is_small = size <= SMALL_BYTES && !(is_layer && has_attributes);
        if !is_small || self.tree.has_met_existing() {
            self.crew.rest()?;
        }
        if is_small {
            return Ok(Into::Small(name.to_owned(), new));
        }
        let begun = NewFile::create(self.tree.dir().fd(), name, new);
        let mut file = begun.map_err(|source| self.refused("write", source))?;
        if is_layer && let Err(source) = file.as_in_layer(&records.attributes) {
            file.remove(self.tree.dir().fd());
            return Err(self.refused("set the attributes of", source));
        }
        Ok(Into::File(file))
    }

    fn directory(
        &mut self,
        name: &Name,
        new: Attributes,
        records: Records,
    ) -> Result<(), ArchiveError> {
        if name.components().is_empty() {
            self.comment = records.comment;
            self.top = (self.options.layer || self.options.new_top).then_some(new);
            if self.options.new_top {
                // What is private is so from the first file on.
                let filling =
                    Attributes { mode: new.mode | FILLING_BITS, owner: None, modified: None };
                let set = self.tree.settle(Some(filling));
                set.map_err(|source| self.refused("set the mode of", source))?;
            }
            return self.set_attributes(&records.attributes);
        }
        let made = self.tree.make(name.components(), new);
        made.map_err(|source| self.refused("make the directory", source))?;
        if self.tree.has_met_existing() {
            // What is still made in it would change its time.
            self.crew.rest()?;
        }
        self.set_attributes(&records.attributes)?;
        self.done.directories += 1;
        Ok(())
    }

    fn symlink(&mut self, name: &Name, link: &[u8], new: Attributes) -> Result<(), ArchiveError> {
        let (name, above) = self.split(name)?;
        let link = CString::new(link).map_err(|_zero| self.invalid(Fault::Name))?;
        self.crew.rest()?;
        let made = self.tree.enter(above).and_then(|()| {
            let dir = self.tree.dir().fd();
            self.put(name, |name| {
                file::make_link(&link, dir, name)?;
                if let Some(owner) = new.owner {
                    file::set_link_owner(dir, name, owner)?;
                }
                new.modified.map_or(Ok(()), |time| file::set_link_modified(dir, name, time))
            })
        });
        made.map_err(|source| self.refused("make the link", source))?;
        self.done.symlinks += 1;
        Ok(())
    }

    fn hard_link(&mut self, name: &Name, link: &[u8]) -> Result<(), ArchiveError> {
        let (name, above) = self.split(name)?;
        let target = Name::new(link, self.options.strip_components).map_err(|fault| {
            self.invalid(if fault == Fault::Outside { Fault::LinkOutside } else { fault })
        })?;
        if self.specials.contains(&target.path()) {
            self.leave_out();
            return Ok(());
        }
        let Some((target, target_above)) = target.split() else {
            return Err(self.invalid(Fault::LinkOutside));
        };
        self.crew.rest()?;
        let made = self.tree.find(target_above).and_then(|from| {
            // The name itself gets a further one, and nothing is followed: of a link that is a link.
            let kind = file::stat(from.as_fd(), target)?.mode & file::S_IFMT;
            if !matches!(kind, file::S_IFREG | file::S_IFLNK) {
                return Err(SysError { call: "linkat", errno: errno::EPERM });
            }
            self.tree.enter(above)?;
            let dir = self.tree.dir().fd();
            self.put(name, |name| file::hard_link(from.as_fd(), target, dir, name))
        });
        made.map_err(|source| self.refused("make the further name", source))?;
        self.done.hard_links += 1;
        Ok(())
    }

    /// Leaves out what is special, or a further name of that.
    fn leave_out(&mut self) {
        self.done.left_out.push(&self.path, LeftOutReason::Special);
        self.specials.remember(&self.path);
    }

    /// Makes something under `name`, in place of the file or link that is there.
    pub(super) fn put(
        &self,
        name: &CStr,
        make: impl Fn(&CStr) -> Result<(), SysError>,
    ) -> Result<(), SysError> {
        match make(name) {
            Err(SysError { errno: errno::EEXIST, .. }) => {}
            made => return made,
        }
        let dir = self.tree.dir().fd();
        let (temporary, ()) = make_temporary(&make)?;
        let renamed = file::rename((dir, &temporary), (dir, name), false);
        // It is still there when the rename failed, or when both are names of one file, rename(2).
        file::remove(dir, &temporary).unwrap_or(());
        renamed
    }

    pub(super) fn split<'a>(
        &self,
        name: &'a Name,
    ) -> Result<(&'a CStr, &'a [CString]), ArchiveError> {
        let (name, above) = name.split().ok_or_else(|| self.invalid(Fault::Name))?;
        Ok((name, above))
    }
}
