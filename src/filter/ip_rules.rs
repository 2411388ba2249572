//! `ip_rules`: lets clients in, or keeps them out, by address.
//!
//! `deny` wins over `allow`. With an `allow` list, whoever is not on it is kept out.

use http::StatusCode;
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::contract::{BuildContext, Filter, Flow, Phase};
use crate::diag::Scope;
use crate::exchange::Exchange;
use crate::reply::Reply;
use crate::units::{Cidr, CidrSet};

/// Lets clients in, or keeps them out, by address. The address is the true client's, as trusted proxies report it.
/// `deny` wins over `allow`; at least one of the two must list a network.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "IpRules")]
pub struct Config {
    /// Networks (or single addresses) that may pass. When any is listed, everybody else is kept out.
    #[serde(default)]
    pub allow: Vec<Cidr>,
    /// Networks (or single addresses) that are kept out, even when `allow` lists them.
    #[serde(default)]
    pub deny: Vec<Cidr>,
    /// The status that those who are kept out get, from 400 to 599. Default: 403.
    #[schemars(range(min = 400, max = 599))]
    #[serde(default = "forbidden")]
    pub status: u16,
}

fn forbidden() -> u16 {
    403
}

impl Config {
    /// Compiles the rules; reports what is wrong with them at `at`.
    pub fn build(&self, _: &BuildContext<'_>, at: &Scope<'_>) -> Option<IpRules> {
        let status = StatusCode::from_u16(self.status).ok().filter(|_| (400..=599).contains(&self.status));
        if status.is_none() {
            at.key("status").error_hint(
                format!("`{}` does not refuse anybody", self.status),
                "write a status from 400 to 599, as in `403`",
            );
        }
        if self.allow.is_empty() && self.deny.is_empty() {
            at.error_hint(
                "neither `allow` nor `deny` lists a network",
                "list at least one, as in `allow: [10.0.0.0/8]`",
            );
            return None;
        }
        Some(IpRules {
            allow: (!self.allow.is_empty()).then(|| self.allow.iter().collect()),
            deny: self.deny.iter().collect(),
            refusal: status?,
        })
    }
}

/// The rules, compiled.
#[derive(Debug)]
pub struct IpRules {
    allow: Option<CidrSet>,
    deny: CidrSet,
    refusal: StatusCode,
}

impl Filter for IpRules {
    fn phases(&self) -> &'static [Phase] {
        &[Phase::Request]
    }

    fn request<'a>(&'a self, _: &'a mut RequestHeader, exchange: &'a mut Exchange, _: &'a str) -> Flow<'a> {
        let listed = |networks: &CidrSet| networks.contains(exchange.client);
        if listed(&self.deny) || self.allow.as_ref().is_some_and(|allow| !listed(allow)) {
            return Flow::reply(Reply::error(self.refusal));
        }
        Flow::CONTINUE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Issues;
    use crate::filter::contract::Decision;
    use crate::keep::Keep;

    fn build(json: &str) -> (Option<IpRules>, Vec<String>) {
        let config: Config = serde_json::from_str(json).unwrap();
        let (issues, keep) = (Issues::default(), Keep::default());
        let context = BuildContext { captures: &[], keep: &keep, owner: "" };
        let rules = config.build(&context, &issues.root());
        (rules, issues.into_vec().iter().map(|issue| issue.path.to_string()).collect())
    }

    /// The status of the refusal; 0: passes.
    fn refused(rules: &IpRules, client: &str) -> u16 {
        let (mut head, mut exchange) = (RequestHeader::build("GET", b"/", None).unwrap(), Exchange::new());
        exchange.client = client.parse().unwrap();
        match rules.request(&mut head, &mut exchange, "") {
            Flow::Now(Decision::Reply(reply)) => reply.status.as_u16(),
            Flow::Now(Decision::Continue) => 0,
            Flow::Later(_) => unreachable!("no I/O here"),
        }
    }

    #[test]
    fn deny_wins_over_allow() {
        let (rules, _) = build(r#"{"allow": ["10.0.0.0/8", "fd00::/8"], "deny": ["10.9.0.0/16"]}"#);
        let rules = rules.unwrap();
        for (client, status) in [
            ("10.1.1.1", 0),
            ("::ffff:10.1.1.1", 0),
            ("fd12::1", 0),
            ("10.9.1.1", 403),
            ("::ffff:10.9.1.1", 403),
            ("11.0.0.1", 403),
            ("fe80::1", 403),
        ] {
            assert_eq!(refused(&rules, client), status, "{client}");
        }
    }

    #[test]
    fn without_an_allow_list_all_others_pass() {
        let (rules, _) = build(r#"{"deny": ["192.0.2.1"], "status": 451}"#);
        let rules = rules.unwrap();
        for (client, status) in [("192.0.2.1", 451), ("192.0.2.2", 0), ("::1", 0)] {
            assert_eq!(refused(&rules, client), status, "{client}");
        }
    }

    #[test]
    fn rules_that_keep_nobody_out_are_faults() {
        for (json, faults) in [
            ("{}", vec![""]),
            (r#"{"status": 200}"#, vec!["status", ""]),
            (r#"{"deny": ["::/0"], "status": 399}"#, vec!["status"]),
            (r#"{"deny": ["::/0"], "status": 600}"#, vec!["status"]),
            (r#"{"deny": ["::/0"], "status": 599}"#, vec![]),
        ] {
            let (rules, told) = build(json);
            assert_eq!(
                (rules.is_some(), &told),
                (faults.is_empty(), &faults.iter().map(ToString::to_string).collect())
            );
        }
    }
}
