//! How a request came: what its connection says of it, in its extensions.

use std::{net::IpAddr, sync::Arc};

/// How a request came.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// Who sent it: the other end of its connection; of a preview's request, whom a trusted proxy at
    /// that end asks for.
    pub(crate) visitor: IpAddr,
    /// It came to the listener of the previews, which answers nothing else.
    pub(crate) is_previews: bool,
    /// The name for which the connection was encrypted, in lower case (RFC 6066, section 3).
    pub(crate) server_name: Option<Arc<str>>,
}
