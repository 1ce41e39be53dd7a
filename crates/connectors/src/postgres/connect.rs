//! Connections to one server: opened when needed, prepared once, used again.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll};

use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_postgres::config::Host;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use tokio_postgres_rustls::MakeRustlsConnect;
use trib_core::{Code, Error, Result, turn};

use super::config::Endpoint;
use super::{error, tls};

/// What every session agrees on, so that text forms never depend on the server's settings. Our statements may run for
/// hours, so no timeout of the server's applies to them.
const SESSION: &str = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'iso_8601'; SET bytea_output = 'hex'; \
    SET extra_float_digits = 1; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET client_min_messages = error";

/// The driver reads eight kilobytes at a time; this many at once spare it most of the system calls.
const READ_BUFFER: usize = 128 << 10;

/// A server, with the connections to it that are idle.
pub struct Server {
    endpoint: Endpoint,
    idle: Mutex<Vec<Client>>,
    /// As many as connections may be open at once.
    turns: Arc<Semaphore>,
    most: usize,
    tls: Mutex<Option<MakeRustlsConnect>>,
}

/// The right to have a connection open, for as long as any copy of it is kept.
pub type Turn = Arc<OwnedSemaphorePermit>;

/// An open connection. Dropping it closes it; [`Server::give_back`] keeps it for the next user.
pub struct Session {
    pub client: Client,
    _turn: Turn,
}

impl Server {
    /// `threads` connections may be open at once.
    pub fn new(endpoint: Endpoint, threads: usize) -> Self {
        let most = threads.max(1);
        Self { endpoint, idle: Mutex::default(), turns: Arc::new(Semaphore::new(most)), most, tls: Mutex::default() }
    }

    /// An idle connection, or a new one, when it is one's turn. It is in no transaction.
    pub async fn session(&self) -> Result<Session> {
        self.session_in(self.turn().await?).await
    }

    /// Waits until fewer connections are open than may be. Whoever waits here must not hold what the others need to come to an end.
    pub async fn turn(&self) -> Result<Turn> {
        let turn = turn::wait(self.turns.clone().acquire_owned()).await;
        turn.map(Arc::new).map_err(|e| Error::internal("the connections of a server were closed").source(e))
    }

    /// One of several connections that come to an end together, and so share a turn.
    pub async fn session_in(&self, turn: Turn) -> Result<Session> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match idle {
                Some(client) if client.is_closed() => {}
                Some(client) => return Ok(Session { client, _turn: turn }),
                None => return Ok(Session { client: self.connect().await?, _turn: turn }),
            }
        }
    }

    /// Keeps a connection for later. Only for one that is in no transaction and no half-read `COPY`.
    pub fn give_back(&self, session: Session) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !session.client.is_closed() && idle.len() < self.most {
            idle.push(session.client);
        }
    }

    async fn connect(&self) -> Result<Client> {
        let login = &self.endpoint.login;
        let mut last = None;
        for (i, host) in login.get_hosts().iter().enumerate() {
            let ports = login.get_ports();
            let port = ports.get(i).or(ports.first()).copied().unwrap_or(5432);
            let attempt = timeout(self.endpoint.connect_timeout, self.connect_to(host, port)).await;
            match attempt {
                Ok(Ok(client)) => return Ok(client),
                // Another host may be there; none of them will know a wrong password better.
                Ok(Err(e)) if matches!(e.code(), Code::HostUnknown | Code::ConnectionRefused | Code::Timeout) => last = Some(e),
                Ok(Err(e)) => return Err(e),
                Err(_) => {
                    last = Some(
                        Error::new(Code::Timeout, "the server did not answer in time")
                            .detail(shown(host, port))
                            .hint("is the address right, and does a firewall stand between? `connect_timeout` sets how long to wait"),
                    );
                }
            }
        }
        Err(last.unwrap_or_else(|| Error::new(Code::ConfigInvalid, "the connection does not say where the server is").setting("url")))
    }

    async fn connect_to(&self, host: &Host, port: u16) -> Result<Client> {
        let (stream, name) = match host {
            Host::Unix(folder) => {
                let path = folder.join(format!(".s.PGSQL.{port}"));
                let stream = UnixStream::connect(&path).await.map_err(|e| error::connection(&e).detail(path.display().to_string()))?;
                (Socket::Unix(stream), String::new())
            }
            Host::Tcp(name) => (Socket::Tcp(tcp(name, port).await?), name.clone()),
        };
        let stream = BufReader::with_capacity(READ_BUFFER, stream);
        let mut maker = self.tls()?;
        let tls = <MakeRustlsConnect as MakeTlsConnect<BufReader<Socket>>>::make_tls_connect(&mut maker, &name)
            .map_err(|e| error::tls("the host's name cannot stand in a certificate").source(e))?;
        let (client, connection) = self.endpoint.login.connect_raw(stream, tls).await.map_err(error::driver)?;
        // Ends when the client is dropped; what went wrong on the way comes out of the client's calls.
        tokio::spawn(connection);
        client.batch_execute(SESSION).await.map_err(error::driver)?;
        Ok(client)
    }

    fn tls(&self) -> Result<MakeRustlsConnect> {
        let mut cached = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tls) = &*cached {
            return Ok(tls.clone());
        }
        let tls = tls::connector(self.endpoint.sslmode, self.endpoint.sslrootcert.as_deref())?;
        *cached = Some(tls.clone());
        Ok(tls)
    }
}

impl Session {
    /// Runs statements that return nothing of interest, in one round trip.
    pub async fn run(&self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.map_err(error::driver)
    }

    /// Runs statements in one round trip; gives all their rows, in text form.
    pub async fn rows(&self, sql: &str) -> Result<Vec<SimpleQueryRow>> {
        let messages = self.client.simple_query(sql).await.map_err(error::driver)?;
        Ok(messages.into_iter().filter_map(|m| if let SimpleQueryMessage::Row(row) = m { Some(row) } else { None }).collect())
    }

    /// Runs statements in one round trip; gives for each how many rows it touched or returned.
    pub async fn counts(&self, sql: &str) -> Result<Vec<u64>> {
        let messages = self.client.simple_query(sql).await.map_err(error::driver)?;
        Ok(messages.into_iter().filter_map(|m| if let SimpleQueryMessage::CommandComplete(n) = m { Some(n) } else { None }).collect())
    }
}

async fn tcp(name: &str, port: u16) -> Result<TcpStream> {
    let addresses: Vec<SocketAddr> = lookup_host((name, port))
        .await
        .map_err(|e| {
            Error::new(Code::HostUnknown, "the server's host name is not known")
                .detail(name)
                .hint("check `host` for a typing mistake, and that this machine's DNS knows it")
                .source(e)
        })?
        .collect();
    let mut last = None;
    for address in addresses {
        match tcp_to(address).await {
            Ok(stream) => return Ok(stream),
            Err(e) => last = Some(error::connection(&e)),
        }
    }
    Err(last.unwrap_or_else(|| Error::new(Code::HostUnknown, "the server's host name has no address")).detail(format!("{name}:{port}")))
}

async fn tcp_to(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A server that has vanished is noticed even by a read that waits for the first row.
    socket.set_keepalive(true)?;
    socket.set_nodelay(true)?;
    socket.connect(address).await
}

fn shown(host: &Host, port: u16) -> String {
    match host {
        Host::Tcp(name) => format!("{name}:{port}"),
        Host::Unix(folder) => folder.display().to_string(),
    }
}

/// A TCP or Unix socket.
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

macro_rules! on_socket {
    ($self:ident, $method:ident $(, $argument:expr)*) => {
        match $self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Socket::Unix(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        on_socket!(self, poll_read, cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut TaskContext<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        on_socket!(self, poll_write, cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        on_socket!(self, poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        on_socket!(self, poll_shutdown, cx)
    }
}
