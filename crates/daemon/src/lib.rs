//! The daemon: configuration, wiring, HTTP.

#![forbid(unsafe_code)]
