//! Servers, replicas and requests.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use callback::Config;
use domain::callback::{Hours, Rules};
use proto::callback::v1;
use proto::callback::v1::callback_service_client::CallbackServiceClient;
use runtime::local::{Durability, RedisServer, wait_until};
use runtime::{Readiness, Shutdown};

use crate::routing::{POOL, Routing};

/// A life in fast motion.
pub(crate) const RULES: Rules = Rules {
    attempts_max: 3,
    attempt_spacing_ms: 100,
    ring_ms: 200,
    lease_ms: 400,
    hours: Hours {
        from_hour: 0,
        until_hour: 24,
    },
    not_placed_retry_ms: 20,
    look_after_ms: 60_000,
    answered_max_ms: 20_000,
    life_max_ms: 600_000,
};

/// Long enough for a busy machine; nothing waits for it when all is well.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) async fn redis() -> RedisServer {
    RedisServer::start(Durability::Always)
        .await
        .expect("redis-server starts")
}

static NEXT: AtomicU64 = AtomicU64::new(1);

/// A number that no other test uses.
pub(crate) fn unique() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) fn config(redis: &RedisServer, routing: &Routing) -> Config {
    let prefix = format!("test-{}-{}", std::process::id(), unique());
    let mut config = Config::for_test(&redis.url(), &prefix, &[routing.address.to_string()]);
    config.rules = Some(RULES);
    config
}

/// A replica in a runtime of its own, so that it can be lost at once: dropped with every
/// task and every connection it has.
pub(crate) struct Replica {
    runtime: Option<tokio::runtime::Runtime>,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) readiness: Readiness,
    pub(crate) shutdown: Shutdown,
}

impl Replica {
    pub(crate) async fn start(config: Config) -> Self {
        tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("a runtime");
            let shutdown = Shutdown::new();
            let running = runtime
                .block_on(callback::start(config, shutdown.clone()))
                .expect("it starts");
            Self {
                address: running.grpc.expect("it serves"),
                admin: running.admin,
                readiness: running.readiness,
                runtime: Some(runtime),
                shutdown,
            }
        })
        .await
        .expect("it starts")
    }

    pub(crate) async fn ready(config: Config) -> Self {
        let replica = Self::start(config).await;
        replica.wait_ready().await;
        replica
    }

    pub(crate) async fn wait_ready(&self) {
        wait_until("the replica is ready", LIMIT, || async {
            self.readiness.check().is_ok()
        })
        .await
        .expect("ready");
    }

    /// As kill -9 would.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// The booking of a contact; asked again while the store is just coming back.
    pub(crate) async fn state(&self, contact: &Bytes) -> v1::GetBookingResponse {
        let mut client = CallbackServiceClient::connect(format!("http://{}", self.address))
            .await
            .expect("it serves");
        let start = std::time::Instant::now();
        loop {
            let request = v1::GetBookingRequest {
                contact_id: contact.clone(),
            };
            match client.get_booking(request).await {
                Ok(answer) => return answer.into_inner(),
                Err(status)
                    if status.code() == tonic::Code::Unavailable && start.elapsed() < LIMIT =>
                {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(status) => panic!("{status}"),
            }
        }
    }

    pub(crate) async fn wait_state(&self, contact: &Bytes, state: &str) {
        wait_until(state, LIMIT, || async {
            self.state(contact).await.state == state
        })
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    }

    pub(crate) async fn metrics(&self) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(self.admin)
            .await
            .expect("it serves");
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await
            .expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("text");
        text
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The ciphertext of a number that no test may find anywhere else.
pub(crate) const NUMBER: &[u8] = b"ciphertext-of-a-number-to-call-0123456789";

pub(crate) fn bytes_of(number: u64) -> Bytes {
    // Spread as a hash would.
    let high = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let low = number.wrapping_mul(0xc2b2_ae3d_27d4_eb4f) ^ 0x5555;
    Bytes::copy_from_slice(&[high.to_be_bytes(), low.to_be_bytes()].concat())
}

/// A request to book for a caller nobody has heard of.
pub(crate) fn book() -> v1::Book {
    let number = unique();
    v1::Book {
        contact_id: bytes_of(number),
        pool: POOL.to_owned(),
        switch_id: "switch-1".to_owned(),
        caller: bytes_of(number + 1_000_000),
        number: Bytes::from_static(NUMBER),
        window: None,
        time_zone: "America/New_York".to_owned(),
        line: "main".to_owned(),
        topic: "TEST_TOPIC".to_owned(),
        language: "en".to_owned(),
        arrived_at_ms: 1_776_092_400_000,
        expected_callback_ms: 600_000,
    }
}
