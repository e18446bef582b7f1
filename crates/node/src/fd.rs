//! Non-blocking file descriptors (pipes, terminals) for async readers and writers.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

pub struct Fd(AsyncFd<OwnedFd>);

impl Fd {
    /// `fd` is made non-blocking, should it not be.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        // SAFETY: the `OwnedFd` is owned by the `AsyncFd` until that is dropped, so it stays open and the same all that time.
        unsafe { AsyncFd::register(fd) }.map(Self).map_err(io::Error::from)
    }

    /// 0 at the end. A terminal whose other side is gone is at its end.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|fd| rustix::io::read(fd.get_ref(), &mut *buffer).map_err(io::Error::from)) {
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Ok(0),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return result,
                Err(_) => {}
            }
        }
    }

    pub async fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let mut ready = self.0.writable().await?;
            match ready.try_io(|fd| rustix::io::write(fd.get_ref(), data).map_err(io::Error::from)) {
                Ok(Ok(written)) => data = &data[written..],
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => {}
            }
        }
        Ok(())
    }
}
