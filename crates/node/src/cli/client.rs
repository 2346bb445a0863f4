//! A small blocking client of a node's API, for the command line.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

const TIMEOUT: Duration = Duration::from_secs(10);
const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A node's API under a base URL.
pub struct Client {
    base: String,
    agent: ureq::Agent,
}

impl Client {
    /// For a base such as `http://127.0.0.1:8545`.
    pub fn new(base: &str) -> Client {
        let config = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build();
        Client { base: base.trim_end_matches('/').to_owned(), agent: config.into() }
    }

    /// GET, as JSON.
    ///
    /// # Errors
    /// If the node can't be reached, or with its own error text.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let url = format!("{}{path}", self.base);
        let response = self.agent.get(&url).call().with_context(|| format!("can't reach {url}; is the node running?"))?;
        read(response)
    }

    /// POST of canonical bytes, answer as JSON.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T> {
        let url = format!("{}{path}", self.base);
        let request = self.agent.post(&url).header("content-type", "application/octet-stream");
        read(request.send(body).with_context(|| format!("can't reach {url}; is the node running?"))?)
    }
}

fn read<T: DeserializeOwned>(mut response: ureq::http::Response<ureq::Body>) -> Result<T> {
    let status = response.status();
    let text = response.body_mut().with_config().limit(BODY_BYTES_MAX).read_to_string().context("reading the answer")?;
    if !status.is_success() {
        let error: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let message = error["error"]["message"].as_str().unwrap_or(text.trim());
        let code = error["error"]["code"].as_str().unwrap_or("http");
        bail!("{} ({code}): {message}", status.as_u16());
    }
    serde_json::from_str(&text).context("the answer is not what this version expects")
}
