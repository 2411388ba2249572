//! Values that people write as text: `1m 30s`, `64KiB`, `10.0.0.0/8`.

mod byte_rate;
mod byte_size;
mod cidr;
mod cidr_set;
mod human_duration;
mod one_or_many;
mod percent;
mod status_range;

pub use byte_rate::ByteRate;
pub use byte_size::ByteSize;
pub use cidr::Cidr;
pub use cidr_set::CidrSet;
pub use human_duration::HumanDuration;
pub use one_or_many::OneOrMany;
pub use percent::Percent;
pub use status_range::StatusRange;

/// Gives a unit with `FromStr` and `Display` its serde and schema sides: in the document it is text.
macro_rules! text_unit {
    ($unit:ty, $name:literal, $about:literal, $example:literal) => {
        impl<'de> serde::Deserialize<'de> for $unit {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $unit;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!($about, ", as in `", $example, "`"))
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$unit, E> {
                        text.parse().map_err(E::custom)
                    }
                    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<$unit, E> {
                        number.to_string().parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(Text)
            }
        }

        impl serde::Serialize for $unit {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl schemars::JsonSchema for $unit {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": ["string", "integer"], "description": $about, "examples": [$example] })
            }
        }
    };
}
use text_unit;

/// Splits `12.5KiB` into its number and its unit, both trimmed.
fn number_and_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}
