//! Stub.

/// Stub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Stub.
    Present,
    /// Stub.
    Degraded,
    /// Stub.
    Missing,
}

/// Stub.
#[derive(Debug, Clone)]
pub struct Feature {
    /// Stub.
    pub name: &'static str,
    /// Stub.
    pub status: Status,
    /// Stub.
    pub required: bool,
    /// Stub.
    pub detail: String,
    /// Stub.
    pub cost: String,
    /// Stub.
    pub remedy: String,
}

/// Stub.
#[must_use]
pub fn probe(state_dir: &std::path::Path) -> Vec<Feature> {
    drop(state_dir.to_owned());
    Vec::new()
}
