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
pub use chain::{Chain, FilterStats};
pub use contract::{BuildContext, Filter};

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

            /// The filter's name, as it is written.
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($module),)+
                }
            }

            /// Compiles the filter; reports what is wrong with it below `at` (the place of the list's item).
            pub fn build(&self, context: &BuildContext<'_>, at: &Scope<'_>) -> Option<Arc<dyn Filter>> {
                let at = &at.key(self.name());
                match self {
                    $(Self::$name(config) => config.build(context, at).map(|filter| Arc::new(filter) as Arc<dyn Filter>),)+
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
}
