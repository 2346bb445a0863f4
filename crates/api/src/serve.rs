//! The accept loop: bounded connections, a limit on how long a request's head may take, and an orderly end.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::limits::Config;

/// Pause after a failed accept: the usual cause, no descriptor left, lasts until some connection ends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` resolves, then lets running requests end, at most [`Config::request_timeout`] long.
/// A fault of one connection ends only that connection.
pub async fn serve(listener: TcpListener, router: Router, config: Config, shutdown: impl Future<Output = ()>) {
    let seats = Arc::new(Semaphore::new(config.connections_max));
    let graceful = GracefulShutdown::new();
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(config.head_timeout);
    let mut shutdown = pin!(shutdown);
    tracing::info!(address = ?listener.local_addr().ok(), "API listens");
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &seats) => accepted,
        };
        let (stream, seat) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "API could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = watched.await {
                tracing::debug!(%error, "API connection ended");
            }
            drop(seat);
        });
    }
    drop(listener);
    if tokio::time::timeout(config.request_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!("API stopped with requests still running");
    }
}

/// A connection with its seat. The seat comes first: without one, connections stay in the kernel's backlog.
async fn accept(
    listener: &TcpListener,
    seats: &Arc<Semaphore>,
) -> std::io::Result<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let seat = seats.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // Answers are small and wanted at once; a socket that refuses the option still works.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY refused");
    }
    Ok((stream, seat))
}
