//! Many datagrams in one call: a socket of its own for each thread, all on one port (`SO_REUSEPORT`: the kernel deals the askers out), received and sent in
//! batches (`recvmmsg`, `sendmmsg`). A system call costs more than an answer.

use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Datagrams of one call.
pub const BATCH: usize = 32;
/// A question over UDP has one name and perhaps options: what is longer is cut, and then refused.
pub const QUESTION_BYTES_MAX: usize = 1232;
/// Room for questions that come faster than they are answered, if the machine allows it.
const RECEIVE_BYTES: libc::c_int = 4 << 20;

/// A socket that others may share the address with. Port 0 is any.
pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: a plain system call; the descriptor it returns is ours alone.
    let fd = unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    // Less than wished for is no error.
    let _ = set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BYTES);
    if !address.is_ipv4() {
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    let (storage, length) = to_storage(address);
    // SAFETY: `storage` is a socket address of `length` bytes.
    if unsafe { libc::bind(socket.as_raw_fd(), (&raw const storage).cast(), length) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(UdpSocket::from(socket))
}

fn set(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: `value` lives for the call and has the length that is said.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size_of::<libc::c_int>() as libc::socklen_t) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Waits until the socket has something to read; false when `end` has, which is the end.
pub fn wait(socket: &UdpSocket, end: BorrowedFd<'_>) -> io::Result<bool> {
    let poll = |fd: i32| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut both = [poll(socket.as_raw_fd()), poll(end.as_raw_fd())];
    // SAFETY: an array of two, as said.
    if unsafe { libc::poll(both.as_mut_ptr(), 2, -1) } < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::Interrupted { Ok(true) } else { Err(error) };
    }
    Ok(both[1].revents == 0)
}

/// Waits until the socket has something to read; false when it has nothing after that time.
pub fn wait_at_most(socket: &UdpSocket, time: std::time::Duration) -> io::Result<bool> {
    let mut one = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let milliseconds = libc::c_int::try_from(time.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: an array of one, as said.
    match unsafe { libc::poll(&raw mut one, 1, milliseconds) } {
        count if count >= 0 => Ok(count > 0),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            error => Err(error),
        },
    }
}

/// What was received, and what is to be sent.
pub struct Batch {
    questions: Box<[[u8; QUESTION_BYTES_MAX]; BATCH]>,
    lengths: [usize; BATCH],
    clients: Box<[libc::sockaddr_storage; BATCH]>,
    client_lengths: [libc::socklen_t; BATCH],
    answers: Vec<Vec<u8>>,
}

impl Batch {
    pub fn new(answer_bytes: usize) -> Self {
        // SAFETY: all zeroes is a socket address (of no family).
        let clients = Box::new([unsafe { zeroed() }; BATCH]);
        Self { questions: Box::new([[0; QUESTION_BYTES_MAX]; BATCH]), lengths: [0; BATCH], clients, client_lengths: [0; BATCH], answers: (0..BATCH).map(|_| Vec::with_capacity(answer_bytes)).collect() }
    }

    /// Receives what is there, without waiting. `WouldBlock` when that is nothing.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let mut vectors: [MaybeUninit<libc::iovec>; BATCH] = [const { MaybeUninit::uninit() }; BATCH];
        // SAFETY: all zeroes is an empty header.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
        for (i, header) in headers.iter_mut().enumerate() {
            let vector = vectors[i].write(libc::iovec { iov_base: self.questions[i].as_mut_ptr().cast(), iov_len: QUESTION_BYTES_MAX });
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = (&raw mut self.clients[i]).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        }
        // SAFETY: each header points to a buffer and an address of `self`, with their lengths, which outlive the call.
        let count = unsafe { libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), BATCH as libc::c_uint, libc::MSG_DONTWAIT as _, std::ptr::null_mut()) };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        let count = count as usize;
        for (i, header) in headers[..count].iter().enumerate() {
            self.lengths[i] = header.msg_len as usize;
            self.client_lengths[i] = header.msg_hdr.msg_namelen;
        }
        Ok(count)
    }

    /// A question, and where its answer goes. What is left empty is not sent.
    pub fn turn(&mut self, i: usize) -> (&[u8], &mut Vec<u8>) {
        (&self.questions[i][..self.lengths[i]], &mut self.answers[i])
    }

    pub fn client(&self, i: usize) -> Option<SocketAddr> {
        from_storage(&self.clients[i])
    }

    /// Sends the answers that are not empty, of the first `count`. One that the kernel does not take is lost, as UDP may: the asker asks again.
    pub fn send(&mut self, socket: &UdpSocket, count: usize) {
        let mut vectors: [MaybeUninit<libc::iovec>; BATCH] = [const { MaybeUninit::uninit() }; BATCH];
        // SAFETY: all zeroes is an empty header.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
        let mut filled = 0;
        for (i, answer) in self.answers[..count].iter_mut().enumerate().filter(|(_, answer)| !answer.is_empty()) {
            let vector = vectors[filled].write(libc::iovec { iov_base: answer.as_mut_ptr().cast(), iov_len: answer.len() });
            let header = &mut headers[filled].msg_hdr;
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut self.clients[i]).cast();
            header.msg_namelen = self.client_lengths[i];
            filled += 1;
        }
        let mut sent = 0;
        while sent < filled {
            // SAFETY: as for receiving; headers from `sent` to `filled` were filled above.
            let done = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers[sent..].as_mut_ptr(), (filled - sent) as libc::c_uint, libc::MSG_DONTWAIT as _) };
            // The first of them cannot be sent (nobody is there any more, or the buffer is full): go on after it.
            sent += usize::try_from(done).unwrap_or(0).max(1);
        }
    }
}

fn to_storage(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all zeroes is a socket address (of no family).
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    let length = match address {
        SocketAddr::V4(v4) => {
            let inner = libc::sockaddr_in { sin_family: libc::AF_INET as _, sin_port: v4.port().to_be(), sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) }, sin_zero: [0; 8] };
            // SAFETY: the storage is large enough for, and aligned as, every socket address.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(inner) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let inner = libc::sockaddr_in6 { sin6_family: libc::AF_INET6 as _, sin6_port: v6.port().to_be(), sin6_flowinfo: v6.flowinfo(), sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() }, sin6_scope_id: v6.scope_id() };
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(inner) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}

fn from_storage(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is one.
            let inner = unsafe { (&raw const *storage).cast::<libc::sockaddr_in>().read() };
            Some((IpAddr::V4(Ipv4Addr::from(inner.sin_addr.s_addr.to_ne_bytes())), u16::from_be(inner.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that it is one.
            let inner = unsafe { (&raw const *storage).cast::<libc::sockaddr_in6>().read() };
            Some(SocketAddrV6::new(Ipv6Addr::from(inner.sin6_addr.s6_addr), u16::from_be(inner.sin6_port), inner.sin6_flowinfo, inner.sin6_scope_id).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_there_and_back() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let server = bind(local.parse().unwrap()).unwrap();
            let address = server.local_addr().unwrap();
            let beside = bind(address).expect("another on the same port");
            let clients: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind(local).unwrap()).collect();
            for (i, client) in clients.iter().enumerate() {
                client.send_to(&[i as u8; 10], address).unwrap();
            }
            let mut got = 0;
            let (_reader, writer) = std::io::pipe().unwrap();
            let end: OwnedFd = _reader.into();
            use std::os::fd::AsFd;
            while got < 3 {
                for socket in [&server, &beside] {
                    let mut batch = Batch::new(64);
                    let count = match batch.receive(socket) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                        count => count.unwrap(),
                    };
                    for i in 0..count {
                        let (question, answer) = batch.turn(i);
                        assert_eq!(question.len(), 10);
                        answer.extend_from_slice(&[question[0] + 100]);
                        let from = batch.client(i).unwrap();
                        assert!(clients.iter().any(|client| client.local_addr().unwrap() == from));
                    }
                    batch.send(socket, count);
                    got += count;
                }
            }
            for (i, client) in clients.iter().enumerate() {
                let mut buffer = [0; 10];
                assert_eq!((client.recv(&mut buffer).unwrap(), buffer[0]), (1, i as u8 + 100));
            }
            drop(writer);
            assert!(!wait(&server, end.as_fd()).unwrap(), "the end is heard");
        }
    }
}
