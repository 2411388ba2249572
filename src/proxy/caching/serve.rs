//! Answers a request with a stored response: conditions, ranges, `Age`, and its body from wherever it lies.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, SET_COOKIE, TRANSFER_ENCODING,
};
use http::{Method, Response, StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, OrErr as _, Result};

use super::patience::unless_gone;
use super::told::Told;
use crate::cache::object::{BodyReader, Fill, Reader};
use crate::cache::rules::conditional::{self, Outcome};
use crate::cache::rules::range::{self, ContentRange, Wanted};
use crate::cache::rules::stored_head;
use crate::cache::{Caching, Kind, Object};
use crate::proxy::{Ctx, respond};

/// Of more ranges in one request, the whole is sent.
pub(super) const MOST_RANGES: usize = 16;

/// A stored response, and for whom.
pub(super) struct Serving<'a> {
    pub(super) caching: &'a Caching,
    pub(super) object: &'a Arc<Object>,
    pub(super) told: Told,
    /// Fields that only who asked for it gets.
    pub(super) withheld: Option<&'a HeaderMap>,
    /// Keeps the begin of a response on its way until its readers are there: later it would hold the writer up.
    pub(super) kept: Option<Reader>,
}

/// A response that is about to begin.
pub(super) struct Opening {
    status: StatusCode,
    fields: HeaderMap,
    pub(super) send: Send,
}

/// What of the body is sent.
pub(super) enum Send {
    Nothing,
    /// From this byte of the object on, up to that one, so many in all if that is known.
    Bytes(u64, Option<u64>, Option<u64>),
    /// Several ranges, each with its head before it, and the end.
    Parts(Vec<(Bytes, Range<u64>)>, Bytes),
}

impl Serving<'_> {
    /// Answers. `false`: the body is gone, and nothing was written.
    pub(super) async fn answer(self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        let record = &self.object.record;
        let status = StatusCode::from_u16(record.status).or_err(ErrorType::InternalError, "a stored status")?;
        let opening = self.opening(session, status, record.kind(), self.object.len());
        let mut readers = match self.readers(&opening.send) {
            Some(readers) => readers.into_iter(),
            None => return Ok(false),
        };
        drop(self.kept);
        let Some((send, length)) = opening.write(session, ctx, self.told).await? else { return Ok(true) };
        match send {
            Send::Nothing => {}
            Send::Bytes(..) => {
                if let Some(reader) = readers.next() {
                    write_all(session, reader, length).await?;
                }
            }
            Send::Parts(parts, end) => {
                for (head, range) in parts {
                    // Only now: a reader that waits for its turn would hold up a writer whose storing fails.
                    let reader = readers.next().or_else(|| self.object.body().read(range.start, Some(range.end)));
                    let reader = reader.ok_or_else(broken)?;
                    session.write_response_body(Some(head), false).await?;
                    write_part(session, reader, range.end - range.start).await?;
                }
                session.write_response_body(Some(end), true).await?;
            }
        }
        Ok(true)
    }

    /// The response to this request, for which the object stands as such a kind of response, so long.
    pub(super) fn opening(
        &self,
        session: &Session,
        mut status: StatusCode,
        kind: Kind,
        length: Option<u64>,
    ) -> Opening {
        let record = &self.object.record;
        let mut fields = HeaderMap::with_capacity(16);
        for (name, value) in record.fields() {
            if self.caching.keep_tags || !self.caching.tag_fields.contains(&name) {
                fields.append(name, value);
            }
        }
        for (name, value) in self.withheld.into_iter().flatten() {
            fields.append(name.clone(), value.clone());
        }
        stored_head::write_age(&mut fields, record.terms().age(SystemTime::now()));
        if kind == Kind::Whole {
            fields.remove(CONTENT_RANGE);
        }
        let send = self.choose(session, &mut status, &mut fields, (kind, length));
        Opening { status, fields, send }
    }

    /// What is to be sent, by the conditions and ranges of the request (RFC 9110 13.2.2, 14.2).
    fn choose(
        &self,
        session: &Session,
        status: &mut StatusCode,
        fields: &mut HeaderMap,
        (kind, length): (Kind, Option<u64>),
    ) -> Send {
        let head = session.req_header();
        let record = &self.object.record;
        let stored = conditional::Stored { status: *status, headers: fields, received: record.terms().received() };
        match conditional::evaluate(&head.method, &head.headers, &stored, true) {
            Outcome::NotModified => {
                *status = StatusCode::NOT_MODIFIED;
                conditional::reduce_to_not_modified(fields);
                return Send::Nothing;
            }
            Outcome::PreconditionFailed => {
                *status = StatusCode::PRECONDITION_FAILED;
                conditional::reduce_to_not_modified(fields);
                fields.insert(CONTENT_LENGTH, 0.into());
                return Send::Nothing;
            }
            Outcome::Pass => {}
        }
        let heard = conditional::is_range_heard(&head.headers, &stored);
        let there = match kind {
            Kind::Part(start, Some(total)) => Some((start, total)),
            // All that is there, as it came.
            Kind::Part(_, None) => None,
            Kind::Whole | Kind::Variants | Kind::Sliced(..) => {
                let may_part = heard && *status == StatusCode::OK && head.method == Method::GET;
                length.filter(|_| may_part).map(|length| (0, length))
            }
        };
        match there {
            Some(there) => cut(&head.headers, status, fields, there, length),
            None => Send::Bytes(0, None, length),
        }
    }

    /// Readers of what is to be sent; `None`: it is gone.
    fn readers(&self, send: &Send) -> Option<Vec<BodyReader>> {
        let body = &self.object;
        match send {
            Send::Nothing => Some(Vec::new()),
            Send::Bytes(from, to, _) => body.read(*from, *to).map(|reader| vec![reader]),
            Send::Parts(parts, _) => {
                parts.iter().take(1).map(|(_, range)| body.read(range.start, Some(range.end))).collect()
            }
        }
    }
}

/// What the ranges of a request ask for of a body that begins at this byte of so many, and is so long.
fn cut(
    request: &HeaderMap,
    status: &mut StatusCode,
    fields: &mut HeaderMap,
    (start, total): (u64, u64),
    length: Option<u64>,
) -> Send {
    let whole = Send::Bytes(0, None, length);
    match range::wanted(request, total, MOST_RANGES) {
        Wanted::Whole => whole,
        Wanted::Unsatisfiable => {
            *status = StatusCode::RANGE_NOT_SATISFIABLE;
            conditional::reduce_to_not_modified(fields);
            set(fields, &ContentRange { range: None, length: Some(total) });
            fields.insert(CONTENT_LENGTH, 0.into());
            Send::Nothing
        }
        Wanted::Parts(ranges) => {
            let is_here =
                |range: &Range<u64>| range.start >= start && length.is_none_or(|length| range.end <= start + length);
            match &*ranges {
                [range] if is_here(range) => {
                    *status = StatusCode::PARTIAL_CONTENT;
                    set(fields, &ContentRange { range: Some(range.clone()), length: Some(total) });
                    // Who reads to the end is told of it once all is stored.
                    let to = Some(range.end - start).filter(|to| Some(*to) != length);
                    Send::Bytes(range.start - start, to, Some(range.end - range.start))
                }
                several if several.len() > 1 && several.iter().all(is_here) => {
                    *status = StatusCode::PARTIAL_CONTENT;
                    several_parts(several, start, total, fields)
                }
                _ => whole,
            }
        }
    }
}

impl Opening {
    /// Begins the response. `None`: it has no body. Else what is sent, and how long that is.
    pub(super) async fn write(
        self,
        session: &mut Session,
        ctx: &mut Ctx,
        told: Told,
    ) -> Result<Option<(Send, Option<u64>)>> {
        let Self { status, mut fields, send } = self;
        let length = write_length(session, status, &mut fields, &send);
        if let Some(connection) = &ctx.connection
            && let Some(date) = fields.get(DATE)
            && session.req_header().version != Version::HTTP_2
        {
            connection.keep_date(date);
        }
        let mut parts = Response::new(()).into_parts().0;
        (parts.status, parts.headers) = (status, fields);
        let mut head = ResponseHeader::from(parts);
        ctx.told = Some(told);
        if ctx.connection.as_ref().is_some_and(|connection| connection.is_closing()) {
            session.set_keepalive(None);
        }
        respond::finish_head(session, &mut head, ctx)?;
        let is_bodiless = session.req_header().method == Method::HEAD || length == Some(0);
        session.write_response_header(Box::new(head), is_bodiless).await?;
        Ok((!is_bodiless).then_some((send, length)))
    }
}

impl Send {
    /// The ranges of a body of so many bytes, each with what goes before it, and what goes behind the last.
    pub(super) fn ranges(&self, total: u64) -> (Vec<(Bytes, Range<u64>)>, Bytes) {
        match self {
            Self::Nothing => Default::default(),
            Self::Bytes(from, to, _) => (vec![(Bytes::new(), *from..to.unwrap_or(total))], Bytes::new()),
            Self::Parts(parts, end) => (parts.clone(), end.clone()),
        }
    }
}

/// Whether what is stored under one id holds what this request asks for of it.
pub(super) fn holds(object: &Object, head: &pingora::http::RequestHeader) -> bool {
    let (start, total) = match object.record.kind() {
        Kind::Part(start, total) => (start, total),
        Kind::Sliced(..) => return false,
        Kind::Whole | Kind::Variants => return true,
    };
    let (Some(total), Some(length)) = (total, object.len()) else { return false };
    let fields = object.record.headers();
    let stored =
        conditional::Stored { status: StatusCode::OK, headers: &fields, received: object.record.terms().received() };
    let is_asked = head.method == Method::GET && conditional::is_range_heard(&head.headers, &stored);
    match range::wanted(&head.headers, total, MOST_RANGES) {
        Wanted::Parts(ranges) if is_asked => {
            ranges.iter().all(|range| range.start >= start && range.end <= start + length)
        }
        Wanted::Unsatisfiable => is_asked,
        _ => false,
    }
}

fn set(fields: &mut HeaderMap, range: &ContentRange) {
    if let Ok(value) = HeaderValue::from_str(&range.to_string()) {
        fields.insert(CONTENT_RANGE, value);
    }
}

/// A `multipart/byteranges` body (RFC 9110 14.6, 15.3.7.2).
fn several_parts(ranges: &[Range<u64>], start: u64, total: u64, fields: &mut HeaderMap) -> Send {
    let boundary = format!("{:032x}", fastrand::u128(..));
    let content_type = fields.get(CONTENT_TYPE).cloned();
    let parts = ranges.iter().map(|range| {
        let mut head = format!("\r\n--{boundary}\r\n").into_bytes();
        if let Some(content_type) = &content_type {
            head.extend_from_slice(b"Content-Type: ");
            head.extend_from_slice(content_type.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        let content_range = ContentRange { range: Some(range.clone()), length: Some(total) };
        head.extend_from_slice(format!("Content-Range: {content_range}\r\n\r\n").as_bytes());
        (Bytes::from(head), range.start - start..range.end - start)
    });
    let parts = parts.collect();
    fields.remove(CONTENT_RANGE);
    if let Ok(value) = HeaderValue::from_str(&format!("multipart/byteranges; boundary={boundary}")) {
        fields.insert(CONTENT_TYPE, value);
    }
    Send::Parts(parts, format!("\r\n--{boundary}--\r\n").into())
}

/// Says how long the body is, which is told; `None`: its end tells it.
fn write_length(session: &mut Session, status: StatusCode, fields: &mut HeaderMap, send: &Send) -> Option<u64> {
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        fields.remove(CONTENT_LENGTH);
        return Some(0);
    }
    let length = match send {
        Send::Nothing => Some(0),
        Send::Bytes(_, _, length) => *length,
        Send::Parts(parts, end) => Some(
            parts.iter().map(|(head, range)| head.len() as u64 + range.end - range.start).sum::<u64>()
                + end.len() as u64,
        ),
    };
    match length {
        Some(length) => drop(fields.insert(CONTENT_LENGTH, length.into())),
        None => {
            fields.remove(CONTENT_LENGTH);
            match session.req_header().version {
                Version::HTTP_11 => drop(fields.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))),
                // The end of the connection ends the body (RFC 9112 6.3).
                Version::HTTP_10 => session.set_keepalive(None),
                _ => {}
            }
        }
    }
    length
}

async fn write_all(session: &mut Session, mut reader: BodyReader, length: Option<u64>) -> Result<()> {
    let mut written = 0;
    while let Some(piece) = next(session, &mut reader).await? {
        written += piece.len() as u64;
        let ends = length == Some(written);
        if ends && next(session, &mut reader).await?.is_some() {
            return Err(broken());
        }
        // The end is told once all is stored: who asks again as soon as it has the last byte finds it.
        session.write_response_body(Some(piece), ends).await?;
        if ends {
            return Ok(());
        }
    }
    if length.is_some() {
        return Err(broken());
    }
    session.write_response_body(None, true).await
}

pub(super) async fn write_part(session: &mut Session, mut reader: BodyReader, length: u64) -> Result<()> {
    let mut written = 0;
    while let Some(piece) = next(session, &mut reader).await? {
        written += piece.len() as u64;
        if written == length && next(session, &mut reader).await?.is_some() {
            break;
        }
        session.write_response_body(Some(piece), false).await?;
        if written == length {
            return Ok(());
        }
    }
    Err(broken())
}

async fn next(session: &mut Session, reader: &mut BodyReader) -> Result<Option<Bytes>> {
    unless_gone(session, reader.next()).await?.map_err(|_| broken())
}

/// What the client has got is not all: its connection, or its stream, must not end as if it were.
pub(super) fn broken() -> Box<Error> {
    Error::explain(ErrorType::ConnectionClosed, "the response broke off").into_up()
}

/// A response that is not stored, straight from the origin.
pub(super) async fn pass(
    session: &mut Session,
    ctx: &mut Ctx,
    head: &ResponseHeader,
    cookies: &[HeaderValue],
    (fill, reader): (&Arc<Fill>, Reader),
) -> Result<()> {
    let mut head = head.clone();
    let request = session.req_header();
    let stored = conditional::Stored { status: head.status, headers: &head.headers, received: SystemTime::now() };
    // The origin has not heard of them.
    let answer = match conditional::evaluate(&request.method, &request.headers, &stored, true) {
        Outcome::NotModified => Some(StatusCode::NOT_MODIFIED),
        Outcome::PreconditionFailed => Some(StatusCode::PRECONDITION_FAILED),
        Outcome::Pass => None,
    };
    if let Some(status) = answer {
        let mut parts: http::response::Parts = head.as_owned_parts();
        conditional::reduce_to_not_modified(&mut parts.headers);
        if status == StatusCode::PRECONDITION_FAILED {
            parts.headers.insert(CONTENT_LENGTH, 0.into());
        }
        parts.status = status;
        head = ResponseHeader::from(parts);
    }
    for cookie in cookies {
        head.append_header(SET_COOKIE, cookie.clone())?;
    }
    let has_length = head.headers.contains_key(CONTENT_LENGTH);
    let is_empty = answer.is_some() || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if !has_length && !is_empty {
        match session.req_header().version {
            Version::HTTP_11 => head.insert_header(TRANSFER_ENCODING, "chunked")?,
            Version::HTTP_10 => session.set_keepalive(None),
            _ => {}
        }
    }
    respond::downstream_head(session, &mut head, ctx)?;
    let is_bodiless = is_empty || session.req_header().method == Method::HEAD;
    session.write_response_header(Box::new(head), is_bodiless).await?;
    if is_bodiless {
        return Ok(());
    }
    let mut reader = BodyReader::Fill(reader);
    while let Some(piece) = next(session, &mut reader).await? {
        session.write_response_body(Some(piece), false).await?;
    }
    if let Some(trailers) = fill.trailers().filter(|_| session.req_header().version == Version::HTTP_2) {
        return session.as_downstream_mut().write_response_trailers(trailers).await;
    }
    session.write_response_body(None, true).await
}
