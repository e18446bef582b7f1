//! Unpacks a layer's tar stream into a directory.
//!
//! Every path is resolved by the kernel inside the target (`openat2` with `RESOLVE_IN_ROOT`), so neither `..` nor a
//! symlink planted by an earlier entry leads out of it. Whiteouts (OCI image-spec, layer.md) become what overlayfs
//! understands: a 0/0 character device, and `trusted.overlay.opaque=y` on a directory.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self as sys, AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use tar::EntryType;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
pub const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// What a `.wh.` entry means to the caller.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Whiteouts {
    /// A layer: convert for overlayfs.
    Overlay,
    /// An ordinary archive: just a file of that name.
    Literal,
}

#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("archive entry {0:?} has a path that leads out of the archive")]
    BadPath(PathBuf),
    #[error("archive entry {path:?}: hard link target {target:?} is not in the same archive")]
    HardLink { path: PathBuf, target: PathBuf },
    #[error("archive entry {path:?}: {source}")]
    Entry { path: PathBuf, source: io::Error },
    #[error("reading archive: {0}")]
    Read(#[source] io::Error),
    #[error("{path:?}: {source}")]
    Target { path: PathBuf, source: io::Error },
}

/// Unpacks the (uncompressed) tar stream under `target`, which must exist. Ownership, modes, times, devices, hard links
/// and the extended attributes a layer may carry (`user.*`, `security.capability`) are kept.
pub fn unpack(stream: impl Read, target: &Path, whiteouts: Whiteouts) -> Result<(), UnpackError> {
    let root = sys::openat(CWD, target, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| UnpackError::Target { path: target.to_owned(), source: e.into() })?;
    let mut unpacker = Unpacker { root, whiteouts, parent: None, directory_times: Vec::new() };
    let mut archive = tar::Archive::new(stream);
    for entry in archive.entries().map_err(UnpackError::Read)? {
        let mut entry = entry.map_err(UnpackError::Read)?;
        unpacker.entry(&mut entry)?;
    }
    unpacker.finish()
}

struct Unpacker {
    root: OwnedFd,
    whiteouts: Whiteouts,
    /// The directory the last entry was in: layers are sorted, so it is nearly always the next one's too.
    parent: Option<(PathBuf, OwnedFd)>,
    /// Set last, as creating entries changes them.
    directory_times: Vec<(PathBuf, i64)>,
}

struct Meta {
    mode: Mode,
    uid: u32,
    gid: u32,
    mtime: i64,
    xattrs: Vec<(OsString, Vec<u8>)>,
}

impl Unpacker {
    fn entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<(), UnpackError> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader | EntryType::XHeader) {
            return Ok(());
        }
        let raw = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        let path = clean(&raw)?;
        let meta = Meta::of(entry).map_err(|source| UnpackError::Entry { path: path.clone(), source })?;
        let result = self.place(entry, kind, &path, &meta);
        result.map_err(|e| match e {
            Failure::Io(source) => UnpackError::Entry { path, source },
            Failure::Unpack(e) => e,
        })
    }

    fn place<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, kind: EntryType, path: &Path, meta: &Meta) -> Result<(), Failure> {
        let Some(name) = path.file_name() else {
            // The archive's own root, `./`.
            let root = self.root.as_fd().try_clone_to_owned()?;
            apply(&root, meta, true)?;
            self.directory_times.push((PathBuf::from("."), meta.mtime));
            return Ok(());
        };
        let name = name.to_owned();
        let parent = self.parent_of(path)?;
        if self.whiteouts == Whiteouts::Overlay && name.as_bytes().starts_with(WHITEOUT) {
            return self.whiteout(&parent, &name).map_err(Failure::Io);
        }
        match kind {
            EntryType::Directory => {
                self.directory(&parent, &name, meta)?;
                self.directory_times.push((path.to_owned(), meta.mtime));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.clear(&parent, &name)?;
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = sys::openat(&parent, &name, flags, Mode::RUSR | Mode::WUSR)?;
                let mut file = File::from(fd);
                io::copy(entry, &mut file)?;
                let fd = OwnedFd::from(file);
                apply(&fd, meta, true)?;
                sys::futimens(&fd, &times(meta.mtime))?;
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().ok_or_else(|| io::Error::other("symlink without a target"))?;
                self.clear(&parent, &name)?;
                sys::symlinkat(OsStr::from_bytes(&target), &parent, &name)?;
                own(&parent, &name, meta)?;
                sys::utimensat(&parent, &name, &times(meta.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            EntryType::Link => {
                let raw = entry.link_name_bytes().ok_or_else(|| io::Error::other("hard link without a target"))?;
                let target = clean(Path::new(OsStr::from_bytes(&raw))).map_err(Failure::Unpack)?;
                let missing = || Failure::Unpack(UnpackError::HardLink { path: path.to_owned(), target: target.clone() });
                let target_name = target.file_name().ok_or_else(missing)?;
                let target_parent = self.open_directory(target.parent().unwrap_or(Path::new(""))).map_err(|_| missing())?;
                if target == path {
                    return Ok(());
                }
                self.clear(&parent, &name)?;
                match sys::linkat(&target_parent, target_name, &parent, &name, AtFlags::empty()) {
                    Err(Errno::NOENT) => return Err(missing()),
                    other => other?,
                }
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let file_type = match kind {
                    EntryType::Char => FileType::CharacterDevice,
                    EntryType::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let header = entry.header();
                // Left blank by some writers for a FIFO.
                let (major, minor) = match file_type {
                    FileType::Fifo => (0, 0),
                    _ => (header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0)),
                };
                self.clear(&parent, &name)?;
                sys::mknodat(&parent, &name, file_type, meta.mode, sys::makedev(major, minor))?;
                own(&parent, &name, meta)?;
                sys::chmodat(&parent, &name, meta.mode, AtFlags::empty())?;
            }
            other => return Err(Failure::Io(io::Error::other(format!("unsupported entry type {other:?}")))),
        }
        Ok(())
    }

    fn directory(&mut self, parent: &OwnedFd, name: &OsStr, meta: &Meta) -> Result<(), Failure> {
        let mut opaque = false;
        match sys::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
            Ok(stat) => {
                // A whiteout of the lower directory came first: what is new here must not merge with it.
                opaque = is_whiteout(&stat) && self.whiteouts == Whiteouts::Overlay;
                self.clear(parent, name)?;
                sys::mkdirat(parent, name, Mode::RWXU)?;
            }
            Err(Errno::NOENT) => sys::mkdirat(parent, name, Mode::RWXU)?,
            Err(e) => return Err(e.into()),
        }
        let fd = open_child_directory(parent, name)?;
        apply(&fd, meta, true)?;
        if opaque {
            set_opaque(&fd)?;
        }
        Ok(())
    }

    fn whiteout(&mut self, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        if name.as_bytes() == OPAQUE {
            return set_opaque(parent);
        }
        let name = OsStr::from_bytes(&name.as_bytes()[WHITEOUT.len()..]);
        if name.as_bytes().starts_with(WHITEOUT) {
            return Ok(()); // AUFS bookkeeping (.wh..wh.plnk and friends)
        }
        if matches!(name.as_bytes(), b"" | b"." | b"..") {
            return Err(io::Error::other("whiteout of no name"));
        }
        match sys::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            // The layer itself holds the name: the whiteout speaks of the layers below.
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => set_opaque(&open_child_directory(parent, name)?),
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => Ok(sys::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), sys::makedev(0, 0))?),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes what an earlier entry put at this name.
    fn clear(&mut self, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        match sys::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {
                return Ok(());
            }
            Err(Errno::ISDIR) => {}
            Err(e) => return Err(e.into()),
        }
        self.parent = None;
        remove_tree(parent, name)
    }

    fn parent_of(&mut self, path: &Path) -> Result<OwnedFd, Failure> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if let Some((known, fd)) = &self.parent
            && known == parent
        {
            return Ok(fd.try_clone()?);
        }
        let fd = match self.open_directory(parent) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_directories(parent)?,
            Err(e) => return Err(e.into()),
        };
        self.parent = Some((parent.to_owned(), fd.try_clone()?));
        Ok(fd)
    }

    /// Makes directories the archive did not list itself.
    fn make_directories(&mut self, path: &Path) -> Result<OwnedFd, Failure> {
        let mut so_far = PathBuf::new();
        let mut current = self.root.try_clone()?;
        for component in path.components() {
            so_far.push(component);
            current = match self.open_directory(&so_far) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    let implied = Meta { mode: Mode::from_raw_mode(0o755), uid: 0, gid: 0, mtime: 0, xattrs: Vec::new() };
                    self.directory(&current, component.as_os_str(), &implied)?;
                    open_child_directory(&current, component.as_os_str())?
                }
                Err(e) => return Err(e.into()),
            };
        }
        Ok(current)
    }

    fn open_directory(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        sys::openat2(
            &self.root,
            path,
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    }

    fn finish(self) -> Result<(), UnpackError> {
        for (path, mtime) in self.directory_times.iter().rev() {
            // The directory may have been replaced by a later entry: then there is nothing to set.
            if let Ok(fd) = self.open_directory(path) {
                sys::futimens(&fd, &times(*mtime)).map_err(|e| UnpackError::Entry { path: path.clone(), source: e.into() })?;
            }
        }
        Ok(())
    }
}

enum Failure {
    Io(io::Error),
    Unpack(UnpackError),
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Failure {
        Failure::Io(e)
    }
}

impl From<Errno> for Failure {
    fn from(e: Errno) -> Failure {
        Failure::Io(e.into())
    }
}

impl Meta {
    fn of<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Meta> {
        let mut xattrs = Vec::new();
        if let Some(extensions) = entry.pax_extensions()? {
            for extension in extensions {
                let extension = extension?;
                if let Some(name) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.")
                    && (name.starts_with(b"user.") || name == b"security.capability")
                {
                    xattrs.push((OsStr::from_bytes(name).to_owned(), extension.value_bytes().to_vec()));
                }
            }
        }
        let header = entry.header();
        let number = |raw: &[u8], value: io::Result<u64>| match value {
            // A blank field is zero, as GNU tar reads it.
            Err(_) if raw.iter().all(|b| matches!(b, 0 | b' ')) => Ok(0),
            Err(e) => Err(e),
            Ok(n) => u32::try_from(n).map_err(|_| io::Error::other(format!("owner {n} is out of range"))),
        };
        let raw = header.as_old();
        Ok(Meta {
            mode: Mode::from_raw_mode(number(&raw.mode, header.mode().map(u64::from))? & 0o7777),
            uid: number(&raw.uid, header.uid())?,
            gid: number(&raw.gid, header.gid())?,
            mtime: number(&raw.mtime, header.mtime())?.into(),
            xattrs,
        })
    }
}

/// Relative, of plain components only; empty for the root itself.
fn clean(path: &Path) -> Result<PathBuf, UnpackError> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(UnpackError::BadPath(path.to_owned())),
        }
    }
    Ok(clean)
}

/// Owner, mode and extended attributes of an open file or directory. Owner first: changing it clears set-user-ID bits and capabilities.
fn apply(fd: &OwnedFd, meta: &Meta, mode: bool) -> io::Result<()> {
    sys::fchown(fd, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))?;
    if mode {
        sys::fchmod(fd, meta.mode)?;
    }
    for (name, value) in &meta.xattrs {
        match sys::fsetxattr(fd, name.as_os_str(), value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn own(parent: &OwnedFd, name: &OsStr, meta: &Meta) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
    Ok(sys::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn open_child_directory(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    sys::openat(parent, name, flags, Mode::empty())
}

fn set_opaque(directory: &OwnedFd) -> io::Result<()> {
    Ok(sys::fsetxattr(directory, OPAQUE_XATTR, b"y", XattrFlags::empty())?)
}

fn is_whiteout(stat: &sys::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn remove_tree(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let directory = open_child_directory(parent, name)?;
    for entry in sys::Dir::read_from(&directory)? {
        let entry = entry?;
        let child = entry.file_name().to_bytes();
        if matches!(child, b"." | b"..") {
            continue;
        }
        let child = OsStr::from_bytes(child);
        match sys::unlinkat(&directory, child, AtFlags::empty()) {
            Err(Errno::ISDIR) => remove_tree(&directory, child)?,
            other => other?,
        }
    }
    Ok(sys::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

fn times(mtime: i64) -> Timestamps {
    let time = Timespec { tv_sec: mtime, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

    use super::*;

    fn add(builder: &mut tar::Builder<Vec<u8>>, kind: EntryType, path: &str, link: &str, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o640);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_000_000);
        header.set_size(content.len() as u64);
        // Straight into the header: the crate's own setters refuse the hostile paths tested here.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }

    fn run(entries: &[(EntryType, &str, &str, &[u8])], whiteouts: Whiteouts) -> (tempfile::TempDir, Result<(), UnpackError>) {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, path, link, content) in entries {
            add(&mut builder, *kind, path, link, content);
        }
        let bytes = builder.into_inner().unwrap();
        let outer = tempfile::tempdir().unwrap();
        let target = outer.path().join("layer");
        std::fs::create_dir(&target).unwrap();
        let result = unpack(bytes.as_slice(), &target, whiteouts);
        (outer, result)
    }

    #[test]
    fn keeps_metadata_and_links() {
        use EntryType::*;
        let (dir, result) = run(
            &[
                (Directory, "etc/", "", b""),
                (Regular, "etc/a", "", b"hello"),
                (Link, "etc/b", "etc/a", b""),
                (Symlink, "etc/c", "/etc/a", b""),
                (Fifo, "pipe", "", b""),
                (Regular, "deep/er/file", "", b"x"),
            ],
            Whiteouts::Overlay,
        );
        result.unwrap();
        let root = dir.path().join("layer");
        let a = std::fs::metadata(root.join("etc/a")).unwrap();
        assert_eq!((a.uid(), a.gid(), a.permissions().mode() & 0o7777, a.mtime()), (7, 8, 0o640, 1_000_000));
        assert_eq!(a.ino(), std::fs::metadata(root.join("etc/b")).unwrap().ino());
        assert_eq!(std::fs::read_link(root.join("etc/c")).unwrap(), Path::new("/etc/a"));
        assert!(std::fs::metadata(root.join("pipe")).unwrap().file_type().is_fifo());
        assert_eq!(std::fs::metadata(root.join("etc")).unwrap().mtime(), 1_000_000);
        assert_eq!(std::fs::metadata(root.join("deep")).unwrap().permissions().mode() & 0o7777, 0o755);
    }

    #[test]
    fn whiteouts_become_overlayfs_ones() {
        use EntryType::*;
        let entries: &[(EntryType, &str, &str, &[u8])] = &[
            (Regular, "gone/.wh.file", "", b""),
            (Directory, "fresh", "", b""),
            (Regular, "fresh/.wh..wh..opq", "", b""),
            (Regular, ".wh.again", "", b""),
            (Directory, "again", "", b""),
            (Regular, "again/new", "", b"n"),
        ];
        let (dir, result) = run(entries, Whiteouts::Overlay);
        result.unwrap();
        let root = dir.path().join("layer");
        let gone = std::fs::symlink_metadata(root.join("gone/file")).unwrap();
        assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
        for opaque in ["fresh", "again"] {
            let mut value = [0u8; 8];
            let n = sys::getxattr(root.join(opaque), OPAQUE_XATTR, &mut value).unwrap();
            assert_eq!(&value[..n], b"y", "{opaque}");
        }
        let (dir, result) = run(entries, Whiteouts::Literal);
        result.unwrap();
        assert!(dir.path().join("layer/gone/.wh.file").is_file());
    }

    #[test]
    fn nothing_gets_out() {
        use EntryType::*;
        for path in ["../out", "a/../../out"] {
            let (dir, result) = run(&[(Regular, path, "", b"x")], Whiteouts::Overlay);
            assert!(matches!(result, Err(UnpackError::BadPath(_))), "{path}");
            assert!(!dir.path().join("out").exists());
        }
        for target in ["/", "..", "../..", "/../../.."] {
            let (dir, result) = run(&[(Symlink, "escape", target, b""), (Regular, "escape/out", "", b"x")], Whiteouts::Overlay);
            result.unwrap();
            assert!(!dir.path().join("out").exists());
            assert!(dir.path().join("layer/out").exists(), "{target} must mean the layer's own root");
        }
        // Writing through a symlink replaces the symlink.
        let (dir, result) = run(&[(Symlink, "f", "../out", b""), (Regular, "f", "", b"x")], Whiteouts::Overlay);
        result.unwrap();
        assert!(!dir.path().join("out").exists());
        assert!(std::fs::symlink_metadata(dir.path().join("layer/f")).unwrap().is_file());
        let (_dir, result) = run(&[(Link, "passwd", "/etc/passwd", b"")], Whiteouts::Overlay);
        assert!(matches!(result, Err(UnpackError::HardLink { .. })));
    }
}
