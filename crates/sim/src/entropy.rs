//! The process's entropy, from a seed.
//!
//! The order of a `HashMap` and tokio's choices come from the C library's `getrandom`. It is replaced here, so that these too follow from the seed of a
//! simulation (as madsim does it). On a thread without a seed it asks the kernel as before.

use std::cell::RefCell;

use crate::random::Random;

thread_local! {
    static SEEDED: RefCell<Option<Random>> = const { RefCell::new(None) };
}

/// From now on this thread's entropy follows from `seed`. To be called before the thread makes its first `HashMap`.
pub fn seed(seed: u64) {
    SEEDED.with_borrow_mut(|seeded| *seeded = Some(Random::new(seed ^ 0x5EED)));
}

/// The C library's function of this name: fills `buffer` with `length` random bytes and says how many.
///
/// # Safety
/// `buffer` points to `length` writable bytes, as in the C library's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut libc::c_void, length: libc::size_t, flags: libc::c_uint) -> libc::ssize_t {
    let filled = SEEDED.try_with(|seeded| match &*seeded.borrow() {
        Some(random) => {
            // SAFETY: the caller promises `length` writable bytes.
            random.fill(unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) });
            true
        }
        None => false,
    });
    if filled == Ok(true) {
        return length as libc::ssize_t;
    }
    // SAFETY: the system call has the same contract.
    unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as libc::ssize_t }
}
