//! The limits: each is reached, and refuses with its code or closes the connection.

use std::sync::Arc;
use std::time::Duration;

use api::Config;
use axum::Router;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, oneshot};

use crate::backend::{Frozen, Lie, ask};

/// A backend's question that ends when it is told to.
mod stuck {
    use super::*;
    use api::backend::*;
    use api::info::*;
    use async_trait::async_trait;
    use types::*;

    pub struct Stuck {
        pub inner: Arc<Frozen>,
        pub entered: Semaphore,
        pub go_on: Notify,
    }

    #[async_trait]
    impl Backend for Stuck {
        async fn readiness(&self) -> Readiness {
            self.inner.readiness().await
        }
        async fn metrics(&self) -> Result<String, BackendError> {
            self.inner.metrics().await
        }
        async fn node_info(&self) -> Result<NodeInfo, BackendError> {
            self.entered.add_permits(1);
            self.go_on.notified().await;
            self.inner.node_info().await
        }
        async fn block(&self, at: BlockAt) -> Result<Option<BlockInfo>, BackendError> {
            self.inner.block(at).await
        }
        async fn batch(&self, id: BatchId) -> Result<Option<BatchInfo>, BackendError> {
            self.inner.batch(id).await
        }
        async fn submit(&self, list: Vec<SignedTransaction>) -> Result<Vec<Result<TxId, SubmitError>>, BackendError> {
            self.inner.submit(list).await
        }
        async fn transaction(&self, id: TxId) -> Result<TransactionInfo, BackendError> {
            self.inner.transaction(id).await
        }
        async fn account(&self, address: Address) -> Result<AccountInfo, BackendError> {
            self.inner.account(address).await
        }
        async fn peers(&self) -> Result<Vec<PeerInfo>, BackendError> {
            self.inner.peers().await
        }
        async fn validators(&self) -> Result<ValidatorsInfo, BackendError> {
            self.inner.validators().await
        }
        async fn guard(&self) -> Result<GuardInfo, BackendError> {
            self.inner.guard().await
        }
        async fn epoch(&self, epoch: Epoch) -> Result<Option<EpochInfo>, BackendError> {
            self.inner.epoch(epoch).await
        }
        async fn genesis(&self) -> Result<GenesisInfo, BackendError> {
            self.inner.genesis().await
        }
    }
}

fn stuck() -> Arc<stuck::Stuck> {
    Arc::new(stuck::Stuck { inner: Frozen::new(Lie::None), entered: Semaphore::new(0), go_on: Notify::new() })
}

#[tokio::test]
async fn above_its_requests_the_node_is_busy_but_monitoring_sees_it() {
    let backend = stuck();
    let router = api::router(backend.clone(), &Config { requests_max: 1, ..Config::default() });
    let first = tokio::spawn({
        let router = router.clone();
        async move { ask(&router, "/api/v1/node/info").await.status }
    });
    backend.entered.acquire().await.unwrap().forget();
    let second = ask(&router, "/api/v1/node/info").await;
    assert_eq!((second.status, second.code().as_str(), second.retry_after.as_deref()), (503, "busy", Some("1")));
    assert_eq!(ask(&router, "/health").await.status, 200);
    assert_eq!(ask(&router, "/metrics").await.status, 200);
    backend.go_on.notify_one();
    assert_eq!(first.await.unwrap(), 200);
    backend.go_on.notify_one();
    assert_eq!(ask(&router, "/api/v1/node/info").await.status, 200, "the seat is free again");
}

#[tokio::test]
async fn a_question_that_takes_too_long_is_given_up() {
    let router = api::router(stuck(), &Config { request_timeout: Duration::from_millis(20), ..Config::default() });
    let answer = ask(&router, "/api/v1/node/info").await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "timeout"));
}

async fn served(config: Config) -> (std::net::SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let listener = api::listener("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let router = Router::new().route("/", get(|| async { "here" }));
    let shutdown = async { _ = stopped.await };
    (address, stop, tokio::spawn(api::serve(listener, router, config, shutdown)))
}

async fn exchange(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut bytes = [0; 1024];
    let count = stream.read(&mut bytes).await.unwrap();
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

#[tokio::test]
async fn a_head_that_never_ends_is_closed() {
    let (address, stop, server) = served(Config { head_timeout: Duration::from_millis(50), ..Config::default() }).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: ").await.unwrap();
    let mut rest = Vec::new();
    // Ends, by the server's hand: we never close.
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
    stop.send(()).unwrap();
    server.await.unwrap();
}

#[tokio::test]
async fn connections_above_the_limit_wait_for_a_seat() {
    let (address, stop, server) = served(Config { connections_max: 1, ..Config::default() }).await;
    let mut first = TcpStream::connect(address).await.unwrap();
    assert!(exchange(&mut first).await.starts_with("HTTP/1.1 200"));
    let mut second = TcpStream::connect(address).await.unwrap();
    second.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    // The first is still served, the second only after the first has gone.
    assert!(exchange(&mut first).await.starts_with("HTTP/1.1 200"));
    assert_eq!(second.try_read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(first);
    let mut bytes = [0; 12];
    second.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"HTTP/1.1 200");
    stop.send(()).unwrap();
    server.await.unwrap();
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = api::listener(address).await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()));
}
