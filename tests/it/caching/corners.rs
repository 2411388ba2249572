//! Where two things meet: a response on its way and what becomes of it, of its URL, or of those who wait for it.

use super::{Stage, ask, begin, date, is_hit, open_connections, told};
use crate::harness::{Answer, Connection, Request, eventually, get, names};

const MINUTE: &str = "max-age=60";

#[test]
fn what_turns_out_too_large_is_sent_to_its_end() {
    let stage = Stage::new("{ max_object: 1KiB }");
    let body: Vec<u8> = (0..3 << 20).map(|at: u32| at as u8).collect();
    stage.answers("/", [Answer::cached(MINUTE, body.clone()).chunked()]);
    for _ in 0..2 {
        assert!(stage.get("/").body == body);
        assert!(stage.h2(&get("/")).body == body);
    }
}
