//! The record of a response: what of its head is stored.

use std::sync::Arc;

use http::StatusCode;
use http::header::HeaderMap;

use crate::cache::policy::Approved;
use crate::cache::rules::range::ContentRange;
use crate::cache::rules::stored_head;
use crate::cache::{Kind, Record, Tick};

/// The record of a response with these fields, and those that are only for who asked for it (RFC 9111 5.2.2.4, 5.2.2.7).
pub(super) fn of(
    status: StatusCode,
    mut fields: HeaderMap,
    approved: &Approved,
    asked: Tick,
    url: &str,
) -> Option<(Record, Option<Arc<HeaderMap>>)> {
    let directives = &approved.directives;
    let mut withheld = HeaderMap::new();
    for name in directives.private.fields().iter().chain(directives.no_cache.fields()) {
        for value in fields.get_all(name) {
            withheld.append(name.clone(), value.clone());
        }
    }
    stored_head::reduce(&mut fields, directives, approved.how);
    directives.no_cache.fields().iter().for_each(|name| drop(fields.remove(name)));
    let kind = match (status, ContentRange::of(&fields)) {
        (StatusCode::PARTIAL_CONTENT, Some(ContentRange { range: Some(range), length })) => {
            Kind::Part(range.start, length)
        }
        (StatusCode::PARTIAL_CONTENT, _) => return None,
        _ => Kind::Whole,
    };
    let record = Record::new(asked, approved.terms, (status.as_u16(), kind), url, &approved.tags, &fields).ok()?;
    Some((record, (!withheld.is_empty()).then(|| Arc::new(withheld))))
}
