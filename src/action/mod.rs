//! What a route does instead of, or before, passing a request on: redirects, fixed answers, rewrites, error pages.
