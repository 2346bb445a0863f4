//! Limits around every route: how many requests at once, how long each, how large a body.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use crate::error::ApiError;

/// Limits of the HTTP edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Largest request body in bytes. The default holds 512 transactions of 1 KiB as JSON (hex doubles them) with room.
    pub body_bytes_max: usize,
    /// Requests served at once; above it 503 `busy` at once, so a flood costs little and queues nothing.
    pub requests_max: usize,
    /// Time for one request, from its head to its answer; above it 504 `timeout`.
    pub request_timeout: Duration,
    /// Connections held at once; above it new ones wait in the kernel's backlog.
    pub connections_max: usize,
    /// Time for a connection to send a request's head; above it the connection is closed.
    pub head_timeout: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            body_bytes_max: 2 * 1024 * 1024,
            requests_max: 128,
            request_timeout: Duration::from_secs(10),
            connections_max: 512,
            head_timeout: Duration::from_secs(10),
        }
    }
}

/// Seats and time that some routes share.
#[derive(Clone)]
pub(crate) struct Gate {
    seats: Arc<Semaphore>,
    timeout: Duration,
}

impl Gate {
    pub(crate) fn new(requests_max: usize, timeout: Duration) -> Gate {
        Gate { seats: Arc::new(Semaphore::new(requests_max)), timeout }
    }
}

/// Serves a request if a seat is free, and for so long as it may take.
pub(crate) async fn gate(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let Ok(_seat) = gate.seats.try_acquire() else {
        return ApiError::unavailable("busy", "too many requests at once").into_response();
    };
    match tokio::time::timeout(gate.timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new(StatusCode::GATEWAY_TIMEOUT, "timeout", "no answer in time").into_response(),
    }
}
