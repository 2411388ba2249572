//! `Config` to `Snapshot`: builds each part, resolves the names between them, collects every fault.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderValue;

use super::snapshot::Snapshot;
use crate::cache::Zone;
use crate::cache::config::ZoneConfig;
use crate::config::Config;
use crate::config::process::Admin;
use crate::diag::{Issues, Scope};
use crate::forwarded::Forwarded;
use crate::keep::Keep;
use crate::listen;
use crate::observe::{Level, ProcessStats};
use crate::route::{self, Routes};
use crate::upstream::{self, Resolved, Resolver, Upstream, discover};

/// What compiling needs beside the document.
pub struct Environment<'a> {
    /// Which document of this process it is.
    pub generation: u64,
    /// Where relative paths of files begin.
    pub folder: &'a Path,
    /// What outlives a reload.
    pub keep: &'a Arc<Keep>,
    /// What is counted of the process.
    pub stats: &'a Arc<ProcessStats>,
}

/// A document, compiled.
pub struct Compiled {
    /// What requests need.
    pub snapshot: Snapshot,
    /// The limits of connections.
    pub limits: listen::Limits,
    /// How much the gateway tells of itself.
    pub level: Level,
}

/// Compiles a document. All faults go to `issues`; the result is of use only if none of them is an error.
pub(super) fn compile(config: &Config, environment: &Environment<'_>, issues: &Issues) -> Compiled {
    let keep = environment.keep;
    let root = issues.root();
    check_listeners(config, &root);
    let resolved = resolve(config, environment);
    let named = build_upstreams(config, &resolved, keep, &root);
    let mut upstreams: BTreeMap<String, Arc<Upstream>> =
        named.iter().filter_map(|(name, upstream)| Some((name.clone(), upstream.clone()?))).collect();
    let zones = build_zones(config, environment, &root);
    let used = build_routes(config, environment, (&named, &zones), &mut upstreams, &resolved, issues);
    warn_of_unused(config, &used, &root);
    let (level, access_log) = config.log.build(keep, environment.stats, &root.key("log"));
    let runtime = root.key("runtime");
    let trusted = &config.runtime.trusted_proxies;
    let snapshot = Snapshot {
        generation: environment.generation,
        routes: used.routes,
        forwarded: Forwarded::build(&config.runtime.forwarded, trusted),
        server: build_server(config.runtime.server_header.as_deref(), &runtime.key("server_header")),
        access_log,
        upstreams,
        zones: zones.into_iter().filter_map(|(name, zone)| Some((name, zone?))).collect(),
        zone_configs: config.caches.iter().map(|(name, zone)| (name.clone(), zone.under(environment.folder))).collect(),
        drain: config.runtime.drain.0,
    };
    let limits = config.runtime.limits.build(trusted.iter().collect(), &runtime.key("limits"));
    Compiled { snapshot, limits, level }
}

fn check_listeners(config: &Config, root: &Scope<'_>) {
    let at = root.key("listeners");
    if config.listeners.is_empty() {
        at.error_hint("no listener is given", "say where clients come in, as in `listeners: [\"0.0.0.0:8080\"]`");
    }
    listen::check(&config.listeners, &at);
    if let Admin::At(admin) = &config.admin
        && config
            .listeners
            .iter()
            .flat_map(|listener| listener.address.iter())
            .any(|taken| taken.overlaps(&admin.listen))
    {
        root.key("admin").error_hint(
            format!("`{}` is the address of a listener too", admin.listen),
            "give operators an address of their own, as in `127.0.0.1:9900`",
        );
    }
    if config.sites.is_empty() {
        root.key("sites")
            .error_hint("no site is given", "say where requests go, as in `sites: [{ proxy: 127.0.0.1:3000 }]`");
    }
}

/// Asks for the addresses of all names, and all sources for servers, at once, before anything needs them.
fn resolve(config: &Config, environment: &Environment<'_>) -> Resolved {
    let &Environment { keep, folder, .. } = environment;
    let (mut names, mut sources) = (Vec::new(), Vec::new());
    let mut note = |upstream: &upstream::Config| {
        names.extend(upstream.names());
        sources.extend(upstream.settings.discover.clone());
    };
    config.upstreams.values().for_each(&mut note);
    for site in &config.sites {
        let routes = site.routes.iter().flatten();
        let in_place = routes.clone().filter_map(|route| route.proxy.as_ref()).chain(&site.proxy);
        in_place.filter_map(route::target::ProxyConfig::in_place).for_each(|upstream| note(&upstream));
        let mirrors = routes.clone().filter_map(|route| route.mirror.as_ref()?.in_place());
        mirrors.for_each(|upstream| note(&upstream));
        let splits = routes.filter_map(|route| route.split.as_ref()).chain(&site.split);
        splits.flat_map(route::split::SplitConfig::in_place).for_each(|upstream| note(&upstream));
    }
    let asking = discover::load::begin(&sources, folder, keep, Resolver::PATIENCE);
    Resolver::system().resolve(names, keep).with_sources(asking.end(), folder)
}

fn build_upstreams(
    config: &Config,
    resolved: &Resolved,
    keep: &Arc<Keep>,
    root: &Scope<'_>,
) -> BTreeMap<String, Option<Arc<Upstream>>> {
    let at = root.key("upstreams");
    let build = |(name, upstream): (&String, &upstream::Config)| {
        let place = at.key(name);
        if name.is_empty() || name.contains(|c: char| c == ':' || c == '/' || c.is_whitespace() || c.is_control()) {
            let hint = "names hold no colon, slash or space, so that they differ from addresses".to_owned();
            place.error_key(format!("`{}` is no name for an upstream", name.escape_debug()), Some(hint));
        }
        (name.clone(), Upstream::build(name, upstream, resolved, keep, &place).map(Arc::new))
    };
    config.upstreams.iter().map(build).collect()
}

/// The caches that the document names; where it names none and something is cached, the built-in one.
fn build_zones(
    config: &Config,
    environment: &Environment<'_>,
    root: &Scope<'_>,
) -> BTreeMap<String, Option<Arc<Zone>>> {
    let &Environment { keep, folder, .. } = environment;
    let at = root.key("caches");
    if config.caches.is_empty() {
        let is_on = |cache: &Option<route::cache::Config>| cache.as_ref().is_some_and(route::cache::Config::is_on);
        let caches = |site: &route::SiteConfig| {
            is_on(&site.cache) || site.routes.iter().flatten().any(|route| is_on(&route.cache))
        };
        let name = ZoneConfig::DEFAULT;
        let zone = || Zone::build(name, &ZoneConfig::default(), keep, &at);
        return config.sites.iter().any(caches).then(|| (name.to_owned(), zone())).into_iter().collect();
    }
    let mut folders = Vec::<(PathBuf, String)>::new();
    let build = |(name, zone): (&String, &ZoneConfig)| {
        let place = at.key(name);
        if name.is_empty() || name.contains(|c: char| "/?#%".contains(c) || c.is_whitespace() || c.is_control()) {
            let hint = "names stand in URLs of the admin listener: write letters, digits, `-` and `_`".to_owned();
            place.error_key(format!("`{}` is no name for a cache", name.escape_debug()), Some(hint));
        }
        let zone = zone.under(folder);
        if let Some(disk) = &zone.disk {
            let overlaps = |taken: &PathBuf| taken.starts_with(&disk.path) || disk.path.starts_with(taken);
            if let Some((_, other)) = folders.iter().find(|(taken, _)| overlaps(taken)) {
                place.key("disk").key("path").error_hint(
                    format!("the cache `{other}` has this folder, or one above or below it"),
                    "give each cache a folder of its own",
                );
            }
            folders.push((disk.path.clone(), name.clone()));
        }
        (name.clone(), Zone::build(name, &zone, keep, &place))
    };
    config.caches.iter().map(build).collect()
}

/// The routes, and the names that they use.
struct Used {
    routes: Routes,
    upstreams: BTreeSet<String>,
    zones: BTreeSet<String>,
}

/// The upstreams and caches that routes may name; `None` for those with faults of their own.
type Named<'a> = (&'a BTreeMap<String, Option<Arc<Upstream>>>, &'a BTreeMap<String, Option<Arc<Zone>>>);

fn build_routes(
    config: &Config,
    environment: &Environment<'_>,
    (named, zones): Named<'_>,
    all: &mut BTreeMap<String, Arc<Upstream>>,
    resolved: &Resolved,
    issues: &Issues,
) -> Used {
    let &Environment { keep, folder, .. } = environment;
    let mut written = BTreeMap::<String, String>::new();
    let mut in_place = |label: &str, upstream: &upstream::Config, at: &Scope<'_>| {
        // The same addresses with other settings are another upstream; what is written twice is one.
        let text = format!("{upstream:?}");
        let labels = (1_u32..).map(|n| if n == 1 { label.to_owned() } else { format!("{label}#{n}") });
        let free = |label: &String| written.get(label).is_none_or(|known| *known == text);
        let label = labels.into_iter().find(free)?;
        if let Some(built) = all.get(&label).filter(|_| written.contains_key(&label)) {
            return Some(Arc::clone(built));
        }
        let built = Arc::new(Upstream::build(&label, upstream, resolved, keep, at)?);
        written.insert(label.clone(), text);
        all.insert(label, Arc::clone(&built));
        Some(built)
    };
    let mut context = route::Context {
        upstreams: named,
        in_place: &mut in_place,
        used: BTreeSet::new(),
        zones,
        used_zones: BTreeSet::new(),
        keep,
        folder,
    };
    let routes = route::build(&config.sites, &mut context, issues);
    Used { routes, upstreams: std::mem::take(&mut context.used), zones: std::mem::take(&mut context.used_zones) }
}

fn warn_of_unused(config: &Config, used: &Used, root: &Scope<'_>) {
    for name in config.caches.keys().filter(|name| !used.zones.contains(*name)) {
        root.key("caches").key(name).warn(
            format!("no route stores in the cache `{name}`"),
            format!("remove it, or give a route `cache: {name}`"),
        );
    }
    for name in config.upstreams.keys().filter(|name| !used.upstreams.contains(*name)) {
        root.key("upstreams").key(name).warn(
            format!("no route leads to the upstream `{name}`"),
            format!("remove it, or send requests to it, as in `proxy: {name}`"),
        );
    }
}

fn build_server(text: Option<&str>, at: &Scope<'_>) -> Option<HeaderValue> {
    let text = text.filter(|text| *text != "none")?;
    match HeaderValue::from_str(text) {
        Ok(value) if !text.trim().is_empty() => Some(value),
        _ => {
            at.error_hint(
                format!("`{}` cannot be sent as a header value", text.escape_debug()),
                "write plain text, or `none`",
            );
            None
        }
    }
}
