//! What is asked of DNS, against a real name server on the loopback, which changes its answers, errs and keeps silent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::ask::{Answer, Asker, Place};
use super::asking::Asking;
use super::follow::{Asked, Follower, LastList};
use super::names::Names;
use super::source::{Fault, Given, Source};
use super::{Config, load};
use crate::keep::Keep;
use crate::upstream::server::Server;

/// What a name server says of one kind of record of a name.
#[derive(Clone, Debug)]
enum Says {
    /// These, each with this time to live.
    Records(u32, Vec<RData>),
    /// There is the name, but nothing of this kind.
    Nothing,
    /// An error.
    Code(ResponseCode),
    /// Nothing at all.
    Silence,
}

type Zone = BTreeMap<(String, RecordType), Says>;

/// A name server on the loopback. It stops when dropped.
struct NameServer {
    at: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    asked: Arc<Mutex<Vec<(String, RecordType)>>>,
    task: JoinHandle<()>,
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl NameServer {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = socket.local_addr().unwrap();
        let (zone, asked) = <(Arc<Mutex<Zone>>, Arc<Mutex<Vec<_>>>)>::default();
        let (zone_read, asked_noted) = (Arc::clone(&zone), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let query = Message::from_vec(&buffer[..length]).unwrap();
                let question = query.queries[0].clone();
                let key = (question.name().to_ascii().to_ascii_lowercase(), question.query_type());
                asked_noted.lock().unwrap().push(key.clone());
                let says = zone_read.lock().unwrap().get(&key).cloned();
                let mut answer = query.into_response();
                match says.unwrap_or(Says::Code(ResponseCode::NXDomain)) {
                    Says::Silence => continue,
                    Says::Nothing => {}
                    Says::Code(code) => answer.metadata.response_code = code,
                    Says::Records(ttl, records) => {
                        let record = |data| Record::from_rdata(question.name().clone(), ttl, data);
                        answer.add_answers(records.into_iter().map(record));
                    }
                }
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        Self { at, zone, asked, task }
    }

    fn says(&self, name: &str, kind: RecordType, says: Says) {
        self.zone.lock().unwrap().insert((name.to_owned(), kind), says);
    }

    /// The A records of a name; it has no AAAA.
    fn has(&self, name: &str, ttl: u32, addresses: &[&str]) {
        self.says(name, RecordType::A, Says::Records(ttl, addresses.iter().map(|address| a(address)).collect()));
        self.says(name, RecordType::AAAA, Says::Nothing);
    }

    fn fails(&self, name: &str, how: &Says) {
        for kind in [RecordType::A, RecordType::AAAA, RecordType::SRV] {
            self.says(name, kind, how.clone());
        }
    }

    fn times_asked(&self, name: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|(asked, _)| asked == name).count()
    }

    fn asker(&self) -> Asker {
        Asker::new(&[self.at])
    }

    fn asking(&self) -> Asking {
        Asking { servers: vec![self.at], min_ttl: Duration::from_millis(100), ..Asking::default() }
    }
}

fn a(address: &str) -> RData {
    match address.parse().unwrap() {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, weight, port, Name::from_ascii(target).unwrap()))
}

fn ips(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

const WAIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_name_has_the_addresses_of_both_families_and_the_least_time_to_live() {
    let dns = NameServer::start().await;
    dns.has("app.internal.", 30, &["10.0.0.2", "10.0.0.1"]);
    dns.says("app.internal.", RecordType::AAAA, Says::Records(7, vec![a("fd00::1")]));
    dns.says("six.internal.", RecordType::A, Says::Nothing);
    dns.says("six.internal.", RecordType::AAAA, Says::Records(5, vec![a("fd00::6")]));
    let asker = dns.asker();
    for (name, found, ttl) in [
        ("app.internal", &["10.0.0.2", "10.0.0.1", "fd00::1"][..], 7),
        ("app.internal.", &["10.0.0.2", "10.0.0.1", "fd00::1"], 7),
        ("six.internal", &["fd00::6"], 5),
    ] {
        let answer = asker.addresses(name, &[]).await.unwrap();
        assert_eq!(answer, Answer { found: ips(found), ttl: Duration::from_secs(ttl) }, "{name}");
    }
}

#[tokio::test]
async fn why_there_is_no_answer_is_told() {
    let dns = NameServer::start().await;
    dns.fails("nothing.internal.", &Says::Nothing);
    dns.fails("broken.internal.", &Says::Code(ResponseCode::ServFail));
    let asker = dns.asker();
    for (name, reason) in [
        ("unknown.internal", "DNS knows no such name"),
        ("nothing.internal", "it has no address"),
        ("broken.internal", "server failure"),
    ] {
        let told = asker.addresses(name, &[]).await.unwrap_err();
        assert!(told.contains(reason), "{name}: {told}");
    }
    let told = asker.places("unknown.internal").await.unwrap_err();
    assert_eq!(told, "DNS knows no such name");
    let told = asker.places("nothing.internal").await.unwrap_err();
    assert_eq!(told, "DNS has no SRV record of it");
}

#[tokio::test]
async fn a_name_server_that_keeps_silent_is_given_up() {
    let dns = NameServer::start().await;
    dns.fails("silent.internal.", &Says::Silence);
    let told = timeout(WAIT, dns.asker().addresses("silent.internal", &[])).await.unwrap().unwrap_err();
    assert!(told.contains("did not answer"), "{told}");
}

#[tokio::test]
async fn addresses_of_a_family_that_cannot_be_asked_for_are_kept() {
    let dns = NameServer::start().await;
    dns.has("app.internal.", 30, &["10.0.0.2"]);
    dns.says("app.internal.", RecordType::AAAA, Says::Code(ResponseCode::ServFail));
    let known = ips(&["10.0.0.1", "fd00::1"]);
    let answer = dns.asker().addresses("app.internal", &known).await.unwrap();
    assert_eq!(answer.found, ips(&["10.0.0.2", "fd00::1"]));
    dns.says("app.internal.", RecordType::AAAA, Says::Nothing);
    let answer = dns.asker().addresses("app.internal", &known).await.unwrap();
    assert_eq!(answer.found, ips(&["10.0.0.2"]));
}

#[tokio::test]
async fn a_service_has_places_with_weights_and_priorities() {
    let dns = NameServer::start().await;
    let records = vec![srv(10, 3, 8080, "A.internal."), srv(20, 0, 8081, "b.internal.")];
    dns.says("_http._tcp.app.internal.", RecordType::SRV, Says::Records(9, records));
    let answer = dns.asker().places("_http._tcp.app.internal").await.unwrap();
    assert_eq!(answer.ttl, Duration::from_secs(9));
    let place = |priority, weight, port, target: &str| Place { priority, weight, port, target: target.to_owned() };
    assert_eq!(answer.found, [place(10, 3, 8080, "a.internal."), place(20, 0, 8081, "b.internal.")]);
}

#[tokio::test]
async fn the_srv_source_makes_servers_of_places() {
    let dns = NameServer::start().await;
    let yaml = format!("srv: {{ name: _http._tcp.app.internal, resolver: '{}' }}", dns.at);
    let config: Config = serde_yaml::from_str(&yaml).unwrap();
    let mut source = config.build(&Given { folder: Path::new(""), client: &Arc::default() });
    let service = |records| dns.says("_http._tcp.app.internal.", RecordType::SRV, Says::Records(2, records));
    service(vec![srv(20, 1, 81, "b.internal."), srv(10, 0, 80, "a.internal."), srv(30, 5, 80, "A.internal.")]);
    let told = source.ask().await.unwrap();
    assert_eq!(told.again, Duration::from_secs(2));
    let servers = told.servers.unwrap();
    let servers: Vec<_> = servers.iter().map(|Server { settings: s, .. }| (&*s.address, s.weight, s.tier())).collect();
    assert_eq!(servers, [("a.internal.:80", 1, 10), ("b.internal.:81", 1, 20)]);
    service(vec![srv(0, 0, 0, ".")]);
    assert!(source.ask().await.unwrap_err().reason().contains("not offered"));
    service(vec![srv(0, 0, 0, "a.internal.")]);
    assert!(matches!(source.ask().await, Err(Fault::Refused(reason)) if reason.contains("port 0")));
}

#[tokio::test]
async fn a_name_is_asked_for_again_when_its_time_to_live_is_over_and_not_before() {
    let dns = NameServer::start().await;
    dns.has("app.internal.", 0, &["10.0.0.1"]);
    dns.has("long.internal.", 3600, &["10.0.0.9"]);
    let mut names = Names::new(dns.asking(), Arc::default());
    let wanted = set(&["app.internal", "long.internal"]);
    names.refresh(&wanted).await;
    assert_eq!(names.refresh(&wanted).await.asked, 0);
    dns.has("app.internal.", 60, &["10.0.0.2", "10.0.0.1"]);
    sleep_until(names.due().unwrap()).await;
    assert_eq!(names.refresh(&wanted).await.asked, 1);
    assert_eq!(names.addresses()["app.internal"], ips(&["10.0.0.1", "10.0.0.2"]));
    assert_eq!(dns.times_asked("long.internal."), 2, "one A, one AAAA");
    // 3600 s are held to 5 minutes, 60 s are as they are.
    let left = names.due().unwrap() - Instant::now();
    assert!(left > Duration::from_secs(50) && left <= Duration::from_secs(60), "{left:?}");
}

#[tokio::test]
async fn a_name_that_fails_keeps_its_addresses_and_is_asked_for_again() {
    let dns = NameServer::start().await;
    let keep = Arc::new(Keep::default());
    dns.has("app.internal.", 0, &["10.0.0.1"]);
    let mut names = Names::new(dns.asking(), Arc::clone(&keep));
    let wanted = set(&["app.internal"]);
    names.refresh(&wanted).await;
    for how in [Says::Code(ResponseCode::NXDomain), Says::Nothing, Says::Code(ResponseCode::ServFail)] {
        dns.fails("app.internal.", &how);
        sleep_until(names.due().unwrap()).await;
        let tally = names.refresh(&wanted).await;
        assert_eq!((tally.asked, tally.failed), (1, 1));
        assert_eq!(names.addresses()["app.internal"], ips(&["10.0.0.1"]));
        assert_eq!(names.faults().count(), 1);
    }
    // After a reload, too, as long as somebody held it.
    let mut after = Names::new(dns.asking(), keep);
    after.resume(&wanted);
    assert_eq!(after.addresses()["app.internal"], ips(&["10.0.0.1"]));
    dns.has("app.internal.", 0, &["10.0.0.2"]);
    sleep_until(names.due().unwrap()).await;
    names.refresh(&wanted).await;
    assert_eq!(names.faults().count(), 0);
    assert_eq!(names.addresses()["app.internal"], ips(&["10.0.0.2"]));
}

/// A list that the test sets.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Option<Vec<Server>>>>);

impl Told {
    fn tells(&self, addresses: &[&str]) {
        let servers = addresses.iter().map(|&address| Server::at(address)).collect();
        *self.0.lock().unwrap() = Some(servers);
    }
}

#[async_trait::async_trait]
impl Source for Told {
    async fn ask(&mut self) -> Result<super::source::Told, Fault> {
        let servers = self.0.lock().unwrap().take();
        Ok(super::source::Told { servers, again: self.pause(1) })
    }

    fn pause(&self, _: u32) -> Duration {
        Duration::from_millis(50)
    }
}

#[tokio::test]
async fn a_list_with_a_name_that_nobody_knows_waits_and_the_old_one_stays() {
    let dns = NameServer::start().await;
    dns.has("a.internal.", 3600, &["10.0.0.1"]);
    let (told, last) = (Told::default(), Arc::<LastList>::default());
    let asked = Asked { source: Box::new(told.clone()), asking: dns.asking(), last };
    let mut follower = Follower::new(BTreeSet::new(), Asking::default(), Some(asked), &Arc::default());
    told.tells(&["a.internal:80", "10.9.9.9:80"]);
    follower.round().await;
    let before = follower.roster();
    assert_eq!(before.servers.len(), 2);
    assert_eq!(before.addresses["a.internal"], ips(&["10.0.0.1"]));
    assert!(follower.trouble().is_none());

    told.tells(&["a.internal:80", "b.internal:80"]);
    for _ in 0..2 {
        sleep_until(follower.due().unwrap()).await;
        follower.round().await;
        assert_eq!(follower.roster().servers, before.servers);
        let trouble = follower.trouble().unwrap();
        assert_eq!(trouble, Fault::Failed("no host is known by the name `b.internal` (DNS knows no such name)".into()));
    }

    dns.has("b.internal.", 3600, &["10.0.0.2"]);
    let end = Instant::now() + WAIT;
    while follower.roster().servers == before.servers {
        assert!(Instant::now() < end, "the list is never taken");
        sleep_until(follower.due().unwrap()).await;
        follower.round().await;
    }
    let after = follower.roster();
    assert_eq!(after.servers.len(), 2);
    assert_eq!(after.addresses["b.internal"], ips(&["10.0.0.2"]));
    assert!(follower.trouble().is_none());
}

#[tokio::test]
async fn a_name_that_the_document_lists_gets_new_addresses() {
    let dns = NameServer::start().await;
    dns.has("app.internal.", 0, &["10.0.0.1"]);
    let mut follower = Follower::new(set(&["app.internal"]), dns.asking(), None, &Arc::default());
    let mut next = async || {
        sleep_until(follower.due().unwrap_or_else(Instant::now)).await;
        follower.round().await;
        (follower.roster().listed["app.internal"].clone(), follower.trouble().is_some())
    };
    assert_eq!(next().await, (ips(&["10.0.0.1"]), false));
    dns.fails("app.internal.", &Says::Code(ResponseCode::NXDomain));
    assert_eq!(next().await, (ips(&["10.0.0.1"]), true));
    dns.has("app.internal.", 0, &["10.0.0.2"]);
    assert_eq!(next().await, (ips(&["10.0.0.2"]), false));
}

#[tokio::test]
async fn a_reload_finds_the_last_list_while_its_source_is_down() {
    let dns = NameServer::start().await;
    dns.has("app.internal.", 0, &["10.0.0.1", "10.0.0.2"]);
    let yaml = format!("dns: {{ name: app.internal, port: 80, weight: 3, resolver: '{}' }}", dns.at);
    let config: Config = serde_yaml::from_str(&yaml).unwrap();
    let keep = Arc::new(Keep::default());
    let ask = || {
        let (config, keep) = (config.clone(), Arc::clone(&keep));
        let identity = config.identity(Path::new(""));
        tokio::task::spawn_blocking(move || {
            load::begin([&config], Path::new(""), &keep, WAIT).end().remove(&identity).unwrap()
        })
    };
    let first = ask().await.unwrap();
    assert_eq!(first.fault, None);
    assert_eq!((first.servers[0].settings.address.as_str(), first.servers[0].settings.weight), ("app.internal:80", 3));
    assert_eq!(first.addresses["app.internal"], ips(&["10.0.0.1", "10.0.0.2"]));

    dns.fails("app.internal.", &Says::Code(ResponseCode::ServFail));
    let second = ask().await.unwrap();
    assert!(second.fault.unwrap().reason().contains("`app.internal` cannot be resolved"));
    assert_eq!((second.servers, second.addresses), (first.servers, first.addresses));
    drop((first.last, second.last));

    let third = ask().await.unwrap();
    assert!(third.fault.is_some() && third.servers.is_empty());
}
