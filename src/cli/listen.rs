//! Where a server listens: an address, or a socket that the parent process opened.
//!
//! A socket handed over by the parent outlives the child: while a crashed gateway is started again,
//! connections wait in the socket's queue instead of being refused, and a port found in use is
//! found before anything was started.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::str::FromStr;

/// Address to listen on, for example `127.0.0.1:8080`; `stdin`: the listening socket that the
/// parent process passed as standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listen {
    /// Bind this address.
    Address(SocketAddr),
    /// Standard input is a listening socket.
    Stdin,
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "stdin" {
            return Ok(Self::Stdin);
        }
        text.parse().map(Self::Address).map_err(|_| {
            format!("'{text}' is not an address with a port: write for example 127.0.0.1:8080")
        })
    }
}

/// Why there is nothing to listen on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListenError {
    #[error(
        "port {} on {} is in use by another program: stop it, or choose another with --listen",
        .0.port(), .0.ip()
    )]
    InUse(SocketAddr),
    #[error("cannot listen on {0}: {1}")]
    Bind(SocketAddr, #[source] std::io::Error),
    #[error(
        "standard input is not a listening socket ({0}): --listen stdin is for a parent process \
         that passes one; write --listen ADDRESS:PORT"
    )]
    NotASocket(std::io::Error),
}

impl Listen {
    /// The listening socket, in non-blocking mode as asynchronous runtimes want it.
    pub(super) fn open(self) -> Result<TcpListener, ListenError> {
        let listener = match self {
            Self::Address(address) => {
                TcpListener::bind(address).map_err(|error| match error.kind() {
                    std::io::ErrorKind::AddrInUse => ListenError::InUse(address),
                    _ => ListenError::Bind(address, error),
                })?
            }
            Self::Stdin => inherited()?,
        };
        listener
            .set_nonblocking(true)
            .map_err(ListenError::NotASocket)?;
        Ok(listener)
    }
}

fn inherited() -> Result<TcpListener, ListenError> {
    let owned = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(ListenError::NotASocket)?;
    let listener = TcpListener::from(owned);
    // Only a TCP socket has a local address of this kind.
    listener.local_addr().map_err(ListenError::NotASocket)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_or_the_word_stdin_is_understood() {
        assert_eq!("stdin".parse(), Ok(Listen::Stdin));
        assert_eq!(
            "127.0.0.1:80".parse(),
            Ok(Listen::Address(([127, 0, 0, 1], 80).into()))
        );
        let error = "localhost".parse::<Listen>().unwrap_err();
        assert!(error.contains("127.0.0.1:8080"), "{error}");
    }

    #[test]
    fn a_taken_port_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = Listen::Address(address).open().unwrap_err().to_string();
        assert!(
            error.contains("in use") && error.contains(&address.port().to_string()),
            "{error}"
        );
    }
}
