//! `POST /api/v1/transactions`: bytes in, one verdict a transaction out.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use types::{FORWARD_MAX, SignedTransaction, TxId};

use crate::backend::{Backend, SubmitError};
use crate::error::ApiError;

/// Most characters of a parser's message in an answer.
const MESSAGE_CHARS_MAX: usize = 200;

/// The verdict on one transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Verdict {
    /// Its id, from its bytes.
    id: TxId,
    /// `accepted` or `refused`.
    status: &'static str,
    /// Why refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Reason>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Reason {
    code: &'static str,
    message: String,
}

#[derive(Serialize)]
struct Verdicts {
    results: Vec<Verdict>,
}

/// Answers 202 if something was taken or known already, 422 if all were refused for good, and 429 with `Retry-After` if any
/// found no room. Sending all of them again is safe: what was taken is then `duplicate`.
pub(crate) async fn submit(
    State(backend): State<Arc<dyn Backend>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let body = body.map_err(refused_body)?;
    let transactions = read(&headers, &body)?;
    if transactions.is_empty() || transactions.len() > FORWARD_MAX {
        return Err(ApiError::bad_request(format!("1 to {FORWARD_MAX} transactions expected, got {}", transactions.len())));
    }
    let ids: Vec<TxId> = transactions.iter().map(SignedTransaction::id).collect();
    let verdicts = backend.submit(transactions).await?;
    if verdicts.len() != ids.len() {
        tracing::error!(sent = ids.len(), answered = verdicts.len(), "backend answered another number of transactions");
        return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "a fault of this node; its log says more"));
    }
    Ok(answer(&ids, &verdicts))
}

fn refused_body(rejection: BytesRejection) -> ApiError {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "the body is too large"),
        _ => ApiError::bad_request("the body could not be read"),
    }
}

fn read(headers: &HeaderMap, body: &[u8]) -> Result<Vec<SignedTransaction>, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/json");
    match kind.split(';').next().unwrap_or("").trim() {
        "application/octet-stream" => {
            types::decode(body, body.len()).map_err(|_| ApiError::bad_request("the body is no borsh list of signed transactions"))
        }
        "application/json" => read_json(body).map_err(|error| {
            // The parser's word names the field and the place; it may quote the client's own text, so it is cut.
            let why: String = error.to_string().chars().take(MESSAGE_CHARS_MAX).collect();
            ApiError::bad_request(format!("the body is no signed transaction, nor an array of them: {why}"))
        }),
        _ => Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content_type",
            "application/json or application/octet-stream expected",
        )),
    }
}

/// By the first byte, not by trial: an untyped first pass would hold many times the body's size.
fn read_json(body: &[u8]) -> Result<Vec<SignedTransaction>, serde_json::Error> {
    if body.trim_ascii_start().starts_with(b"[") {
        return serde_json::from_slice(body);
    }
    serde_json::from_slice(body).map(|one| vec![one])
}

fn answer(ids: &[TxId], verdicts: &[Result<TxId, SubmitError>]) -> Response {
    let full_ms = verdicts.iter().filter_map(|v| match v {
        Err(SubmitError::Full { retry_after_ms, .. }) => Some(*retry_after_ms),
        _ => None,
    });
    let retry_after_s = full_ms.max().map(|ms| ms.div_ceil(1_000).max(1));
    let welcome = verdicts.iter().any(|v| matches!(v, Ok(_) | Err(SubmitError::Duplicate(_))));
    let status = match (retry_after_s, welcome) {
        (Some(_), _) => StatusCode::TOO_MANY_REQUESTS,
        (None, true) => StatusCode::ACCEPTED,
        (None, false) => StatusCode::UNPROCESSABLE_ENTITY,
    };
    let results = ids.iter().zip(verdicts).map(|(id, verdict)| match verdict {
        Ok(_) => Verdict { id: *id, status: "accepted", error: None },
        Err(error) => {
            Verdict { id: *id, status: "refused", error: Some(Reason { code: error.code(), message: error.to_string() }) }
        }
    });
    let mut response = (status, Json(Verdicts { results: results.collect() })).into_response();
    if let Some(seconds) = retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
