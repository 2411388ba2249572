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
