//! The C library's allocator.

/// Bytes from which an allocation is a mapping of its own, given back whole when it is freed.
#[cfg(target_env = "gnu")]
const OWN_MAPPING_BYTES: libc::c_int = 1024 * 1024;

/// Free bytes at the end of the heap that are kept for the next allocation.
#[cfg(target_env = "gnu")]
const KEPT_BYTES: libc::c_int = 512 * 1024;

/// Sets the allocator up for a process that must be small when it is idle: one arena for all
/// threads (by default each thread gets one, whose pages stay), and free memory goes back (by
/// default a freed large block makes the allocator keep blocks of that size from then on).
///
/// Call it before threads exist.
///
/// Source: `mallopt(3)`.
#[cfg(target_env = "gnu")]
pub fn stay_small() {
    for (parameter, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, OWN_MAPPING_BYTES),
        (libc::M_TRIM_THRESHOLD, KEPT_BYTES),
    ] {
        // SAFETY: two integers; the call changes a parameter of the allocator under its own lock.
        let done = unsafe { libc::mallopt(parameter, value) };
        debug_assert_eq!(done, 1, "the parameters are known to every glibc since 2.10");
    }
}

/// Does nothing: other C libraries have no such parameters.
#[cfg(not(target_env = "gnu"))]
pub fn stay_small() {}

/// Gives whole free pages back that lie between used ones, which [`stay_small`] alone does not reach.
/// It takes about 1.4 ms after 16 MiB were freed.
///
/// Source: `malloc_trim(3)`.
#[cfg(target_env = "gnu")]
pub fn give_back() {
    // SAFETY: the call takes a number, and changes the allocator's free memory under its own lock.
    unsafe { libc::malloc_trim(0) };
}

/// Does nothing: other C libraries have no such call.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}
