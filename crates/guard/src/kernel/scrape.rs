//! The Prometheus endpoint: a read-only HTTP server on a thread of its own, off unless an address is configured.
//!
//! One request a connection, few connections, each with a deadline: whoever can reach the address can't hold the guard up.

use super::{
    metrics::{self, Process},
    server::Shared,
};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT, ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, PoisonError},
    time::Duration,
};
use tokio::sync::Semaphore;

/// Connections at one time; further ones are closed at once.
pub const CONNECTIONS_MAX: usize = 16;
/// How long a connection may take from its first byte to its last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request may take to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a request that are kept.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Pause after the machine has run out of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Binds the address, in this thread's network namespace.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves for ever, on a new thread; the process ends it.
pub fn serve(listener: TcpListener, shared: Arc<Shared>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    std::thread::Builder::new().name("guard-metrics".into()).spawn(move || {
        if let Err(error) = runtime.block_on(accept(listener, shared)) {
            tracing::error!(%error, "the metrics endpoint has ended");
        }
    })?;
    Ok(())
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a scrape could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(seat) = seats.clone().try_acquire_owned() else { continue };
        let shared = shared.clone();
        tokio::spawn(async move {
            let _seat = seat;
            let service = service_fn(move |request| std::future::ready(Ok::<_, Infallible>(answer(&request, &shared))));
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).keep_alive(false).max_buf_size(REQUEST_BYTES_MAX);
            let connection = server.serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
                tracing::debug!(%error, "a scrape broke off");
            }
        });
    }
}

fn answer(request: &Request<Incoming>, shared: &Shared) -> Response<String> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "read only: GET or HEAD\n");
        response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => match page(shared) {
            Ok(page) => {
                // Prometheus asks for OpenMetrics; whoever asks for nothing gets what every tool reads.
                let accepted = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
                let (page, kind) = match accepted.into_iter().any(|value| value.contains("application/openmetrics-text")) {
                    true => (page, metrics::CONTENT_TYPE),
                    false => (metrics::plain(&page), metrics::CONTENT_TYPE_PLAIN),
                };
                let mut response = Response::new(page);
                response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
                response
            }
            Err(message) => plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{message}\n")),
        },
        "/" => plain(StatusCode::OK, "ebpf-guard: /metrics\n"),
        _ => plain(StatusCode::NOT_FOUND, "there is /metrics\n"),
    }
}

fn page(shared: &Shared) -> Result<String, String> {
    // The guard is held for a few hundred loads; the text is made afterwards.
    let vitals = shared.guard.lock().unwrap_or_else(PoisonError::into_inner).vitals()?;
    metrics::encode(vitals, Process::read()).map_err(|error| error.to_string())
}

fn plain(status: StatusCode, text: &str) -> Response<String> {
    let mut response = Response::new(text.to_string());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
