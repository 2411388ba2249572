//! `edgeway explain`: which way a request would take through the document, and why.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use http::{Method, Uri, Version};
use pingora::http::RequestHeader;

use crate::cache::Id;
use crate::exchange::{Exchange, Scheme};
use crate::gateway;
use crate::proxy::understand;
use crate::route::{Action, Route};
use crate::upstream::Explained;

/// A request that nobody sends.
#[derive(Args)]
pub(super) struct Request {
    /// The document
    file: PathBuf,
    /// The method, as in GET
    method: String,
    /// The URL, as in http://example.com/shop?item=7
    url: String,
    /// A header field, as in `-H 'Cookie: beta=yes'`; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The address of the client
    #[arg(long, default_value = "127.0.0.1")]
    client: std::net::IpAddr,
}

pub(super) fn explain(request: &Request) -> Result<(), String> {
    let checked = gateway::check(&request.file, super::terminal::colour())?;
    let head = request.head()?;
    let mut exchange = request.exchange(&head)?;
    let snapshot = &checked.compiled.snapshot;
    let mut told = format!("{} {} (host {})\n", head.method, exchange.path(&head), exchange.host);
    if exchange.normal_path.is_some() {
        let _ = writeln!(told, "  the path was sent as {}", head.uri.path());
    }
    let found = snapshot.routes.table.find(&head, &mut exchange).copied();
    match found.and_then(|index| snapshot.route(index)) {
        Some(route) => tell_route(&mut told, route, &head, &mut exchange)?,
        None => told.push_str("no route takes it: the answer is 404\n"),
    }
    let explanation = snapshot.routes.table.explain(&head, &exchange);
    let _ = writeln!(told, "\n{}", explanation.host);
    if !explanation.routes.is_empty() {
        told.push_str("its routes, in the order of precedence:\n");
    }
    let name = width(explanation.routes.iter().map(|verdict| &*verdict.route));
    let path = width(explanation.routes.iter().map(|verdict| &*verdict.path));
    for verdict in &explanation.routes {
        let _ = writeln!(told, "  {:<name$}  {:<path$}  {}", verdict.route, verdict.path, verdict.outcome);
    }
    super::terminal::print(&told)
}

/// The width of a column that holds these; single long ones may stand out of it.
fn width<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    texts.map(|text| text.chars().count()).max().unwrap_or(0).min(40)
}

impl Request {
    fn head(&self) -> Result<RequestHeader, String> {
        let method =
            Method::from_bytes(self.method.as_bytes()).map_err(|_| format!("error: `{}` is no method", self.method))?;
        let uri: Uri = self.url.parse().map_err(|error| format!("error: `{}` is no URL: {error}", self.url))?;
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let mut head =
            RequestHeader::build(method, target.as_bytes(), None).map_err(|error| format!("error: {error}"))?;
        let fault = |field: &str| format!("error: `{field}` is no header field; write it as `Name: value`");
        for field in &self.headers {
            let (name, value) = field.split_once(':').ok_or_else(|| fault(field))?;
            head.append_header(name.trim().to_owned(), value.trim()).map_err(|_| fault(field))?;
        }
        if let (Some(authority), false) = (uri.authority(), head.headers.contains_key("host")) {
            head.insert_header("host", authority.as_str()).map_err(|error| format!("error: {error}"))?;
        }
        if !head.headers.contains_key("host") {
            // Nobody else may ask without a host.
            head.set_version(Version::HTTP_10);
        }
        Ok(head)
    }

    fn exchange(&self, head: &RequestHeader) -> Result<Exchange, String> {
        let mut exchange = Exchange::new();
        exchange.client = self.client;
        exchange.peer = self.client;
        if self.url.starts_with("https:") {
            exchange.scheme = Scheme::Https;
        }
        if head.headers.get("host").is_none() {
            let mend = "write a whole URL, as in `http://example.com/`, or add `-H 'Host: example.com'`";
            return Err(format!("error: the request names no host: the answer is 400\nhint: {mend}"));
        }
        understand(head, &mut exchange)
            .map_err(|status| format!("error: this is refused before any route is asked: the answer is {status}"))?;
        Ok(exchange)
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

fn tell_route(told: &mut String, route: &Route, head: &RequestHeader, exchange: &mut Exchange) -> Result<(), String> {
    let _ = writeln!(told, "route     {} (site {})", route.name, route.site);
    let mut seen = head.clone();
    // Filters may need I/O in general; asking a small runtime keeps this command honest about their verdict.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let names: Vec<&str> = route.filters.names().collect();
    let refusal = runtime.block_on(route.filters.request(&mut seen, exchange, &route.name));
    let _ = writeln!(told, "filters   {}", or_none(&names.join(", ")));
    if let Some(reply) = refusal {
        let _ = writeln!(told, "answer    {} (by a filter)", reply.status);
        return Ok(());
    }
    let facts = crate::exchange::Facts {
        request: head,
        exchange,
        response: None,
        route: &route.name,
        upstream: "",
        backend: "",
    };
    match &route.action {
        Action::Redirect(redirect) => tell_reply(told, "redirect", &redirect.reply(&facts)),
        Action::Respond(respond) => tell_reply(told, "respond", &respond.reply(&facts)),
        Action::Proxy(target) => {
            let path = exchange.path(head);
            tell_cache(told, route, head, &facts);
            let rewritten = route.rewrite.as_ref().map(|rewrite| rewrite.apply(path, &facts));
            let _ = writeln!(told, "rewrite   {}", rewritten.as_deref().unwrap_or("none"));
            let total: u32 = target.shares().map(|(weight, _)| weight).sum();
            for (weight, upstream) in target.shares() {
                let share = if weight == total { String::new() } else { format!(" (weight {weight} of {total})") };
                let _ = writeln!(told, "upstream  {}{share}", upstream.name());
                let backend = match upstream.explain(&facts) {
                    Some(picked) => format!("{}{}", picked.label, reason(&picked)),
                    None => "none is left".to_owned(),
                };
                let _ = writeln!(told, "backend   {backend}");
            }
            if let Some(mirror) = &route.mirror {
                let _ = writeln!(told, "mirror    {} (gets copies of {})", mirror.upstream.name(), mirror.share);
            }
        }
    }
    Ok(())
}

/// Where the response is looked up, and by what.
fn tell_cache(told: &mut String, route: &Route, head: &RequestHeader, facts: &crate::exchange::Facts<'_>) {
    let Some(cached) = &route.cache else { return };
    let caching = &cached.caching;
    if let Err(why) = cached.admits(head, facts.exchange) {
        let _ = writeln!(told, "cache     {} (the request is not looked up)", why.as_str());
        return;
    }
    let mut key = Vec::new();
    caching.key.write(facts, &mut key);
    let not = if cached.may_store(head, facts.exchange) { "" } else { " (nothing is stored)" };
    let _ = writeln!(told, "cache     {}, as {}{not}", caching.zone.name(), caching.key.url(facts));
    let _ = writeln!(told, "  key     {} ({})", Id::of(&key), caching.key.describe());
}

/// Why this backend, and how many of how many it was chosen from, where there was a choice.
fn reason(picked: &Explained) -> String {
    match (picked.candidates, picked.backends) {
        (0, _) => format!(" ({})", picked.why),
        (1, 1) => String::new(),
        (1, all) => format!(" (the only one of {all} that takes requests)"),
        (candidates, all) if candidates == all => format!(" (one of {all}: {})", picked.why),
        (candidates, all) => format!(" (one of {candidates} that take requests, of {all}: {})", picked.why),
    }
}

fn tell_reply(told: &mut String, kind: &str, reply: &crate::reply::Reply) {
    let location = reply.headers.iter().find(|(name, _)| *name == http::header::LOCATION);
    let location =
        location.map_or_else(String::new, |(_, value)| format!(" {}", String::from_utf8_lossy(value.as_bytes())));
    let _ = writeln!(told, "answer    {} ({kind}){location}", reply.status);
}
