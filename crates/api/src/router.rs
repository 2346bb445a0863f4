//! Routes → handlers. The table [`ROUTES`] is what `/` answers with; a test holds it and the router together.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, OriginalUri, Path, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde::Serialize;
use types::{Address, BatchId, Epoch, Height, TxId};

use crate::backend::{Backend, BlockAt};
use crate::error::ApiError;
use crate::info::{
    AccountInfo, BatchInfo, BlockInfo, EpochInfo, GenesisInfo, GuardInfo, NodeInfo, PeerInfo, TransactionInfo, ValidatorsInfo,
};
use crate::limits::{Config, Gate, gate};
use crate::metrics;
use crate::submit;

/// One line of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// HTTP method.
    pub method: &'static str,
    /// Path; `{…}` is a parameter.
    pub path: &'static str,
    /// What it answers.
    pub summary: &'static str,
}

const fn route(method: &'static str, path: &'static str, summary: &'static str) -> Route {
    Route { method, path, summary }
}

/// All routes, in the order of the index.
pub const ROUTES: &[Route] = &[
    route("GET", "/", "this index"),
    route("GET", "/health", "200 while the process serves requests"),
    route("GET", "/ready", "200 while the node does its work, else 503 and what it lacks"),
    route("GET", "/metrics", "all metrics, OpenMetrics text"),
    route("GET", "/api/v1/node/info", "who and where the node is"),
    route("GET", "/api/v1/genesis", "the genesis record; its hash is the chain id"),
    route("GET", "/api/v1/epochs/{epoch}", "an epoch's record: parameters and validators"),
    route("GET", "/api/v1/blocks/latest", "the highest final block"),
    route("GET", "/api/v1/blocks/{height}", "a final block: header, body, finality proof, epoch record"),
    route("GET", "/api/v1/batches/{id}", "a batch: header, author's signature, transactions"),
    route(
        "POST",
        "/api/v1/transactions",
        "send 1 to 512 signed transactions: a JSON object or array, or application/octet-stream with a borsh list",
    ),
    route("GET", "/api/v1/transactions/{id}", "a transaction's status, receipt and proof"),
    route("GET", "/api/v1/accounts/{address}", "an account with a proof of its presence or absence"),
    route("GET", "/api/v1/validators", "the current epoch's validators"),
    route("GET", "/api/v1/network/peers", "connected peers"),
    route("GET", "/api/v1/guard", "the kernel guard: attachment, verdicts, bans"),
];

type Shared = Arc<dyn Backend>;

/// Requests of monitoring served at once: apart from all others, so that a flood of questions can't blind the operator.
const MONITORING_REQUESTS_MAX: usize = 16;

/// The whole HTTP surface over a backend.
pub fn router(backend: Arc<dyn Backend>, config: &Config) -> Router {
    let monitoring = Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics_text))
        .layer(middleware::from_fn_with_state(Gate::new(MONITORING_REQUESTS_MAX, config.request_timeout), gate));
    let questions = Router::new()
        .route("/", get(index))
        .route("/api/v1/node/info", get(node_info))
        .route("/api/v1/genesis", get(genesis))
        .route("/api/v1/epochs/{epoch}", get(epoch))
        .route("/api/v1/blocks/latest", get(latest_block))
        .route("/api/v1/blocks/{height}", get(block))
        .route("/api/v1/batches/{id}", get(batch))
        .route("/api/v1/transactions", post(submit::submit))
        .route("/api/v1/transactions/{id}", get(transaction))
        .route("/api/v1/accounts/{address}", get(account))
        .route("/api/v1/validators", get(validators))
        .route("/api/v1/network/peers", get(peers))
        .route("/api/v1/guard", get(guard))
        .layer(middleware::from_fn_with_state(Gate::new(config.requests_max, config.request_timeout), gate))
        .layer(DefaultBodyLimit::max(config.body_bytes_max));
    monitoring.merge(questions).method_not_allowed_fallback(method_not_allowed).fallback(unknown_route).with_state(backend)
}

async fn unknown_route(uri: OriginalUri) -> ApiError {
    // The path is shown shortened: it is the client's own text, of any length.
    let path: String = uri.path().chars().take(128).collect();
    ApiError::not_found("route_unknown", format!("no route {path}; GET / lists all"))
}

async fn method_not_allowed(method: Method) -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{method} is not allowed here; GET / lists all routes"),
    )
}

#[derive(Serialize)]
struct Index {
    name: &'static str,
    version: &'static str,
    routes: &'static [Route],
}

async fn index() -> impl IntoResponse {
    Json(Index { name: "ebpf-node", version: env!("CARGO_PKG_VERSION"), routes: ROUTES })
}

async fn health() -> impl IntoResponse {
    Json(serde_json::json!({ "status": "ok" }))
}

async fn ready(State(backend): State<Shared>) -> Response {
    let readiness = backend.readiness().await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn metrics_text(State(backend): State<Shared>) -> Result<Response, ApiError> {
    let text = backend.metrics().await?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

type Answer<T> = Result<Json<T>, ApiError>;

async fn node_info(State(backend): State<Shared>) -> Answer<NodeInfo> {
    Ok(Json(backend.node_info().await?))
}

async fn genesis(State(backend): State<Shared>) -> Answer<GenesisInfo> {
    Ok(Json(backend.genesis().await?))
}

/// A path parameter as it came; it need not even be UTF-8.
type PathText = Result<Path<String>, PathRejection>;

/// Reads a path parameter; what does not parse is named in the refusal.
fn parse<T: std::str::FromStr>(text: PathText, what: &'static str) -> Result<T, ApiError> {
    let parsed = text.ok().and_then(|Path(text)| text.parse().ok());
    parsed.ok_or_else(|| ApiError::bad_request(format!("{what} expected in the path")))
}

async fn epoch(State(backend): State<Shared>, text: PathText) -> Answer<EpochInfo> {
    let epoch: Epoch = parse(text, "an epoch number")?;
    let info = backend.epoch(epoch).await?;
    info.map(Json).ok_or_else(|| ApiError::not_found("epoch_unknown", format!("epoch {epoch} is not known yet")))
}

async fn latest_block(State(backend): State<Shared>) -> Answer<BlockInfo> {
    let info = backend.block(BlockAt::Latest).await?;
    info.map(Json).ok_or_else(|| ApiError::not_found("block_unknown", "no block is final yet"))
}

async fn block(State(backend): State<Shared>, text: PathText) -> Answer<BlockInfo> {
    let height: Height = parse(text, "a height or `latest`")?;
    let info = backend.block(BlockAt::Height(height)).await?;
    info.map(Json).ok_or_else(|| ApiError::not_found("block_unknown", format!("no final block at height {height}")))
}

async fn batch(State(backend): State<Shared>, text: PathText) -> Answer<BatchInfo> {
    let id: BatchId = parse(text, "a batch id of 64 hex digits")?;
    let info = backend.batch(id).await?;
    info.map(Json).ok_or_else(|| ApiError::not_found("batch_unknown", format!("batch {id} is not held here")))
}

async fn transaction(State(backend): State<Shared>, text: PathText) -> Answer<TransactionInfo> {
    let id: TxId = parse(text, "a transaction id of 64 hex digits")?;
    Ok(Json(backend.transaction(id).await?))
}

async fn account(State(backend): State<Shared>, text: PathText) -> Answer<AccountInfo> {
    let address: Address = parse(text, "an address of 64 hex digits")?;
    Ok(Json(backend.account(address).await?))
}

async fn validators(State(backend): State<Shared>) -> Answer<ValidatorsInfo> {
    Ok(Json(backend.validators().await?))
}

async fn peers(State(backend): State<Shared>) -> Answer<Vec<PeerInfo>> {
    Ok(Json(backend.peers().await?))
}

async fn guard(State(backend): State<Shared>) -> Answer<GuardInfo> {
    Ok(Json(backend.guard().await?))
}
