//! How a request came: what its connection says of it, in its extensions.

use std::{net::IpAddr, sync::Arc};

/// How a request came.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// The other end of its connection.
    pub(crate) peer: IpAddr,
    /// It came to the listener of the previews, which answers nothing else.
    pub(crate) is_previews: bool,
    /// The name for which the connection was encrypted, in lower case (RFC 6066, section 3).
    pub(crate) server_name: Option<Arc<str>>,
}
