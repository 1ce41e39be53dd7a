//! An HTTP proxy whose answers get lost, or are others than the server's: for stores behind HTTP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The server's answer.
    Passed,
    /// The server does what was asked; the client is told that it has failed.
    Lost,
    /// The server hears nothing; the client gets this status and this body.
    Refused(u16, &'static str),
}

/// Stands between a client and a server. Ends when it is dropped.
pub struct HttpProxy {
    address: SocketAddr,
    listener: tokio::task::JoinHandle<()>,
}

impl HttpProxy {
    /// Listens on a free port of the loopback interface. `fate` sees each request's head: its first line and its headers.
    pub async fn start(target: SocketAddr, fate: impl Fn(&str) -> Fate + Send + Sync + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let fate = Arc::new(fate);
        let listener = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let fate = fate.clone();
                // A client that goes away in the middle is its own affair.
                tokio::spawn(async move { answer(client, target, fate.as_ref()).await });
            }
        });
        Ok(Self { address, listener })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HttpProxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// One request and its answer; the connection is closed after it.
async fn answer(mut client: TcpStream, target: SocketAddr, fate: &(impl Fn(&str) -> Fate + Sync)) -> io::Result<()> {
    let (head, body) = request(&mut client).await?;
    let fate = fate(&head);
    let answer = match fate {
        Fate::Passed => pass(&head, &body, target).await?,
        Fate::Lost => {
            pass(&head, &body, target).await?;
            own(500, "")
        }
        Fate::Refused(status, body) => own(status, body),
    };
    client.write_all(&answer).await?;
    client.shutdown().await
}

fn own(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} -\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Head and body of a request whose length stands in its head.
async fn request(client: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut read = Vec::new();
    let end = loop {
        if let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        if client.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let mut body = read.split_off(end);
    let head = String::from_utf8_lossy(&read).into_owned();
    let length = |line: &str| line.to_lowercase().strip_prefix("content-length:").and_then(|n| n.trim().parse::<usize>().ok());
    let length = head.lines().find_map(length).unwrap_or(0);
    while body.len() < length {
        if client.read_buf(&mut body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok((head, body))
}

/// The server's whole answer.
async fn pass(head: &str, body: &[u8], target: SocketAddr) -> io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(target).await?;
    // The end of the connection is the end of the answer.
    let kept = head.lines().filter(|line| !line.is_empty() && !line.to_lowercase().starts_with("connection:"));
    let head: String = kept.map(|line| format!("{line}\r\n")).collect();
    server.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).await?;
    server.write_all(body).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    Ok(answer)
}
