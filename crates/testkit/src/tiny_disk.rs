//! A disk that is soon full.

use std::io;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A file system in memory with a fixed size, unmounted when it is dropped.
pub struct TinyDisk {
    folder: TempDir,
}

impl TinyDisk {
    /// Mounting needs root. `None` for other users, whose tests then have nothing to try.
    pub fn mount(megabytes: u32) -> io::Result<Option<Self>> {
        let folder = tempfile::Builder::new().prefix("trib-tiny-").tempdir()?;
        let size = format!("size={megabytes}m,mode=1777");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output()?;
        Ok(mounted.status.success().then_some(Self { folder }))
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// As when somebody has made room.
    pub fn grow(&self, megabytes: u32) -> io::Result<()> {
        let size = format!("remount,size={megabytes}m");
        let mounted = Command::new("mount").args(["-o", &size]).arg(self.folder.path()).status()?;
        if mounted.success() { Ok(()) } else { Err(io::Error::other("the disk could not be made larger")) }
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        // Lazily, since a server of the test may still have a file open.
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_full_when_it_is_full() {
        let Some(disk) = TinyDisk::mount(1).unwrap() else { return };
        std::fs::write(disk.path().join("fits"), vec![0; 500_000]).unwrap();
        let full = std::fs::write(disk.path().join("more"), vec![0; 2_000_000]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        disk.grow(8).unwrap();
        std::fs::write(disk.path().join("more"), vec![0; 2_000_000]).unwrap();
    }
}
