//! What stands between an HTTP client and its server: whoever watches exchanges, keeps them, or answers in the server's place.

use std::fmt::Debug;

use async_trait::async_trait;
use trib_core::Result;

use crate::http::{Client, Request, Response};

/// Sees each exchange of a client (each hop of a redirect is one), and may answer instead of the server.
#[async_trait]
pub trait Exchange: Debug + Send + Sync {
    /// Gives the answer: the server's, by `wire`, or another one. An error is that no answer came, as with [`Client::send`].
    async fn exchange(&self, request: &Request, wire: Wire<'_>) -> Result<Response>;
}

/// The way to the server.
#[derive(Clone, Copy)]
pub struct Wire<'a>(pub(crate) &'a Client);

impl Wire<'_> {
    pub async fn send(self, request: &Request) -> Result<Response> {
        self.0.over_the_wire(request).await
    }
}
