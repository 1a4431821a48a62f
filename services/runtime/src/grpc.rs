//! The only way to make a channel or a server: deadlines, keep-alive and TLS alike
//! everywhere.

use std::time::Duration;

use anyhow::Context as _;
use tonic::transport::{
    Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig,
};
use x509_parser::extensions::GeneralName;

use crate::TlsArgs;

/// HTTP/2 pings this often: a peer whose machine vanished is found within two.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Frames of up to 512 messages of up to a few KiB; beyond this it is an attack or a bug.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A channel to `endpoint` ("host:port", or a URL), connected at first use and again after
/// a loss.
///
/// # Errors
/// The endpoint or the TLS files cannot be understood.
pub fn connect_lazy(endpoint: &str, tls: &TlsArgs) -> anyhow::Result<Channel> {
    Ok(self::endpoint(endpoint, tls)?.connect_lazy())
}

/// The endpoint behind [`connect_lazy`], for those who must know when it is connected.
///
/// # Errors
/// The endpoint or the TLS files cannot be understood.
pub fn endpoint(endpoint: &str, tls: &TlsArgs) -> anyhow::Result<Endpoint> {
    let files = tls.read()?;
    let host = endpoint
        .trim_start_matches("http://")
        .trim_start_matches("https://");
    let scheme = if files.is_some() { "https" } else { "http" };
    let mut built = Endpoint::from_shared(format!("{scheme}://{host}"))
        .with_context(|| format!("endpoint: {endpoint:?} is not host:port"))?
        .connect_timeout(Duration::from_secs(2))
        .tcp_nodelay(true)
        .tcp_keepalive(Some(KEEPALIVE))
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_connection_window_size(4 * 1024 * 1024)
        .initial_stream_window_size(2 * 1024 * 1024);
    if let Some(files) = files {
        let domain = host.rsplit_once(':').map_or(host, |(name, _)| name);
        built = built.tls_config(
            ClientTlsConfig::new()
                .domain_name(domain)
                .ca_certificate(Certificate::from_pem(files.authority))
                .identity(Identity::from_pem(files.certificate, files.key)),
        )?;
    }
    Ok(built)
}

/// The server every role uses.
pub(crate) fn server(tls: &TlsArgs) -> anyhow::Result<Server> {
    let mut server = Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_connection_window_size(4 * 1024 * 1024)
        .initial_stream_window_size(2 * 1024 * 1024)
        .max_concurrent_streams(1_024);
    if let Some(files) = tls.read()? {
        server = server.tls_config(
            ServerTlsConfig::new()
                .identity(Identity::from_pem(files.certificate, files.key))
                .client_ca_root(Certificate::from_pem(files.authority)),
        )?;
    }
    Ok(server)
}

/// The names in the client's certificate: DNS subject alternative names and the common
/// name. Empty without TLS.
#[must_use]
pub fn peer_names<T>(request: &tonic::Request<T>) -> Vec<String> {
    let Some(certificates) = request.peer_certs() else {
        return Vec::new();
    };
    let Some(first) = certificates.first() else {
        return Vec::new();
    };
    certificate_names(first.as_ref())
}

fn certificate_names(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(der) else {
        return Vec::new();
    };
    let mut names: Vec<String> = certificate
        .subject()
        .iter_common_name()
        .filter_map(|name| name.as_str().ok().map(str::to_owned))
        .collect();
    if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
        for name in &alternatives.value.general_names {
            if let GeneralName::DNSName(name) = name {
                names.push((*name).to_owned());
            }
        }
    }
    names
}
