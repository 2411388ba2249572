//! Opens listening sockets.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::Address;

/// Connections that wait to be accepted. The kernel takes the smaller of this and net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// Dead peers are noticed after idle + retries × interval: two and a half minutes.
const PROBE_IDLE: Duration = Duration::from_secs(60);
const PROBE_INTERVAL: Duration = Duration::from_secs(30);
const PROBE_RETRIES: u32 = 3;

/// Who may connect to a Unix socket: its owner and its group.
const UNIX_MODE: u32 = 0o660;

/// A listening socket.
#[derive(Debug)]
pub(super) enum ListenSocket {
    Tcp(std::net::TcpListener),
    Unix(UnixListener, UnixFile),
}

/// The file of a Unix socket that we made, so that we remove ours and no other's.
#[derive(Debug)]
pub(super) struct UnixFile {
    path: PathBuf,
    id: Option<(u64, u64)>,
}

impl ListenSocket {
    /// Opens the socket of an address.
    pub(super) fn open(address: &Address) -> io::Result<Self> {
        match address {
            Address::All(port) => all(*port).map(Self::Tcp),
            Address::Inet(address) => tcp(*address, true).map(Self::Tcp),
            Address::Unix(path) => unix(path),
        }
    }

    /// The address that it is bound to; `None` for a Unix socket.
    pub(super) fn local(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(tcp) => tcp.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// A further handle to the same socket, for a further worker.
    pub(super) fn share(&self) -> io::Result<SharedSocket> {
        match self {
            Self::Tcp(tcp) => tokio::net::TcpListener::from_std(tcp.try_clone()?).map(SharedSocket::Tcp),
            Self::Unix(unix, _) => tokio::net::UnixListener::from_std(unix.try_clone()?).map(SharedSocket::Unix),
        }
    }

    /// Removes the file of a Unix socket, if it is still ours.
    pub(super) fn remove_file(&self) {
        let Self::Unix(_, file) = self else { return };
        if file.id.is_some() && file_id(&file.path) == file.id {
            // When this fails the file is stale, and whoever listens there next replaces it.
            let _ = std::fs::remove_file(&file.path);
        }
    }
}

/// A worker's handle to a listening socket.
pub(super) enum SharedSocket {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

/// One socket for IPv4 and IPv6; IPv4 alone where the machine has no IPv6.
fn all(port: u16) -> io::Result<std::net::TcpListener> {
    match tcp(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), false) {
        Err(fault) if lacks_ipv6(&fault) => tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), false),
        done => done,
    }
}

fn lacks_ipv6(fault: &io::Error) -> bool {
    matches!(fault.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT))
}

fn tcp(address: SocketAddr, v6_only: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(v6_only)?;
    }
    // A restart must not wait for the last process's connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit both, which saves two system calls per connection.
    socket.set_tcp_nodelay(true)?;
    let probes = TcpKeepalive::new().with_time(PROBE_IDLE).with_interval(PROBE_INTERVAL).with_retries(PROBE_RETRIES);
    socket.set_tcp_keepalive(&probes)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn unix(path: &Path) -> io::Result<ListenSocket> {
    if is_stale(path)? {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    let file = UnixFile { path: path.to_owned(), id: file_id(path) };
    let socket = ListenSocket::Unix(listener, file);
    let ready = || {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(UNIX_MODE))?;
        let ListenSocket::Unix(listener, _) = &socket else { return Ok(()) };
        listener.set_nonblocking(true)?;
        // The standard library's backlog is 128; asking again changes it.
        SockRef::from(listener).listen(BACKLOG)
    };
    ready().inspect_err(|_| socket.remove_file())?;
    Ok(socket)
}

/// Whether there is a socket's file at which nobody listens any more.
fn is_stale(path: &Path) -> io::Result<bool> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(false) };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file, and it is no socket"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(fault) if fault.kind() == io::ErrorKind::ConnectionRefused => Ok(true),
        // Somebody listens, or we cannot know.
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

fn file_id(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// What went wrong, as an operator can use it.
pub(super) fn explain(address: &Address, fault: &io::Error) -> String {
    let why = match fault.kind() {
        io::ErrorKind::AddrInUse => "another process listens there".to_owned(),
        io::ErrorKind::PermissionDenied => match address {
            Address::Unix(_) => "the directory may not be written".to_owned(),
            _ => "ports below 1024 need a privilege (CAP_NET_BIND_SERVICE)".to_owned(),
        },
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        io::ErrorKind::NotFound => "its directory does not exist".to_owned(),
        _ => fault.to_string(),
    };
    format!("cannot listen at `{address}`: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let address = Address::Unix(path.clone());
        drop(UnixListener::bind(&path).unwrap());

        let first = ListenSocket::open(&address).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let told = explain(&address, &ListenSocket::open(&address).unwrap_err());
        assert!(told.contains("another process listens there"), "{told}");

        first.remove_file();
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert!(ListenSocket::open(&address).is_err());
        first.remove_file();
        assert!(path.exists(), "another's file stays");
    }

    #[test]
    fn every_address_means_both_families() {
        let ListenSocket::Tcp(listener) = ListenSocket::open(&Address::All(0)).unwrap() else { unreachable!() };
        let port = listener.local_addr().unwrap().port();
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        if listener.local_addr().unwrap().is_ipv6() && std::net::TcpListener::bind("[::1]:0").is_ok() {
            std::net::TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        }
    }

    #[test]
    fn an_accepted_socket_inherits_its_options() {
        let ListenSocket::Tcp(listener) = ListenSocket::open(&"127.0.0.1:0".parse().unwrap()).unwrap() else {
            unreachable!()
        };
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().unwrap() && accepted.keepalive().unwrap());
    }
}
