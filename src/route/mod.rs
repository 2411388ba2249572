//! Which request goes where: sites (hosts) and their routes, as written and as compiled.
//!
//! [`table`] chooses the route; a [`Route`] holds all that happens to a request on it: filters, header changes, rewrite,
//! and exactly one action.

mod branches;
pub mod cache;
pub mod condition;
mod context;
mod entry;
pub mod host;
pub mod mirror;
pub mod normalize;
mod overlap;
pub mod path;
pub mod path_tree;
pub mod predicate;
pub mod split;
pub mod table;
pub mod target;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::action::{ErrorPages, Redirect, Respond, Rewrite, error_pages, redirect, respond, rewrite};
use crate::diag::{Issues, Scope};
use crate::filter::headers::{self, HeaderOps};
use crate::filter::{self, BuildContext, Chain};
use crate::observe::RouteStats;
use crate::units::OneOrMany;
use crate::upstream::retry::{self, Retry};

use cache::Cached;
pub use context::{Context, InPlace};
use host::{HostPattern, Hosts};
use mirror::Mirror;
use predicate::Match;
use table::{Table, TableBuilder, capture_names};
use target::Target;

/// One site: the hosts it answers for, and what happens to requests for them.
///
/// Either `routes`, or one action directly; then it is one route that takes all of the site's requests.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SiteConfig {
    /// The hosts: exact (`example.com`), or a wildcard for everything below (`*.example.com`). None: the default site,
    /// which takes the requests for all hosts that no other site names. The most exact host wins.
    pub hosts: OneOrMany<String>,
    /// Filters for all routes of the site, in the order of running, before those of the route.
    pub filters: Vec<filter::Config>,
    /// Header changes for all routes of the site, before those of the route.
    pub headers: Option<headers::Config>,
    /// Whether responses are cached, for all routes of the site that forward requests and do not say otherwise.
    pub cache: Option<cache::Config>,
    /// Own error pages, by status. They replace the gateway's own replies only, never those of an upstream.
    pub errors: error_pages::Config,
    /// The routes. The most exact one wins, whatever their order.
    pub routes: Option<Vec<RouteConfig>>,
    /// Action: where requests go. Short for one route that takes all.
    pub proxy: Option<target::ProxyConfig>,
    /// Action: where requests go, by weight. Short for one route that takes all.
    pub split: Option<split::SplitConfig>,
    /// Action: the answer is another address. Short for one route that takes all.
    pub redirect: Option<redirect::Config>,
    /// Action: a fixed answer. Short for one route that takes all.
    pub respond: Option<respond::Config>,
}

/// One route of a site: which requests it takes, what is done to them, and exactly one action.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteConfig {
    /// Its name in logs, metrics and `explain`. Default: the text of its match.
    pub name: Option<String>,
    /// Which requests it takes. Default: all of the site.
    #[serde(rename = "match")]
    pub matches: Match,
    /// Goes before all routes of a lower priority, however exact. Default: 0.
    pub priority: i32,
    /// Its filters, in the order of running, after those of the site.
    pub filters: Vec<filter::Config>,
    /// Whether responses are cached: `true`, `false`, the name of a zone, or how. Default: as the site says, else `false`.
    pub cache: Option<cache::Config>,
    /// Header changes, after those of the site.
    pub headers: Option<headers::Config>,
    /// Own error pages, before those of the site.
    pub errors: error_pages::Config,
    /// Changes the path that the upstream sees.
    pub rewrite: Option<rewrite::Config>,
    /// Forwards the path as the client sent it instead of the normalised one that was matched. Default: false. With
    /// true, the backend may read the path otherwise than the rules did.
    pub raw_path: bool,
    /// Overrides the upstream's `retry`.
    pub retry: Option<retry::Config>,
    /// Copies a share of the requests to another upstream, whose answers nobody gets.
    pub mirror: Option<mirror::Config>,
    /// Action: where requests go: the name of an upstream, an address, a list of addresses, or an upstream in place.
    pub proxy: Option<target::ProxyConfig>,
    /// Action: where requests go, by weight.
    pub split: Option<split::SplitConfig>,
    /// Action: the answer is another address.
    pub redirect: Option<redirect::Config>,
    /// Action: a fixed answer.
    pub respond: Option<respond::Config>,
}

/// What a route does in the end.
pub enum Action {
    /// Asks a backend.
    Proxy(Target),
    /// Sends the client elsewhere.
    Redirect(Redirect),
    /// Answers by itself.
    Respond(Respond),
}

/// A route, compiled.
pub struct Route {
    /// Its name, for logs and metrics.
    pub name: Box<str>,
    /// The site's first host, for metrics; `*` for the default site.
    pub site: Box<str>,
    /// The filters of site and route.
    pub filters: Chain,
    /// The header changes of site and route, in this order, that change requests.
    pub request_headers: Box<[HeaderOps]>,
    /// Those that change responses.
    pub response_headers: Box<[HeaderOps]>,
    /// The error pages of route and site.
    pub errors: ErrorPages,
    /// Changes the path that the upstream sees.
    pub rewrite: Option<Rewrite>,
    /// Whether the path goes on as it was sent.
    pub raw_path: bool,
    /// How often other backends are tried, if other than the upstream says.
    pub retry: Option<Retry>,
    /// Who gets copies of its requests.
    pub mirror: Option<Arc<Mirror>>,
    /// How responses are cached; `None`: they are not.
    pub cache: Option<Arc<Cached>>,
    /// What it does in the end.
    pub action: Action,
    /// What is counted of it.
    pub stats: Arc<RouteStats>,
}

/// All routes of a document, and the table that chooses among them.
pub struct Routes {
    /// Chooses a route by its position in `routes`.
    pub table: Table<u32>,
    /// The routes.
    pub routes: Vec<Route>,
    /// Where no route is known: the sites, by host.
    hosts: Hosts,
    sites: Vec<Option<Box<Site>>>,
}

/// What holds for the requests of a site that none of its routes takes.
pub struct Site {
    /// The error pages.
    pub errors: ErrorPages,
    /// The header changes.
    pub headers: Option<HeaderOps>,
}

impl Routes {
    /// The site that has this host. Where several share it, the first.
    pub fn site(&self, host: &str) -> Option<&Site> {
        self.sites.get(self.hosts.find(host)? as usize)?.as_deref()
    }
}

/// Compiles all sites.
pub fn build(sites: &[SiteConfig], context: &mut Context<'_>, issues: &Issues) -> Routes {
    let root = issues.root();
    let at = root.key("sites");
    let mut table = TableBuilder::new();
    let mut built = Built::default();
    let mut hosts = Hosts::default();
    // Several sites may share a host: the first of them counts where no route does, so the others are entered before.
    for (index, site) in sites.iter().enumerate().rev() {
        for host in HostPattern::parse_all(&site.hosts, &Issues::default().root()) {
            hosts.insert(&host, u32::try_from(index).unwrap_or(u32::MAX));
        }
    }
    for (index, site) in sites.iter().enumerate() {
        site.build(context, &mut table, &mut built, &at.index(index));
    }
    Routes { table: table.build(issues), routes: built.routes, hosts, sites: built.sites }
}

/// What compiling the sites one by one adds up to.
#[derive(Default)]
struct Built {
    routes: Vec<Route>,
    sites: Vec<Option<Box<Site>>>,
}

/// What the routes of one site share.
struct Shared {
    label: Box<str>,
    filters: Chain,
    headers: Option<HeaderOps>,
    errors: ErrorPages,
    cache: Option<cache::Config>,
}

impl SiteConfig {
    fn build(&self, context: &mut Context<'_>, table: &mut TableBuilder<u32>, built: &mut Built, at: &Scope<'_>) {
        let hosts = HostPattern::parse_all(&self.hosts, &at.key("hosts"));
        let shared = self.build_shared(context, at);
        // Most sites have neither, and there may be many.
        let own = shared.headers.is_some() || !self.errors.is_empty();
        built
            .sites
            .push(own.then(|| Box::new(Site { errors: shared.errors.clone(), headers: shared.headers.clone() })));
        let short = self.short_route();
        let list: &[RouteConfig] = match (&self.routes, &short) {
            (Some(_), Some(_)) => {
                return at.error_hint(
                    "a site has either `routes` or one action directly, not both",
                    "move the action into `routes`, as a route of its own",
                );
            }
            (None, None) => {
                return at.error_hint(
                    "the site has neither `routes` nor an action",
                    "say where its requests go, as in `proxy: 127.0.0.1:3000`",
                );
            }
            (Some(routes), None) if routes.is_empty() => {
                return at
                    .key("routes")
                    .error_hint("the site has no route", "add one, or give the site an action directly");
            }
            (Some(routes), None) => routes,
            (None, Some(short)) => std::slice::from_ref(short),
        };
        if shared.cache.is_some() && !list.iter().any(RouteConfig::is_forwarded) {
            at.key("cache")
                .warn("nothing is forwarded on this site", "only answers of an upstream are cached; remove it");
        }
        for (position, route) in list.iter().enumerate() {
            let in_list = at.key("routes");
            let item = in_list.index(position);
            let place = if short.is_some() { at } else { &item };
            // A route with faults of its own still stands in the table, so that its overlaps with others are told too.
            let name = route.label();
            let index = u32::try_from(built.routes.len()).unwrap_or(u32::MAX);
            table.add(&hosts, &route.matches, route.priority, &name, index, place);
            built.routes.extend(route.build(&name, &shared, context, place));
        }
    }

    fn build_shared(&self, context: &mut Context<'_>, at: &Scope<'_>) -> Shared {
        let label: Box<str> = self.hosts.first().map_or("*", String::as_str).into();
        let owner = RouteStats::key(&label, "");
        let build = BuildContext { captures: &[], keep: context.keep, owner: &owner };
        Shared {
            filters: Chain::build(&self.filters, &build, &at.key("filters")),
            headers: self.headers.as_ref().and_then(|config| HeaderOps::build(config, &[], &at.key("headers"))),
            errors: ErrorPages::build(&self.errors, context.folder, &at.key("errors")).unwrap_or_default(),
            cache: self.cache.as_ref().and_then(|config| cache::check_site(config, context, &at.key("cache"))),
            label,
        }
    }

    /// The one route of a site that has an action directly.
    fn short_route(&self) -> Option<RouteConfig> {
        let route = RouteConfig {
            proxy: self.proxy.clone(),
            split: self.split.clone(),
            redirect: self.redirect.clone(),
            respond: self.respond.clone(),
            ..RouteConfig::default()
        };
        (!route.actions().is_empty()).then_some(route)
    }
}

impl RouteConfig {
    /// The actions that are written, by their keys.
    fn actions(&self) -> Vec<&'static str> {
        [
            ("proxy", self.proxy.is_some()),
            ("split", self.split.is_some()),
            ("redirect", self.redirect.is_some()),
            ("respond", self.respond.is_some()),
        ]
        .into_iter()
        .filter_map(|(key, written)| written.then_some(key))
        .collect()
    }

    /// Whether its requests go to an upstream.
    fn is_forwarded(&self) -> bool {
        self.proxy.is_some() || self.split.is_some()
    }

    /// Its name, or else what tells it from others: methods and paths.
    fn label(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let matches = &self.matches;
        let paths: Vec<&str> = matches.path.iter().chain(&*matches.path_regex).map(String::as_str).collect();
        let path = if paths.is_empty() { "/*".to_owned() } else { paths.join(",") };
        if matches.method.is_empty() { path } else { format!("{} {path}", matches.method.join("|")) }
    }

    fn build(&self, name: &str, shared: &Shared, context: &mut Context<'_>, at: &Scope<'_>) -> Option<Route> {
        let captures = capture_names(&self.matches);
        let key = RouteStats::key(&shared.label, name);
        let build = BuildContext { captures: &captures, keep: context.keep, owner: &key };
        let filters = shared.filters.then(&Chain::build(&self.filters, &build, &at.key("filters")));
        let own = self.headers.as_ref().and_then(|config| HeaderOps::build(config, &captures, &at.key("headers")));
        let headers = shared.headers.iter().cloned().chain(own);
        let errors = ErrorPages::build(&self.errors, context.folder, &at.key("errors")).unwrap_or_default();
        let rewrite = self.rewrite.as_ref().and_then(|config| Rewrite::build(config, &captures, &at.key("rewrite")));
        let retry = self.retry.as_ref().and_then(|config| config.build(&at.key("retry")));
        let mirror =
            self.mirror.as_ref().and_then(|config| config.build(&key, context, &at.key("mirror")).map(Arc::new));
        let of = cache::Of {
            key: &key,
            captures: &captures,
            matches: &self.matches,
            raw_path: self.raw_path,
            is_forwarded: self.is_forwarded(),
        };
        let cache = cache::build(self.cache.as_ref(), shared.cache.as_ref(), &of, context, at);
        let action = self.build_action(context, &captures, at)?;
        if self.rewrite.is_some() && !matches!(action, Action::Proxy(_)) {
            at.key("rewrite")
                .warn("nothing is forwarded on this route", "a rewrite changes only what an upstream sees; remove it");
        }
        if self.mirror.is_some() && !matches!(action, Action::Proxy(_)) {
            at.key("mirror")
                .warn("nothing is forwarded on this route", "only what is forwarded is copied to a mirror; remove it");
        }
        Some(Route {
            request_headers: headers.clone().filter(|ops| !ops.spares_requests()).collect(),
            response_headers: headers.filter(|ops| !ops.spares_responses()).collect(),
            errors: errors.over(&shared.errors),
            stats: context.keep.get_or(&key, RouteStats::default),
            site: shared.label.clone(),
            name: name.into(),
            raw_path: self.raw_path,
            filters,
            rewrite,
            retry,
            mirror,
            cache: cache.filter(|_| matches!(action, Action::Proxy(_))),
            action,
        })
    }

    fn build_action(&self, context: &mut Context<'_>, captures: &[Box<str>], at: &Scope<'_>) -> Option<Action> {
        match *self.actions() {
            [_] => {}
            [] => {
                at.error_hint("the route has no action", "give it one of `proxy`, `split`, `redirect`, `respond`");
                return None;
            }
            [first, second, ..] => {
                at.key(second).error_key(
                    format!("a route has exactly one action, and this one has `{first}` and `{second}`"),
                    Some("make two routes of it, or use `split` to share requests among upstreams".into()),
                );
                return None;
            }
        }
        if let Some(config) = &self.proxy {
            return config.build(context, &at.key("proxy")).map(Action::Proxy);
        }
        if let Some(config) = &self.split {
            return config.build(context, &at.key("split")).map(Action::Proxy);
        }
        if let Some(config) = &self.redirect {
            return Redirect::build(config, captures, &at.key("redirect")).map(Action::Redirect);
        }
        let config = self.respond.as_ref()?;
        Respond::build(config, captures, &at.key("respond")).map(Action::Respond)
    }
}
