//! A slow and lossy cable: a process that copies frames between a node's port and the bridge, each late by the delay asked for, some never.
//!
//! In user space, so that every kernel can do it, also those built without `netem`. Frames keep what the sender's link left to do for the receiver's
//! (checksums, segmentation: the virtio header), so that a link made slow is otherwise as it was.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use crate::process;

/// The first word of its command line.
pub const WORD: &str = "lab-relay";

/// The largest frame of a link, segmentation left to do included, and the header before it.
const FRAME_BYTES_MAX: usize = 128 << 10;
/// Frames under way; more are dropped, as a router does whose queue is full.
const FRAMES_MAX: usize = 20_000;
const BYTES_MAX: usize = 64 << 20;
/// Read from one side before the other has its turn.
const BATCH: usize = 64;
const PACKET_VNET_HDR: i32 = 15;
const PACKET_IGNORE_OUTGOING: i32 = 23;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    pub port: String,
    pub inner: String,
    pub delay_ms: u64,
    pub loss_percent: f64,
}

/// Called in the lab's network namespace.
pub fn main(arguments: &[OsString]) -> i32 {
    let spec = arguments.first().and_then(|text| text.to_str()).and_then(|text| serde_json::from_str::<Spec>(text).ok());
    let Some(spec) = spec else {
        eprintln!("{WORD} is started by `coracle lab slow`");
        return 2;
    };
    let open = || -> Result<[OwnedFd; 2], String> { Ok([listen(&spec.port)?, listen(&spec.inner)?]) };
    let opened = open();
    if process::say(&opened.as_ref().map(drop).map_err(Clone::clone)).is_err() {
        return 1;
    }
    let Ok(sides) = opened else { return 1 };
    match carry(&sides, &spec) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{}: {error}", spec.port);
            1
        }
    }
}

/// Everything that arrives at a link, as it arrives.
fn listen(link: &str) -> Result<OwnedFd, String> {
    let index = network::segment::link_index(link).map_err(|error| error.to_string())?;
    let open = || -> io::Result<OwnedFd> {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: a plain socket call; the descriptor it returns is owned by nobody else.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, i32::from(protocol)) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fd was just returned by socket() and is valid.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        for option in [PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING] {
            let on: libc::c_int = 1;
            // SAFETY: the pointer and the length describe `on`, which outlives the call.
            if unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_PACKET, option, (&raw const on).cast(), size_of_val(&on) as u32) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: sockaddr_ll is plain data, all zero is valid.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = index as i32;
        // SAFETY: the pointer and the length describe `address`, which outlives the call.
        if unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(fd)
    };
    open().map_err(|error| format!("listen at {link}: {error}"))
}

struct Frame {
    due: Instant,
    /// The side it leaves by.
    to: usize,
    bytes: Vec<u8>,
}

fn carry(sides: &[OwnedFd; 2], spec: &Spec) -> io::Result<()> {
    let delay = Duration::from_millis(spec.delay_ms);
    let mut chance = Chance::new()?;
    // One delay for all: who came first leaves first.
    let mut under_way: VecDeque<Frame> = VecDeque::new();
    let mut bytes_under_way = 0;
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    loop {
        let timeout = under_way.front().map(|frame| frame.due.saturating_duration_since(Instant::now()));
        let timeout = timeout.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) });
        let mut ready = [PollFd::new(&sides[0], PollFlags::IN), PollFd::new(&sides[1], PollFlags::IN)];
        match poll(&mut ready, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for (from, side) in sides.iter().enumerate() {
            for _ in 0..BATCH {
                let length = match rustix::io::read(side.as_fd(), &mut buffer) {
                    Ok(length) => length,
                    // A link that is down (its cable pulled) brings nothing.
                    Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NETDOWN | rustix::io::Errno::INTR) => break,
                    Err(error) => return Err(error.into()),
                };
                if chance.percent() < spec.loss_percent || under_way.len() >= FRAMES_MAX || bytes_under_way + length > BYTES_MAX {
                    continue;
                }
                bytes_under_way += length;
                under_way.push_back(Frame { due: Instant::now() + delay, to: 1 - from, bytes: buffer[..length].to_vec() });
            }
        }
        let now = Instant::now();
        while let Some(frame) = under_way.pop_front_if(|frame| frame.due <= now) {
            bytes_under_way -= frame.bytes.len();
            // What a link does not take is lost, as frames are.
            let _ = rustix::io::write(sides[frame.to].as_fd(), &frame.bytes);
        }
    }
}

/// xorshift64*: which frames are lost need not be hard to guess.
struct Chance(u64);

impl Chance {
    fn new() -> io::Result<Self> {
        let mut seed = [0; 8];
        std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut seed)?;
        Ok(Self(u64::from_ne_bytes(seed) | 1))
    }

    /// 0 ≤ x < 100.
    fn percent(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64 * 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::Chance;

    #[test]
    fn chance_is_even() {
        let mut chance = Chance(42);
        let lost = (0..10_000).filter(|_| chance.percent() < 30.0).count();
        assert!((2_800..3_200).contains(&lost), "{lost}");
    }
}
