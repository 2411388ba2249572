//! What may look at, change or answer a request: one file (or folder) each.
//!
//! To add a filter: its file, its `mod` line, and its row in the list below.

pub mod chain;
pub mod contract;
pub mod headers;
pub mod ip_rules;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::diag::Scope;
pub use chain::Chain;
pub use contract::{Build, BuildContext, Filter};

/// The list of filters. A row `/// doc` and `Name => module,` wants in `module` a `Config` whose
/// `build(&self, &BuildContext, &Scope) -> Option<impl Filter>` reports its faults, and `Name` is `module` in camel case.
macro_rules! filters {
    ($($(#[doc = $doc:literal])+ $name:ident => $module:ident,)+) => {
        /// One filter of a list. Filters run in the order of the list; a site's filters run before its routes' own.
        #[derive(Clone, Debug, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        #[schemars(rename = "Filter")]
        pub enum Config {
            $($(#[doc = $doc])+ $name($module::Config),)+
        }

        impl Config {
            /// The names of all filters, as they are written.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($module)),+];
        }

        impl Build for Config {
            fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($module),)+
                }
            }

            fn build(&self, context: &BuildContext<'_>, at: &Scope<'_>) -> Option<Arc<dyn Filter>> {
                let at = &at.key(self.name());
                match self {
                    $(Self::$name(config) => Some(Arc::new(config.build(context, at)?)),)+
                }
            }
        }
    };
}

filters! {
    /// Lets clients in, or keeps them out, by address.
    IpRules => ip_rules,
    /// Sets, adds and removes header fields, both ways.
    Headers => headers,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Issues;
    use crate::keep::Keep;
    use crate::observe::FilterStats;

    #[test]
    fn every_filter_is_written_by_the_name_of_its_file() {
        for name in Config::NAMES {
            let tried = serde_json::from_str::<Config>(&format!("{{\"{name}\": 0}}")).unwrap_err().to_string();
            assert!(!tried.contains("unknown variant"), "{name}: {tried}");
        }
        let config: Config = serde_json::from_str(r#"{"ip_rules": {"deny": ["10.0.0.0/8"]}}"#).unwrap();
        assert_eq!(config.name(), "ip_rules");
        assert!(serde_json::from_str::<Config>(r#"{"ip_rules": {"denied": []}}"#).is_err());
    }

    #[test]
    fn a_list_reports_all_its_faults_and_counts_over_reloads() {
        let configs: Vec<Config> = serde_json::from_str(
            r#"[{"ip_rules": {}}, {"ip_rules": {"allow": ["10.0.0.0/8"]}}, {"headers": {"request": {"remove": ["TE"]}}}]"#,
        )
        .unwrap();
        let (issues, keep) = (Issues::default(), Keep::default());
        let context = BuildContext { captures: &[], keep: &keep, owner: "example.com\nblog" };
        let chain = Chain::build(&configs, &context, &issues.root().key("filters"));
        assert!(!chain.is_idle_on_requests() && Chain::default().is_idle_on_requests());
        let paths: Vec<_> = issues.into_vec().iter().map(|issue| issue.path.to_string()).collect();
        assert_eq!(paths, ["filters[0].ip_rules", "filters[2].headers.request.remove[0]"]);

        let kept = keep.all::<FilterStats>();
        assert_eq!(kept.iter().map(|(key, _)| &**key).collect::<Vec<_>>(), ["example.com\nblog\nip_rules"]);
        let _again = Chain::build(&configs[1..2], &context, &Issues::default().root());
        drop(chain);
        assert!(Arc::ptr_eq(&kept[0].1, &keep.all::<FilterStats>()[0].1));
    }
}
