//! The HTTP client of processes that speak to their neighbours in the cluster.

/// A client that trusts the system's certificate authorities. Where there are none (a bare image) HTTP
/// still works, and HTTPS says at the request that it trusts nobody.
pub(super) fn client() -> reqwest::Result<reqwest::Client> {
    let builder = || reqwest::Client::builder().no_proxy();
    let trusting = builder().build();
    trusting.or_else(|_| builder().tls_certs_only([]).build())
}
