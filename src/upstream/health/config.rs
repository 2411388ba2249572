//! `health` of an upstream as the document has it.

use schemars::JsonSchema;
use serde::Deserialize;

use super::active::Active;
use super::passive::Passive;
use super::state::Start;
use crate::units::Percent;

/// How the gateway learns which servers are well, so that only those get requests.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Health")]
pub struct Config {
    /// Checks that the gateway makes of its own accord: the path to ask for, as in `/healthz`, or a mapping. Default: none.
    pub active: Option<Active>,
    /// When a server at which requests fail is left out for a while ("ejected"). `false`: never. Default: as described
    /// below, so after 5 failures in a row.
    pub passive: Passive,
    /// Below this share of well servers, a tier of them (see `priority`) is given up for the next; when no tier has it,
    /// health is ignored, and all servers of the first tier share the requests: better than that the few well ones break
    /// down under the load of all. Default: `0%`, health is never ignored.
    pub panic: Percent,
}

impl Config {
    /// What a server that nothing is known of counts as.
    pub fn start(&self) -> Start {
        self.active.as_ref().map_or(Start::Up, Active::start)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::diag::{Issue, Issues, Severity};
    use crate::upstream::health::active::Checks;
    use crate::upstream::health::probe::Kind;
    use crate::upstream::health::rules::{ActiveRules, PassiveRules};

    fn build(yaml: &str, unix: bool) -> (Option<Checks>, Option<PassiveRules>, Vec<Issue>) {
        let config: Config = serde_yaml::from_str(yaml).unwrap();
        let issues = Issues::default();
        let root = issues.root();
        let at = root.key("health");
        let checks = config.active.as_ref().and_then(|active| active.build(unix, &at.key("active")));
        let rules = config.passive.build(&at.key("passive"));
        (checks, rules, issues.into_vec())
    }

    fn good(yaml: &str) -> (Option<Checks>, Option<PassiveRules>) {
        let (checks, rules, issues) = build(yaml, false);
        assert_eq!(issues, [], "{yaml}");
        (checks, rules)
    }

    #[test]
    fn without_a_word_only_requests_tell() {
        let (checks, rules) = good("{}");
        assert!(checks.is_none());
        let rules = rules.unwrap();
        assert_eq!((rules.errors, rules.within, rules.eject), (5, 10_000_000, 10_000_000));
        assert_eq!((rules.max_eject, rules.error_rate, rules.counts_all_5xx), (300_000_000, None, false));
        assert!(good("passive: false").1.is_none());
        assert_eq!(good("passive: true").1, Some(rules));
        let config: Config = serde_yaml::from_str("{}").unwrap();
        assert_eq!((config.panic, config.start()), (Percent::default(), Start::Up));
    }

    #[test]
    fn every_setting_is_read() {
        let (checks, rules) = good(
            "{ active: { grpc: shop.Cart, every: 1s, jitter: 20%, timeout: 500ms, rise: 4, fall: 5, port: 81,
                 start: checking, parallel: 6 },
               passive: { errors: 7, within: 8s, count: 5xx, error_rate: 50%, min_requests: 9, eject: 10s, max_eject: 11s,
                 max_ejected: 12% }, panic: 13% }",
        );
        let checks = checks.unwrap();
        assert!(matches!(&checks.probe.kind, Kind::Grpc(service) if &**service == "shop.Cart"));
        assert_eq!((checks.probe.timeout, checks.probe.port), (Duration::from_millis(500), Some(81)));
        assert_eq!(checks.rules, ActiveRules { rise: 4, fall: 5 });
        assert_eq!((checks.every, checks.jitter, checks.parallel), (Duration::from_secs(1), Percent::new(20), 6));
        let expected = PassiveRules {
            errors: 7,
            within: 8_000_000,
            counts_all_5xx: true,
            error_rate: Some(Percent::new(50)),
            min_requests: 9,
            eject: 10_000_000,
            max_eject: 11_000_000,
            max_ejected: Percent::new(12),
        };
        assert_eq!(rules, Some(expected));
    }

    #[test]
    fn a_check_takes_no_longer_than_the_time_between_two_unless_told_so() {
        for (yaml, millis) in [("/x", 2000), ("{ http: /x, every: 1s }", 1000), ("{ tcp: true, every: 1h }", 2000)] {
            let checks = good(&format!("active: {yaml}")).0.unwrap();
            assert_eq!(checks.probe.timeout.as_millis(), millis, "{yaml}");
        }
    }

    #[test]
    fn what_can_never_succeed_is_a_fault_with_its_place() {
        for (yaml, path, message) in [
            ("active: healthz", "active", "`healthz` is no path"),
            ("active: {}", "active", "neither `http` nor `tcp` nor `grpc`"),
            ("active: { tcp: false }", "active", "neither `http` nor `tcp` nor `grpc`"),
            ("active: { tcp: true, http: / }", "active", "not several"),
            ("active: { grpc: '', http: / }", "active", "not several"),
            ("active: { http: x }", "active.http", "`x` is no path"),
            ("active: { http: { path: '/a b' } }", "active.http.path", "is no path"),
            ("active: { http: { path: '/a#b' } }", "active.http.path", "is no path"),
            ("active: { http: { method: get } }", "active.http.method", "`get` is no method"),
            ("active: { http: { method: CONNECT } }", "active.http.method", "is no method"),
            ("active: { http: { host: 'http://x' } }", "active.http.host", "cannot be the host"),
            ("active: { http: { headers: { Host: x } } }", "active.http.headers.Host", "a key of its own"),
            ("active: { http: { headers: { 'a b': x } } }", "active.http.headers[\"a b\"]", "no header name"),
            ("active: { http: { headers: { TE: x } } }", "active.http.headers.TE", "belongs to the connection"),
            ("active: { http: { headers: { X: \"a\\nb\" } } }", "active.http.headers.X", "cannot be the value"),
            ("active: { http: { status: [] } }", "active.http.status", "no status would be a success"),
            ("active: { http: { status: [100, 101-103] } }", "active.http.status", "no answer ends with such"),
            ("active: { http: { body: '(' } }", "active.http.body", "is no regular expression: unclosed group"),
            ("active: { http: { method: HEAD, body: ok } }", "active.http.body", "HEAD request has no body"),
            ("active: { http: { status: [204, 304], body: ok } }", "active.http.body", "has no body"),
            ("active: { tcp: true, rise: 0 }", "active.rise", "0 successes"),
            ("active: { tcp: true, fall: 0 }", "active.fall", "0 failures"),
            ("active: { tcp: true, parallel: 0 }", "active.parallel", "0 checks"),
            ("active: { tcp: true, every: 0 }", "active.every", "no time between"),
            ("active: { tcp: true, timeout: 0 }", "active.timeout", "fail every check"),
            ("active: { tcp: true, port: 0 }", "active.port", "port 0"),
            ("passive: { errors: 0 }", "passive.errors", "cannot be counted"),
            ("passive: { errors: 2000000 }", "passive.errors", "cannot be counted"),
            ("passive: { within: 0 }", "passive.within", "ejects nothing"),
            ("passive: { eject: 0 }", "passive.eject", "ejects nothing"),
            ("passive: { max_eject: 0 }", "passive.max_eject", "ejects nothing"),
            ("passive: { error_rate: 0% }", "passive.error_rate", "what every server has"),
            ("passive: { min_requests: 0 }", "passive.min_requests", "no share"),
        ] {
            let (_, _, issues) = build(yaml, false);
            let issue = issues.first().expect(yaml);
            assert_eq!(issue.path.to_string(), format!("health.{path}"), "{yaml}");
            assert!(issue.message.contains(message), "{yaml}: {}", issue.message);
            assert!(
                issue.hint.is_some() && issue.severity == Severity::Error && issues.len() == 1,
                "{yaml}: {issues:?}"
            );
        }
    }

    #[test]
    fn what_is_odd_is_a_warning_with_its_place() {
        for (yaml, path, message) in [
            ("active: { tcp: true, every: 1s, timeout: 3s }", "active.timeout", "longer than the 1s between two"),
            ("passive: { eject: 10m }", "passive.eject", "ends it after 5m"),
            ("passive: { max_eject: 5s }", "passive.max_eject", "ends it after 5s"),
            ("passive: { max_ejected: 0% }", "passive.max_ejected", "ever left out"),
        ] {
            let (_, _, issues) = build(yaml, false);
            assert_eq!(issues[0].path.to_string(), format!("health.{path}"), "{yaml}");
            assert!(issues[0].message.contains(message), "{yaml}: {}", issues[0].message);
            assert!(issues[0].severity == Severity::Warning && issues.len() == 1, "{yaml}");
        }
    }

    #[test]
    fn a_unix_socket_has_no_other_port() {
        assert_eq!(build("active: { tcp: true, port: 81 }", true).2[0].path.to_string(), "health.active.port");
        assert_eq!(build("active: { tcp: true }", true).2, []);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (yaml, fault) in [
            ("actve: /x", "unknown field `actve`"),
            ("active: 3", "a path to ask for"),
            ("active: { htp: /x }", "unknown field `htp`"),
            ("active: { http: { paht: /x } }", "unknown field `paht`"),
            ("active: { http: { status: 700 } }", "`700` is no status"),
            ("active: { http: { status: 20x } }", "`20x` is no status"),
            ("active: { tcp: true, start: well }", "unknown variant `well`"),
            ("active: { tcp: true, port: 70000 }", "invalid value"),
            ("passive: maybe", "`false`, or a mapping"),
            ("passive: { count: 4xx }", "unknown variant `4xx`"),
            ("panic: 0.5", "a share of a whole"),
        ] {
            let error = serde_yaml::from_str::<Config>(yaml).unwrap_err().to_string();
            assert!(error.contains(fault), "{yaml}: {error}");
        }
    }

    #[test]
    fn the_schema_has_all_forms_and_the_defaults() {
        let schema = schemars::schema_for!(Config).to_value().to_string();
        for part in ["\"/healthz\"", "\"boolean\"", "\"5xx\"", "\"checking\"", "`200-399`", "Default: `10%`."] {
            assert!(schema.contains(part), "{part} is not in {schema}");
        }
    }
}
