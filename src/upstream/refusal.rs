//! `Refusal`: why no backend takes a request.

/// Why no backend takes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The upstream has none.
    NoBackend,
    /// None of them is well.
    NoHealthyBackend,
    /// All that could take it were tried already.
    AllTried,
}

impl Refusal {
    /// As one word for logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NoBackend => "no_backend",
            Self::NoHealthyBackend => "no_healthy_backend",
            Self::AllTried => "all_tried",
        }
    }
}
