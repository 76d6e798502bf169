//! How the binary is linked.

fn main() {
    // Segments lie in the file as they will in memory, up to pages of 2 MiB: the agents of all
    // sandboxes run one copy of the program, and share large pages of it (`jail::sealed_program`).
    println!("cargo:rustc-link-arg-bins=-Wl,-z,max-page-size=0x200000");
    println!("cargo:rerun-if-changed=build.rs");
}
