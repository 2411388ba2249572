//! `LastGood`: the addresses that a name last resolved to, kept over reloads and over outages of DNS.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use crate::keep::Keep;

/// The addresses that a name last resolved to. Kept over reloads by the name and by who was asked.
#[derive(Debug, Default)]
pub struct LastGood(Mutex<Vec<IpAddr>>);

impl LastGood {
    /// What these name servers last said of a name; without any, what the system said.
    pub fn of(name: &str, servers: &[SocketAddr], keep: &Keep) -> Arc<Self> {
        let asked: String = servers.iter().map(|server| format!("\n{server}")).collect();
        keep.get_or(&format!("{name}{asked}"), Self::default)
    }

    /// The addresses; each once, IPv4 first, else in order of number, so that an answer in another order changes
    /// nothing.
    pub fn get(&self) -> Vec<IpAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes another answer, and gives it in order.
    pub fn set(&self, mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
        addresses.sort_unstable();
        addresses.dedup();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&addresses);
        addresses
    }
}
