//! A TCP proxy that breaks connections when it is told to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Stands between a client and a server, and passes everything on until told otherwise.
pub struct Proxy {
    address: SocketAddr,
    faults: Arc<Faults>,
    listener: tokio::task::JoinHandle<()>,
}

struct Faults {
    /// Bytes from the server that may still pass; all connections are cut when they are used up.
    allowance: AtomicU64,
    paused: AtomicBool,
    resumed: Notify,
    cuts: AtomicU64,
}

impl Proxy {
    /// Listens on a free port of the loopback interface and passes connections on to `target`. Ends when it is dropped.
    pub async fn start(target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let faults = Arc::new(Faults {
            allowance: AtomicU64::new(u64::MAX),
            paused: AtomicBool::new(false),
            resumed: Notify::new(),
            cuts: AtomicU64::new(0),
        });
        let shared = faults.clone();
        let listener = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(client, target, shared.clone()));
            }
        });
        Ok(Self { address, faults, listener })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts every connection, and each new one, once the server has sent `bytes` more in all.
    pub fn cut_after(&self, bytes: u64) {
        self.faults.allowance.store(bytes, Ordering::SeqCst);
    }

    /// Connections stay open, and nothing comes through any more.
    pub fn pause(&self) {
        self.faults.paused.store(true, Ordering::SeqCst);
    }

    /// Everything passes again; what was cut stays cut.
    pub fn heal(&self) {
        self.faults.allowance.store(u64::MAX, Ordering::SeqCst);
        self.faults.paused.store(false, Ordering::SeqCst);
        self.faults.resumed.notify_waiters();
    }

    /// Connections that were cut so far: proof that the fault was hit.
    pub fn cuts(&self) -> u64 {
        self.faults.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn connect(client: TcpStream, target: SocketAddr, faults: Arc<Faults>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    // Whichever direction ends first drops both sockets.
    tokio::select! {
        () = pass(client_in, server_out, None, &faults) => {}
        () = pass(server_in, client_out, Some(&faults.allowance), &faults) => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, allowance: Option<&AtomicU64>, faults: &Faults) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        loop {
            // Registered before the look, so that a `heal` in between is not missed.
            let resumed = faults.resumed.notified();
            if !faults.paused.load(Ordering::SeqCst) {
                break;
            }
            resumed.await;
        }
        let passes = match allowance {
            Some(allowance) => spend(allowance, read as u64) as usize,
            None => read,
        };
        if to.write_all(&buffer[..passes]).await.is_err() {
            return;
        }
        if passes < read {
            faults.cuts.fetch_add(1, Ordering::SeqCst);
            return;
        }
    }
}

/// Takes up to `wanted` from what is left. An unlimited allowance stays unlimited.
fn spend(allowance: &AtomicU64, wanted: u64) -> u64 {
    let taken = |left: u64| if left == u64::MAX { wanted } else { wanted.min(left) };
    let update = |left: u64| Some(if left == u64::MAX { left } else { left - taken(left) });
    allowance.fetch_update(Ordering::SeqCst, Ordering::SeqCst, update).map_or(0, taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn server(bytes: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let _ = socket.write_all(&vec![7; bytes]).await;
            }
        });
        address
    }

    async fn received(address: SocketAddr) -> usize {
        let mut all = Vec::new();
        let _ = TcpStream::connect(address).await.unwrap().read_to_end(&mut all).await;
        all.len()
    }

    #[tokio::test]
    async fn cuts_where_it_is_told_and_heals() {
        let proxy = Proxy::start(server(100_000).await).await.unwrap();
        assert_eq!(received(proxy.address()).await, 100_000);
        proxy.cut_after(30_000);
        assert_eq!(received(proxy.address()).await, 30_000);
        assert_eq!(received(proxy.address()).await, 0);
        assert_eq!(proxy.cuts(), 2);
        proxy.heal();
        assert_eq!(received(proxy.address()).await, 100_000);
    }

    #[tokio::test]
    async fn holds_still_until_it_heals() {
        let proxy = Proxy::start(server(100_000).await).await.unwrap();
        proxy.pause();
        let mut reading = Box::pin(received(proxy.address()));
        assert!(futures::poll!(&mut reading).is_pending());
        proxy.heal();
        assert_eq!(reading.await, 100_000);
    }
}
