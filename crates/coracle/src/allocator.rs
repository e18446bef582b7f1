//! Which allocator this process has: mimalloc, but for a pod's shim the system's.
//!
//! mimalloc is the faster one for the cluster; its arenas cost a process some MiB at once, and there is one shim for every pod, which allocates
//! almost nothing. One binary is both, so the choice is made when the process starts: before `main`, and so before anything was allocated.
//!
//! Huge pages are refused for the same reason: an idle API server would hold 25 MiB of them where 8 MiB are in use. The refusal passes on to what a process starts, so a shim
//! takes it back: containers have what the host gives.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{CStr, c_char, c_int};
use std::sync::atomic::{AtomicBool, Ordering};

use mimalloc::MiMalloc;

/// The first argument of a shim, see `sandbox::shim`.
const SHIM: &CStr = c"shim";

/// Set once, by [`choose`], before the first allocation; so what one allocator gave is never handed to the other.
static IS_SHIM: AtomicBool = AtomicBool::new(false);

pub struct Allocator;

/// glibc calls what stands in this section with `main`'s arguments, in static programs too. The number puts it before others' constructors
/// without one; the standard library's own (99) allocates nothing.
// SAFETY: a pointer to a function of the type that section holds.
#[used]
#[unsafe(link_section = ".init_array.00098")]
static CHOOSE: extern "C" fn(c_int, *const *const c_char, *const *const c_char) = choose;

extern "C" fn choose(count: c_int, arguments: *const *const c_char, _: *const *const c_char) {
    if count > 1 && !arguments.is_null() {
        // SAFETY: the kernel gives `count` pointers to strings that end in zero and live as long as the process.
        let first = unsafe { CStr::from_ptr(*arguments.add(1)) };
        IS_SHIM.store(first == SHIM, Ordering::Relaxed);
    }
    let refused = libc::c_ulong::from(!is_shim());
    // SAFETY: prctl with plain integers; a kernel without huge pages says no, and nothing is lost.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, refused, 0, 0, 0) };
}

fn is_shim() -> bool {
    // There is one thread when it is written, and every other one is started after that.
    IS_SHIM.load(Ordering::Relaxed)
}

// SAFETY: each call is passed on unchanged to one of two sound allocators, in one process always to the same one.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that are asked for.
        unsafe { if is_shim() { System.alloc(layout) } else { MiMalloc.alloc(layout) } }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; the pointer came from the same allocator.
        unsafe { if is_shim() { System.dealloc(pointer, layout) } else { MiMalloc.dealloc(pointer, layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { if is_shim() { System.alloc_zeroed(layout) } else { MiMalloc.alloc_zeroed(layout) } }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above; the pointer came from the same allocator.
        unsafe { if is_shim() { System.realloc(pointer, layout, size) } else { MiMalloc.realloc(pointer, layout, size) } }
    }
}
