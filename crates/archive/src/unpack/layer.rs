//! What a layer of an image asks for beyond an archive: names go, files take the place of directories,
//! attributes and pipes come.

use std::{
    ffi::{CStr, CString, OsStr},
    fs::{self, Permissions},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::{ffi::OsStrExt, fs::PermissionsExt},
    },
    path::PathBuf,
};

use api::archive::LeftOutReason;
use sys::{
    SysError, errno,
    file::{self, Names},
};

use super::{
    Unpacker,
    file::system,
    name::Name,
    tree::{Attributes, open_directory},
};
use crate::{
    ArchiveError, Fault,
    header::{Said, Type},
};

/// Permission bits that are taken from a layer: all.
pub(super) const MODE_BITS: u32 = 0o7777;

/// The last id that there is in a sandbox.
pub(super) const MOST_ID: u32 = 0xffff;

/// What the name of a whiteout begins with, and the whole name of an opaque directory's mark.
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

impl Unpacker {
    /// Removes what stands in the way of an entry: elsewhere a directory is never replaced.
    pub(super) fn begin_in_layer(
        &mut self,
        name: &Name,
        (kind, size): (Type, u64),
        said: &[Said],
    ) -> Result<(), ArchiveError> {
        let room = self.room.checked_sub(size);
        self.room = room.ok_or_else(|| self.invalid(Fault::TooLarge))?;
        if said.iter().any(|(name, _)| !is_of_users(name)) {
            self.done.left_out.push(&self.path, LeftOutReason::Attributes);
        }
        if kind == Type::Directory {
            return Ok(());
        }
        let Some((last, above)) = name.split() else { return Ok(()) };
        let Ok(within) = self.tree.find(above) else { return Ok(()) };
        let within = within.as_fd();
        let is_directory = |stat: file::Stat| stat.mode & file::S_IFMT == file::S_IFDIR;
        if !last.to_bytes().starts_with(WHITEOUT)
            && file::stat(within, last).is_ok_and(is_directory)
        {
            self.crew.rest()?;
            remove(within, last).map_err(|source| self.refused("replace", source))?;
        }
        Ok(())
    }

    /// Carries out a whiteout; false for any other file.
    pub(super) fn whiteout(&mut self, name: &Name) -> Result<bool, ArchiveError> {
        let last = name.split().map(|(last, _)| last.to_bytes()).unwrap_or_default();
        let Some(gone) = last.strip_prefix(WHITEOUT).filter(|_| self.options.layer) else {
            return Ok(false);
        };
        let (_, above) = self.split(name)?;
        self.crew.rest()?;
        let gone = match gone {
            _ if last == OPAQUE => None,
            b"" | b"." | b".." => return Err(self.invalid(Fault::Name)),
            gone => Some(CString::new(gone).map_err(|_zero| self.invalid(Fault::Name))?),
        };
        let done = self.tree.enter(above).and_then(|()| {
            let dir = self.tree.dir().fd();
            match gone {
                Some(gone) => remove(dir, &gone),
                None => remove_all(dir),
            }
        });
        done.map_err(|source| self.refused("delete", source))?;
        Ok(true)
    }

    pub(super) fn pipe(&mut self, name: &Name, new: Attributes) -> Result<(), ArchiveError> {
        let (name, above) = self.split(name)?;
        self.crew.rest()?;
        let made = self.tree.enter(above).and_then(|()| {
            let dir = self.tree.dir().fd();
            self.put(name, |name| {
                file::make_pipe(dir, name, new.mode)?;
                if let Some(owner) = new.owner {
                    file::set_link_owner(dir, name, owner)?;
                }
                fs::set_permissions(path(dir, name), Permissions::from_mode(new.mode))
                    .map_err(|error| system("chmod", &error))?;
                new.modified.map_or(Ok(()), |time| file::set_link_modified(dir, name, time))
            })
        });
        made.map_err(|source| self.refused("make the pipe", source))?;
        self.done.files += 1;
        Ok(())
    }

    /// Gives the directory it is in the attributes of a layer.
    pub(super) fn set_attributes(&mut self, said: &[Said]) -> Result<(), ArchiveError> {
        if !self.options.layer {
            return Ok(());
        }
        let set = set_attributes(self.tree.dir().fd(), said);
        set.map_err(|source| self.refused("set the attributes of", source))
    }
}

fn is_of_users(name: &[u8]) -> bool {
    name.starts_with(b"user.")
}

/// Gives an open file those of these attributes that are users' own.
pub(super) fn set_attributes(file: BorrowedFd<'_>, said: &[Said]) -> Result<(), SysError> {
    for (name, value) in said.iter().filter(|(name, _)| is_of_users(name)) {
        file::set_attribute_of(file, &file::c_name(&**name)?, value)?;
    }
    Ok(())
}

/// Makes a directory in the place of whatever is there, unless that is one.
pub(super) fn make_directory(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<(), SysError> {
    if file::stat(dir, name)?.mode & file::S_IFMT == file::S_IFDIR {
        return Ok(());
    }
    file::remove(dir, name)?;
    file::make_dir(dir, name, mode)
}

/// Removes `name`, whatever it is and whether it is there or not. No link is followed.
fn remove(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), SysError> {
    match file::remove(dir, name) {
        Err(SysError { errno: errno::ENOENT, .. }) => Ok(()),
        Err(SysError { errno: errno::EISDIR, .. }) => {
            open_directory(dir, name, true)?;
            fs::remove_dir_all(path(dir, name)).map_err(|error| system("rmdir", &error))
        }
        done => done,
    }
}

fn remove_all(dir: BorrowedFd<'_>) -> Result<(), SysError> {
    let own = dir.try_clone_to_owned().map_err(|error| system("dup", &error))?;
    let mut names = Names::new(own);
    names.seek(0)?;
    let mut all = Vec::new();
    while let Some(found) = names.read()? {
        all.push(found.name.to_owned());
    }
    all.iter().try_for_each(|name| remove(dir, name))
}

/// A path to `name` in an open directory.
fn path(dir: BorrowedFd<'_>, name: &CStr) -> PathBuf {
    let own = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    own.join(OsStr::from_bytes(name.to_bytes()))
}
