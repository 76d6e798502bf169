//! The agent: PID 1 of every sandbox, an HTTP server on an inherited socket.

#![forbid(unsafe_code)]
