//! The Rust SDK.

#![forbid(unsafe_code)]
