//! Replacing files so that a reader sees either the old or the new content.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::Path,
};

/// Largest configuration file that is read, in bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Mode of a new file.
const MODE_DEFAULT: u32 = 0o600;

/// Replaces `path` by `content`: writes a temporary file, syncs and renames it. Mode and owner are
/// kept.
///
/// # Errors
/// The old content stays, without leftovers.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    write_aside(path, fs::metadata(path).ok(), |file| file.write_all(content))
}

/// Replaces `path` by an executable in the same way, with mode 0755.
///
/// # Errors
/// The old content stays, without leftovers.
pub(crate) fn install_executable(source: &Path, path: &Path) -> io::Result<()> {
    let mut from = File::open(source)?;
    write_aside(path, None, |to| {
        io::copy(&mut from, to)?;
        to.set_permissions(fs::Permissions::from_mode(0o755))
    })
}

/// Removes a file if it exists.
///
/// # Errors
/// All other failures.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => path.parent().map_or(Ok(()), sync_directory),
    }
}

/// Reads a text file of limited size; `None` if it does not exist.
///
/// # Errors
/// When it is too large, not text or not readable.
pub(crate) fn read_bounded(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut text = String::new();
    let read = file.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > CONFIG_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is larger than 1 MiB"));
    }
    Ok(Some(text))
}

/// Whether both files have the same content.
pub(crate) fn same_content(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(a), Ok(b)) if a.len() == b.len() => {
            fs::read(one).ok().zip(fs::read(other).ok()).is_some_and(|(one, other)| one == other)
        }
        _ => false,
    }
}

fn write_aside(
    path: &Path,
    like: Option<fs::Metadata>,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file"));
    };
    // Runtimes ignore dot files, and with one name per target at most one is left after a crash.
    let aside = directory.join(format!(".{name}.ambit-tmp"));
    let written = (|| {
        let _ = fs::remove_file(&aside);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE_DEFAULT).open(&aside)?;
        fill(&mut file)?;
        if let Some(like) = &like {
            file.set_permissions(fs::Permissions::from_mode(like.mode() & 0o7777))?;
            fchown(&file, Some(like.uid()), Some(like.gid()))?;
        }
        file.sync_all()?;
        fs::rename(&aside, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written?;
    sync_directory(directory)
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
