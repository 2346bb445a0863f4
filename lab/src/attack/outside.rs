//! The world outside the attacker's namespace: a node's API is on the host's loopback, which no namespace reaches.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// HTTP from the host's namespace, usable from inside another one.
#[derive(Debug)]
pub struct Outside {
    http: reqwest::Client,
    // Its one worker was born outside, and so are the sockets that it opens.
    runtime: Option<Runtime>,
}

impl Outside {
    /// Call it before entering a namespace.
    ///
    /// # Errors
    /// If the runtime can't be made.
    pub fn new() -> Result<Outside> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().context("start the outside observer")?;
        let http = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).no_proxy().build().context("make an HTTP client")?;
        Ok(Outside { http, runtime: Some(runtime) })
    }

    /// The text that a URL answers with.
    ///
    /// # Errors
    /// If it does not.
    pub async fn get(&self, url: &str) -> Result<String> {
        let request = self.http.get(url);
        let runtime = self.runtime.as_ref().context("the outside observer has ended")?;
        let task = runtime.spawn(async move { request.send().await?.error_for_status()?.text().await });
        task.await.context("ask from outside")?.with_context(|| format!("GET {url}"))
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
