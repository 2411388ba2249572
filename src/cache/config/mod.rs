//! The cache in the document: `caches:`, the zones, and `cache`, the block of a site or a route.
//!
//! A route's conditions belong to a floor above this one, so [`CacheConfig`] leaves their type open.

mod block;
mod key;
mod ttl;
mod zone;

pub use block::{CacheConfig, Ignore, Method, Purge, SetCookie, Settings, Tags};
pub use key::{KeyConfig, Query};
pub use ttl::TtlConfig;
pub use zone::{DiskConfig, ZoneConfig};
