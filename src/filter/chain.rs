//! The filters of one route, split by phase once; runs them and counts what they decide.
//!
//! A phase that no filter wants costs an empty loop. A site's chain is built once and joined before the chains of its
//! routes, so its faults are told once and its decisions are counted once for the site.

use std::sync::Arc;

use pingora::http::{RequestHeader, ResponseHeader};

use super::contract::{Build, BuildContext, Decision, Filter, Flow, Phase};
use crate::diag::Scope;
use crate::exchange::{Exchange, Facts};
use crate::observe::FilterStats;
use crate::reply::Reply;

/// The filters of one route, in the order of the document.
#[derive(Clone, Default)]
pub struct Chain {
    request: Box<[Link]>,
    response: Box<[Link]>,
    names: Box<[&'static str]>,
}

#[derive(Clone)]
struct Link {
    name: &'static str,
    filter: Arc<dyn Filter>,
    stats: Arc<FilterStats>,
}

impl Chain {
    /// Compiles a list of filters. Reports what is wrong below `at`, the place of the list, and leaves that filter out.
    pub fn build(configs: &[impl Build], context: &BuildContext<'_>, at: &Scope<'_>) -> Self {
        let links = configs.iter().enumerate().filter_map(|(index, config)| {
            let filter = config.build(context, &at.index(index))?;
            let stats = context.keep.get_or(&FilterStats::key(context.owner, config.name()), FilterStats::default);
            Some(Link { name: config.name(), filter, stats })
        });
        Self::of(&links.collect::<Vec<_>>())
    }

    fn of(links: &[Link]) -> Self {
        let wanting = |phase| links.iter().filter(|link| link.filter.phases().contains(&phase)).cloned().collect();
        let names = links.iter().map(|link| link.name).collect();
        Self { request: wanting(Phase::Request), response: wanting(Phase::Response), names }
    }

    /// This chain, and after it `next`: a site's filters, then its route's. In both phases in this order, so that what a
    /// route sets on a response wins.
    #[must_use]
    pub fn then(&self, next: &Self) -> Self {
        let joined = |first: &[Link], second: &[Link]| first.iter().chain(second).cloned().collect();
        Self {
            request: joined(&self.request, &next.request),
            response: joined(&self.response, &next.response),
            names: self.names.iter().chain(&next.names).copied().collect(),
        }
    }

    /// The names of all filters, in the order of running.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.names.iter().copied()
    }

    /// Whether no filter wants to see a request (then [`Chain::request`] need not be awaited).
    pub fn is_idle_on_requests(&self) -> bool {
        self.request.is_empty()
    }

    /// Whether no filter wants to see a response.
    pub fn is_idle_on_responses(&self) -> bool {
        self.response.is_empty()
    }

    /// Lets each filter look at the request, until one answers it.
    pub async fn request(&self, head: &mut RequestHeader, exchange: &mut Exchange, route: &str) -> Option<Box<Reply>> {
        for link in &*self.request {
            let decision = match link.filter.request(head, exchange, route) {
                Flow::Now(decision) => decision,
                Flow::Later(decision) => decision.await,
            };
            match decision {
                Decision::Continue => link.stats.continued.inc(),
                Decision::Reply(reply) => {
                    link.stats.replied.inc();
                    return Some(reply);
                }
            }
        }
        None
    }

    /// Lets each filter change the head of the response. `facts.response` is `None`: the head itself is `head`.
    pub fn response(&self, head: &mut ResponseHeader, facts: &Facts<'_>) {
        for link in &*self.response {
            link.filter.response(head, facts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    /// Writes its letter into `x-trace`, and answers when `answer` says so.
    struct Letter {
        letter: &'static str,
        answer: bool,
        later: bool,
        phases: &'static [Phase],
    }

    impl Filter for Letter {
        fn phases(&self) -> &'static [Phase] {
            self.phases
        }

        fn request<'a>(&'a self, head: &'a mut RequestHeader, _: &'a mut Exchange, route: &'a str) -> Flow<'a> {
            assert_eq!(route, "blog");
            head.append_header("x-trace", self.letter).unwrap();
            let decide = move || match self.answer {
                true => Decision::Reply(Box::new(Reply::error(StatusCode::FORBIDDEN))),
                false => Decision::Continue,
            };
            if !self.later {
                return Flow::Now(decide());
            }
            Flow::Later(Box::pin(async move {
                tokio::task::yield_now().await;
                decide()
            }))
        }

        fn response(&self, head: &mut ResponseHeader, _: &Facts<'_>) {
            head.append_header("x-trace", self.letter).unwrap();
        }
    }

    const BOTH: &[Phase] = &[Phase::Request, Phase::Response];

    fn chain(letters: Vec<Letter>) -> Chain {
        let link = |letter| Link { name: "letter", filter: Arc::new(letter), stats: Arc::default() };
        Chain::of(&letters.into_iter().map(link).collect::<Vec<_>>())
    }

    fn letter(letter: &'static str) -> Letter {
        Letter { letter, answer: false, later: false, phases: BOTH }
    }

    fn trace(headers: &http::HeaderMap) -> String {
        headers.get_all("x-trace").iter().map(|value| value.to_str().unwrap()).collect()
    }

    #[tokio::test]
    async fn filters_run_in_the_order_of_the_document_until_one_answers() {
        let site = chain(vec![letter("a"), Letter { later: true, ..letter("b") }]);
        let route = chain(vec![
            Letter { phases: &[Phase::Response], ..letter("c") },
            Letter { answer: true, later: true, ..letter("d") },
            letter("e"),
        ]);
        let chain = site.then(&route);
        let (mut head, mut exchange) = (RequestHeader::build("GET", b"/", None).unwrap(), Exchange::new());
        let reply = chain.request(&mut head, &mut exchange, "blog").await;
        assert_eq!(reply.map(|reply| reply.status), Some(StatusCode::FORBIDDEN));
        assert_eq!(trace(&head.headers), "abd");
        let counts: Vec<_> =
            chain.request.iter().map(|link| (link.stats.continued.get(), link.stats.replied.get())).collect();
        assert_eq!(counts, [(1, 0), (1, 0), (0, 1), (0, 0)]);

        let mut response = ResponseHeader::build(200, None).unwrap();
        let facts =
            Facts { request: &head, exchange: &exchange, response: None, route: "blog", upstream: "", backend: "" };
        chain.response(&mut response, &facts);
        assert_eq!(trace(&response.headers), "abcde");
    }
}
