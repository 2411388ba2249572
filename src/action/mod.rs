//! What a route does before it passes a request on, or instead: rewrites, redirects, fixed answers, error pages.

mod encode;
pub mod error_pages;
pub mod redirect;
pub mod respond;
pub mod rewrite;

pub use error_pages::ErrorPages;
pub use redirect::Redirect;
pub use respond::Respond;
pub use rewrite::Rewrite;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_has_a_schema() {
        let schema = |schema: schemars::Schema| schema.to_value().to_string();
        for (made, tells) in [
            (schema(schemars::schema_for!(redirect::Config)), "keep_query"),
            (schema(schemars::schema_for!(respond::Config)), "content_type"),
            (schema(schemars::schema_for!(rewrite::Config)), "strip_prefix"),
            (schema(schemars::schema_for!(error_pages::Config)), "4xx|5xx|default"),
        ] {
            assert!(made.contains(tells), "{made}");
        }
    }
}
