//! Arguments that every role has. Each is a flag and an environment variable; they are
//! checked before a port is bound and never change afterwards.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, bail};

/// Arguments that every role has.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Address of the gRPC port; port 0 takes a free one
    #[arg(long, env = "TRUNKLINE_LISTEN", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Address of the admin port (/live /ready /metrics /log-level); port 0 takes a free one
    #[arg(long, env = "TRUNKLINE_ADMIN_LISTEN", default_value = "127.0.0.1:0")]
    pub admin_listen: SocketAddr,
    /// Names this replica in logs and leases; empty: made up from the role, host and process
    #[arg(long, env = "TRUNKLINE_INSTANCE", default_value = "")]
    pub instance: String,
    /// Address under which peers reach this replica's gRPC port; empty: the bound address
    #[arg(long, env = "TRUNKLINE_ADVERTISE", default_value = "")]
    pub advertise: String,
    /// From SIGTERM (not ready any more) to the start of the hand-over, in ms: endpoints
    /// must have heard by then
    #[arg(long, env = "TRUNKLINE_DRAIN_DELAY_MS", default_value_t = 500)]
    pub drain_delay_ms: u64,
    /// How long the hand-over, and after it the open streams, may take, in ms
    #[arg(long, env = "TRUNKLINE_DRAIN_TIMEOUT_MS", default_value_t = 10_000)]
    pub drain_timeout_ms: u64,
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a doc comment here would become the command's help"
    )]
    pub tls: TlsArgs,
}

/// Mutual TLS: all three or none. None is for development only.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct TlsArgs {
    /// This replica's certificate chain, PEM
    #[arg(long, env = "TRUNKLINE_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, env = "TRUNKLINE_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// The authority that signed every peer's certificate, PEM
    #[arg(long, env = "TRUNKLINE_TLS_CA")]
    pub tls_ca: Option<PathBuf>,
}

/// The three files, read.
pub(crate) struct TlsFiles {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
    pub(crate) authority: Vec<u8>,
}

impl TlsArgs {
    /// Reads the files, if TLS is on.
    pub(crate) fn read(&self) -> anyhow::Result<Option<TlsFiles>> {
        let (certificate, key, authority) = match (&self.tls_cert, &self.tls_key, &self.tls_ca) {
            (None, None, None) => return Ok(None),
            (Some(certificate), Some(key), Some(authority)) => (certificate, key, authority),
            _ => bail!("tls_cert, tls_key and tls_ca: give all three, or none for development"),
        };
        let read = |path: &PathBuf| {
            std::fs::read(path).with_context(|| format!("reading the TLS file {}", path.display()))
        };
        Ok(Some(TlsFiles {
            certificate: read(certificate)?,
            key: read(key)?,
            authority: read(authority)?,
        }))
    }
}

impl Args {
    /// Arguments for a test: free ports, no drain delay.
    #[must_use]
    pub fn for_test() -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            listen: loopback,
            admin_listen: loopback,
            instance: String::new(),
            advertise: String::new(),
            drain_delay_ms: 0,
            drain_timeout_ms: 5_000,
            tls: TlsArgs::default(),
        }
    }

    /// Checks the arguments against each other.
    ///
    /// # Errors
    /// Names the argument, the limit and the value.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.drain_delay_ms > 60_000 {
            bail!(
                "drain_delay_ms: {} is outside the limit: at most 60000",
                self.drain_delay_ms
            );
        }
        if !(100..=600_000).contains(&self.drain_timeout_ms) {
            bail!(
                "drain_timeout_ms: {} is outside the limit: 100 to 600000",
                self.drain_timeout_ms
            );
        }
        if self.instance.len() > 64 {
            bail!(
                "instance: {:?} is outside the limit: at most 64 bytes",
                self.instance
            );
        }
        if self.listen == self.admin_listen && self.listen.port() != 0 {
            bail!("admin_listen: {} is the same as listen", self.admin_listen);
        }
        self.tls.read().map(|_| ())
    }
}
