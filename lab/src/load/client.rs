//! The routes of a node that the load asks, with their answers as plain values.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use api::info::{AccountInfo, BatchInfo, BlockInfo, NodeInfo, TransactionInfo};
use reqwest::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use types::{Address, BatchId, SignedTransaction, TxId};

/// Above it a node counts as gone. A dead node's socket stays open in the runner, so nothing else would tell.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The verdict on one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Taken, or known already.
    Taken,
    /// No room now.
    Full,
    /// Refused for good, with the stable code.
    Refused(String),
}

/// The verdicts on a request, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdicts {
    /// One a transaction.
    pub list: Vec<Verdict>,
    /// What `Retry-After` asks for.
    pub retry_after: Option<Duration>,
}

#[derive(Deserialize)]
struct Answer {
    results: Vec<AnswerEntry>,
}

#[derive(Deserialize)]
struct AnswerEntry {
    status: String,
    error: Option<AnswerError>,
}

#[derive(Deserialize)]
struct AnswerError {
    code: String,
}

/// The same for the question whether a node answers at all.
const INFO_TIMEOUT: Duration = Duration::from_secs(2);

/// HTTP to all nodes; cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    urls: Vec<String>,
}

impl Client {
    /// For nodes given by name and API address.
    ///
    /// # Errors
    /// If the HTTP client can't be made.
    pub fn new(nodes: &[(String, String)]) -> Result<Client> {
        // No proxy: the nodes are on this machine, whatever the environment says.
        let http = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).no_proxy().build().context("make an HTTP client")?;
        Ok(Client { http, urls: nodes.iter().map(|(_, url)| url.clone()).collect() })
    }

    async fn get<T: DeserializeOwned>(&self, node: usize, path: &str) -> Result<Option<T>> {
        let Some(url) = self.urls.get(node) else { bail!("no node {node}") };
        let response = self.http.get(format!("{url}{path}")).send().await.with_context(|| format!("GET {path}"))?;
        match response.status() {
            StatusCode::OK => Ok(Some(response.json().await.with_context(|| format!("answer to GET {path}"))?)),
            StatusCode::NOT_FOUND => Ok(None),
            status => bail!("GET {path}: {status}"),
        }
    }

    /// A final block; `None` if it isn't there yet.
    pub async fn block(&self, node: usize, height: u64) -> Result<Option<BlockInfo>> {
        self.get(node, &format!("/api/v1/blocks/{height}")).await
    }

    /// A batch; `None` if the node doesn't hold it.
    pub async fn batch(&self, node: usize, id: BatchId) -> Result<Option<BatchInfo>> {
        self.get(node, &format!("/api/v1/batches/{id}")).await
    }

    /// A transaction's fate.
    pub async fn transaction(&self, node: usize, id: TxId) -> Result<TransactionInfo> {
        self.get(node, &format!("/api/v1/transactions/{id}")).await?.context("no answer about a transaction")
    }

    /// An account.
    pub async fn account(&self, node: usize, address: Address) -> Result<AccountInfo> {
        self.get(node, &format!("/api/v1/accounts/{address}")).await?.context("no answer about an account")
    }

    /// Who a node is and how far.
    pub async fn info(&self, node: usize) -> Result<NodeInfo> {
        let answer = tokio::time::timeout(INFO_TIMEOUT, self.get(node, "/api/v1/node/info")).await;
        answer.context("no answer in time")??.context("no node info")
    }

    /// Sends transactions as a borsh list.
    ///
    /// # Errors
    /// If the node can't be reached in time or answers none of 202, 422 and 429.
    pub async fn submit(&self, node: usize, transactions: &[SignedTransaction]) -> Result<Verdicts> {
        let Some(url) = self.urls.get(node) else { bail!("no node {node}") };
        let request = self.http.post(format!("{url}/api/v1/transactions"));
        let request = request.header(reqwest::header::CONTENT_TYPE, "application/octet-stream").body(types::encode(transactions));
        let response = request.send().await.context("POST transactions")?;
        let status = response.status();
        if !matches!(status, StatusCode::ACCEPTED | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::TOO_MANY_REQUESTS) {
            bail!("POST transactions: {status} {}", response.text().await.unwrap_or_default());
        }
        let seconds = response.headers().get(reqwest::header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        let answer: Answer = response.json().await.context("answer to POST transactions")?;
        if answer.results.len() != transactions.len() {
            bail!("{} verdicts on {} transactions", answer.results.len(), transactions.len());
        }
        let list = answer.results.into_iter().map(verdict).collect();
        Ok(Verdicts { list, retry_after: seconds.map(Duration::from_secs) })
    }
}

fn verdict(entry: AnswerEntry) -> Verdict {
    match (entry.status.as_str(), entry.error) {
        ("accepted", _) => Verdict::Taken,
        (_, Some(error)) => match error.code.as_str() {
            "duplicate" => Verdict::Taken,
            "full" => Verdict::Full,
            _ => Verdict::Refused(error.code),
        },
        (status, None) => Verdict::Refused(status.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_read_from_the_documented_answer() {
        let text = r#"{"results":[{"id":"00","status":"accepted"},
            {"id":"01","status":"refused","error":{"code":"full","message":"m"}},
            {"id":"02","status":"refused","error":{"code":"duplicate","message":"m"}},
            {"id":"03","status":"refused","error":{"code":"nonce_used","message":"m"}}]}"#;
        let answer: Answer = serde_json::from_str(text).unwrap();
        let list: Vec<Verdict> = answer.results.into_iter().map(verdict).collect();
        assert_eq!(list, [Verdict::Taken, Verdict::Full, Verdict::Taken, Verdict::Refused("nonce_used".to_owned())]);
    }
}
