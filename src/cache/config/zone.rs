//! `caches.NAME`: a zone, as written.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::diag::Scope;
use crate::units::ByteSize;

/// A zone: the size of its memory, or a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneConfig {
    /// How much memory it may take, in bytes.
    pub memory: ByteSize,
    /// Where else it keeps responses.
    pub disk: Option<DiskConfig>,
    plain: bool,
}

/// A zone: a place where responses are stored, for all routes that name it. What lies in memory is gone with the process;
/// what lies on disk is there again after a start.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CacheZoneSettings")]
struct ZoneSettings {
    /// How much memory it may take, what is stored and what it costs to find it again together; what is asked for least
    /// makes room. Default: `64MiB`.
    #[serde(default = "default_memory")]
    memory: ByteSize,
    /// Keeps responses on disk too: more of them, and over restarts. Default: in memory only.
    disk: Option<DiskConfig>,
}

/// Where a zone keeps responses on disk.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CacheDisk")]
pub struct DiskConfig {
    /// The folder, which is made where it is not there yet and should hold nothing else. A path that is not absolute begins
    /// at the folder of the document.
    #[schemars(with = "String")]
    pub path: PathBuf,
    /// How many bytes may lie there.
    pub size: ByteSize,
}

fn default_memory() -> ByteSize {
    ByteSize(64 << 20)
}

impl Default for ZoneConfig {
    fn default() -> Self {
        Self { memory: default_memory(), disk: None, plain: false }
    }
}

impl ZoneConfig {
    /// The name of the zone that there is when the document has none.
    pub const DEFAULT: &str = "default";

    /// The zone with its paths below this folder, unless they are absolute.
    #[must_use]
    pub fn under(&self, folder: &Path) -> Self {
        let disk = self.disk.as_ref().map(|disk| DiskConfig { path: folder.join(&disk.path), ..disk.clone() });
        Self { disk, ..self.clone() }
    }

    /// Reports what is wrong with it.
    pub fn check(&self, at: &Scope<'_>) {
        let key = at.key("memory");
        let place = if self.plain { at } else { &key };
        if self.memory.0 < LEAST_MEMORY.0 {
            let hint = format!("write a size of {LEAST_MEMORY} or more, as in `64MiB`");
            place.error_hint(format!("`{}` of memory holds next to nothing", self.memory), hint);
        }
        let Some(disk) = &self.disk else { return };
        let at = at.key("disk");
        if disk.path.as_os_str().is_empty() {
            at.key("path").error_hint("the path is empty", "write a folder, as in `/var/cache/edgeway`");
        }
        if disk.size.0 < LEAST_DISK.0 {
            let hint = format!("write a size of {LEAST_DISK} or more, as in `50GiB`");
            at.key("size").error_hint(format!("`{}` of disk holds next to nothing", disk.size), hint);
        }
    }
}

/// With less, a zone would drop each response for the next.
const LEAST_MEMORY: ByteSize = ByteSize(1 << 20);
const LEAST_DISK: ByteSize = ByteSize(16 << 20);

impl<'de> Deserialize<'de> for ZoneConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl<'de> Visitor<'de> for Forms {
            type Value = ZoneConfig;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("how much memory the zone may take, as in `512MiB`, or a mapping with `memory` and `disk`")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<ZoneConfig, E> {
                Ok(ZoneConfig { memory: text.parse().map_err(E::custom)?, disk: None, plain: true })
            }
            fn visit_u64<E: Error>(self, bytes: u64) -> Result<ZoneConfig, E> {
                Ok(ZoneConfig { memory: ByteSize(bytes), disk: None, plain: true })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ZoneConfig, A::Error> {
                let ZoneSettings { memory, disk } = Deserialize::deserialize(MapAccessDeserializer::new(map))?;
                Ok(ZoneConfig { memory, disk, plain: false })
            }
        }
        deserializer.deserialize_any(Forms)
    }
}

impl JsonSchema for ZoneConfig {
    fn schema_name() -> Cow<'static, str> {
        "CacheZone".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (size, settings) = (generator.subschema_for::<ByteSize>(), generator.subschema_for::<ZoneSettings>());
        json_schema!({
            "description": "A place where responses are stored: the size of its memory, or a mapping.",
            "anyOf": [size, settings],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Issues;

    fn read(yaml: &str) -> ZoneConfig {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[test]
    fn a_size_is_a_zone_in_memory() {
        for (yaml, memory) in [("512MiB", 512 << 20), ("{ memory: 512MiB }", 512 << 20), ("{}", 64 << 20)] {
            let zone = read(yaml);
            assert_eq!((zone.memory.0, zone.disk), (memory, None), "{yaml}");
        }
        let zone = read("{ memory: 1GiB, disk: { path: cache, size: 50GiB } }").under(Path::new("/etc"));
        assert_eq!(zone.disk, Some(DiskConfig { path: "/etc/cache".into(), size: ByteSize(50 << 30) }));
        assert_eq!(zone.under(Path::new("/x")).disk.unwrap().path, Path::new("/etc/cache"));
    }

    #[test]
    fn a_zone_that_holds_nothing_is_refused_at_its_place() {
        for (yaml, path) in [
            ("64", "caches.main"),
            ("{ memory: 64 }", "caches.main.memory"),
            ("{ disk: { path: '', size: 1GiB } }", "caches.main.disk.path"),
            ("{ disk: { path: /a, size: 1KiB } }", "caches.main.disk.size"),
        ] {
            let issues = Issues::default();
            read(yaml).check(&issues.root().key("caches").key("main"));
            let paths: Vec<_> = issues.into_vec().iter().map(|issue| issue.path.to_string()).collect();
            assert_eq!(paths, [path], "{yaml}");
        }
        for (yaml, fault) in [
            ("[a]", "how much memory the zone may take"),
            ("{ memory: 1MiB, dsk: {} }", "unknown field `dsk`"),
            ("{ disk: { path: /a } }", "missing field `size`"),
            ("{ disk: { size: 1GiB } }", "missing field `path`"),
        ] {
            let error = serde_yaml::from_str::<ZoneConfig>(yaml).unwrap_err().to_string();
            assert!(error.contains(fault), "{yaml}: {error}");
        }
    }
}
