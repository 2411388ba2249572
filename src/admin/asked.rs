//! `Asked`: what a request for an endpoint says beside its path.

/// What a request says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// What stands where the path of the endpoint has braces.
    parts: Vec<String>,
    /// The parameters of the query; one without `=` is empty.
    pub(super) query: Vec<(String, String)>,
}

impl Asked {
    /// `None`: the query has an escape that is none.
    pub(super) fn new(parts: Vec<String>, query: Option<&str>) -> Option<Self> {
        let parameters = query.unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty());
        let query = parameters.map(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            Some((decoded(name)?, decoded(value)?))
        });
        Some(Self { parts, query: query.collect::<Option<_>>()? })
    }

    /// What stands in these braces, counted from 0.
    pub(super) fn part(&self, position: usize) -> &str {
        self.parts.get(position).map_or("", String::as_str)
    }

    /// The value of a parameter.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// The text that a part of a URL stands for (RFC 3986 2.1). A `+` is a plus, as URLs have them.
pub(super) fn decoded(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                ((digit(high)? * 16 + digit(low)?) as u8, after)
            }
            (b'%', _) => return None,
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_by_name() {
        for (query, name, value) in [
            ("a=1&b=2", "b", Some("2")),
            ("a=1&soft", "soft", Some("")),
            ("url=http%3A%2F%2Fa%2F%3Fb%3Dc%26d", "url", Some("http://a/?b=c&d")),
            ("url=http://a/?b=c+d", "url", Some("http://a/?b=c+d")),
            ("&&", "a", None),
        ] {
            let asked = Asked::new(Vec::new(), Some(query)).unwrap();
            assert_eq!(asked.value(name), value, "{query}");
        }
        assert_eq!(Asked::new(Vec::new(), Some("a=%4")), None);
    }
}
