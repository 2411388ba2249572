//! A name server on the loopback, whose zone the test changes while the gateway asks.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record};

/// What it says of a name: its records by kind, or an error.
#[derive(Clone)]
enum Says {
    Records(Vec<RData>),
    Code(ResponseCode),
}

/// A name server. All its records have a time to live of 0 s. It stops when dropped.
pub(crate) struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<BTreeMap<String, Says>>>,
}

impl NameServer {
    pub(crate) fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = socket.local_addr().expect("an address");
        let zone = Arc::<Mutex<BTreeMap<String, Says>>>::default();
        let server = Self { address, zone: Arc::clone(&zone) };
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                // An empty packet says that it is over.
                let Ok(query) = Message::from_vec(&buffer[..length]) else { return };
                let Some(question) = query.queries.first().cloned() else { return };
                let name = question.name().to_ascii().to_ascii_lowercase();
                let says = zone.lock().unwrap().get(&name).cloned();
                let mut answer = query.into_response();
                match says.unwrap_or(Says::Code(ResponseCode::NXDomain)) {
                    Says::Code(code) => answer.metadata.response_code = code,
                    Says::Records(records) => {
                        let asked = records.into_iter().filter(|data| data.record_type() == question.query_type());
                        answer.add_answers(asked.map(|data| Record::from_rdata(question.name().clone(), 0, data)));
                    }
                }
                let bytes = answer.to_vec().expect("an answer can be written");
                socket.send_to(&bytes, from).expect("an answer can be sent");
            }
        });
        server
    }

    /// As `resolver` names it: `127.0.0.1:1234`.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on the name has these addresses.
    pub(crate) fn has(&self, name: &str, addresses: &[&str]) {
        let records = addresses.iter().map(|ip| RData::A(A(ip.parse().expect("an IPv4 address"))));
        self.says(name, Says::Records(records.collect()));
    }

    /// From now on the service has these places: priority, weight, port, target.
    pub(crate) fn serves(&self, service: &str, places: &[(u16, u16, u16, &str)]) {
        let records = places.iter().map(|&(priority, weight, port, target)| {
            RData::SRV(SRV::new(priority, weight, port, Name::from_ascii(target).expect("a name")))
        });
        self.says(service, Says::Records(records.collect()));
    }

    /// From now on it cannot tell.
    pub(crate) fn fails(&self, name: &str) {
        self.says(name, Says::Code(ResponseCode::ServFail));
    }

    fn says(&self, name: &str, says: Says) {
        self.zone.lock().unwrap().insert(format!("{name}."), says);
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        if let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) {
            let _ = socket.send_to(&[], self.address);
        }
    }
}
