//! A container's output: into its log, and to whoever is attached.
//!
//! The log comes first and is never held up: an attached reader that does not read has its share queued up to a limit, then it is cut off.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::EventFlags;

use super::log::{Lines, timestamp};
use super::{Shim, Source};
use crate::cri::ContainerState;
use crate::protocol::{Answer, Refusal};
use crate::sys;

/// What an attached reader may be behind.
const MAX_QUEUE: usize = 1024 * 1024;
/// Reads from one stream before others get their turn.
const MAX_READS: usize = 16;

pub struct Output {
    pub fd: OwnedFd,
    pub token: u64,
    pub lines: Lines,
}

/// An attached reader of one stream.
pub struct Sink {
    stream: usize,
    fd: OwnedFd,
    queue: Vec<u8>,
    /// Set while we wait for it to take more.
    token: Option<u64>,
    /// Nothing more will come.
    finished: bool,
}

impl Shim {
    pub fn handle_output(&mut self, id: &str, stream: usize) {
        for _ in 0..MAX_READS {
            if !self.read_output(id, stream) {
                return;
            }
        }
    }

    /// Reads once. False when there is nothing more for now, or ever.
    fn read_output(&mut self, id: &str, stream: usize) -> bool {
        let Some(container) = self.containers.get_mut(id) else { return false };
        let Some(output) = &mut container.outputs[stream] else { return false };
        match rustix::io::read(&output.fd, &mut self.buffer[..]) {
            Err(rustix::io::Errno::AGAIN) => false,
            Err(rustix::io::Errno::INTR) => true,
            // A terminal ends with EIO.
            Ok(0) | Err(_) => {
                self.close_output(id, stream);
                false
            }
            Ok(length) => {
                let data = &self.buffer[..length];
                self.entries.clear();
                // A burst of empty lines takes many times its size; do not keep that for ever.
                self.entries.shrink_to(2 * data.len());
                output.lines.feed(data, &timestamp(sys::now_ns()), &mut self.entries);
                container.log.write(&self.entries);
                let mut waiting = false;
                for sink in container.sinks.iter_mut().filter(|sink| sink.stream == stream) {
                    sink.queue.extend_from_slice(data);
                    waiting = true;
                }
                if waiting {
                    self.handle_sinks(id);
                }
                length == self.buffer.len()
            }
        }
    }

    fn close_output(&mut self, id: &str, stream: usize) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Some(mut output) = container.outputs[stream].take() else { return };
        self.entries.clear();
        output.lines.finish(&timestamp(sys::now_ns()), &mut self.entries);
        container.log.write(&self.entries);
        for sink in container.sinks.iter_mut().filter(|sink| sink.stream == stream) {
            sink.finished = true;
        }
        self.unwatch(output.token, &output.fd);
        self.handle_sinks(id);
    }

    /// Takes what is still in the pipes of a container that has ended, then closes them.
    pub fn drain(&mut self, id: &str) {
        for stream in 0..2 {
            while self.read_output(id, stream) {}
        }
        self.close_streams(id);
    }

    pub fn close_streams(&mut self, id: &str) {
        self.close_output(id, 0);
        self.close_output(id, 1);
        if let Some(container) = self.containers.get_mut(id) {
            container.stdin = None;
            container.terminal = None;
            container.log.close();
        }
    }

    /// Writes what the attached readers take.
    pub fn handle_sinks(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let mut sinks = std::mem::take(&mut container.sinks);
        sinks.retain_mut(|sink| {
            let keep = self.flush(id, sink);
            if !keep && let Some(token) = sink.token {
                self.unwatch(token, &sink.fd);
            }
            keep
        });
        if let Some(container) = self.containers.get_mut(id) {
            container.sinks = sinks;
        }
    }

    /// False when it is done with or gone.
    fn flush(&mut self, id: &str, sink: &mut Sink) -> bool {
        while !sink.queue.is_empty() {
            match rustix::io::write(&sink.fd, &sink.queue) {
                Ok(written) => drop(sink.queue.drain(..written)),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    if sink.token.is_none() {
                        sink.token = self.watch(&sink.fd, EventFlags::OUT, Source::Sink { container: id.to_owned() }).ok();
                    }
                    return sink.token.is_some() && sink.queue.len() <= MAX_QUEUE;
                }
                Err(_) => return false,
            }
        }
        if let Some(token) = sink.token.take() {
            self.unwatch(token, &sink.fd);
        }
        !sink.finished
    }

    /// The caller's ends, in the order stdin, stdout, stderr.
    pub fn attach(&mut self, id: &str, stdin: bool, stdout: bool, stderr: bool) -> Result<(Answer, Vec<OwnedFd>), Refusal> {
        let container = self.containers.get_mut(id).ok_or(Refusal::NotFound)?;
        if container.run.state != ContainerState::Running {
            return Err(Refusal::Failed("container is in CONTAINER_EXITED state".to_owned()));
        }
        let failed = |error: std::io::Error| Refusal::Failed(error.to_string());
        let mut ends = Vec::new();
        let stdin = match (&container.stdin, &container.terminal) {
            _ if !stdin => false,
            (_, Some(terminal)) => {
                ends.push(terminal.try_clone().map_err(failed)?);
                true
            }
            (Some(writer), None) => {
                ends.push(writer.try_clone().map_err(failed)?);
                true
            }
            (None, None) => false,
        };
        let wanted = [stdout, stderr && !container.tty];
        let mut given = [false; 2];
        for stream in 0..2 {
            if wanted[stream] && container.outputs[stream].is_some() {
                let (reader, writer) = std::io::pipe().map_err(failed)?;
                sys::set_nonblocking(writer.as_fd()).map_err(failed)?;
                sys::set_nonblocking(reader.as_fd()).map_err(failed)?;
                container.sinks.push(Sink { stream, fd: writer.into(), queue: Vec::new(), token: None, finished: false });
                ends.push(reader.into());
                given[stream] = true;
            }
        }
        if stdin && container.stdin_once {
            // The first to attach is the last: when it closes its end, the container reads the end of the file.
            container.stdin = None;
        }
        Ok((Answer::Attached { stdin, stdout: given[0], stderr: given[1], tty: container.tty }, ends))
    }
}
