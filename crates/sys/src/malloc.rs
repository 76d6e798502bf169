//! The C library's allocator.

/// Makes all threads allocate from one arena, for a small process: by default each thread that
/// allocates gets an arena of its own, whose pages stay. Call it before threads exist.
///
/// Source: `mallopt(3)`.
#[cfg(target_env = "gnu")]
pub fn use_one_arena() {
    // SAFETY: two integers; the call changes a parameter of the allocator under its own lock.
    let done = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    debug_assert_eq!(done, 1, "the parameter is known to every glibc since 2.10");
}

/// Does nothing: other C libraries have one arena.
#[cfg(not(target_env = "gnu"))]
pub fn use_one_arena() {}

/// Gives free memory at the top and in the middle of the heap back to the kernel.
///
/// Source: `malloc_trim(3)`.
#[cfg(target_env = "gnu")]
pub fn trim() {
    // SAFETY: an integer; the call takes the allocator's own locks and frees only what is free.
    unsafe { libc::malloc_trim(0) };
}

/// Does nothing: there is no such call.
#[cfg(not(target_env = "gnu"))]
pub fn trim() {}
