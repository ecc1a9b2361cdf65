//! Consoles: a request that becomes a line.

use executr_api::console::{CONSOLE_PROTOCOL, ConsoleLine};
use executr_api::{ApiError, ErrorCode};
use reqwest::header::{CONNECTION, UPGRADE};
use reqwest::{Method, StatusCode, Version};

use crate::http::{HttpClient, Repeat};

impl HttpClient {
    /// The line behind the route `path`.
    pub(crate) async fn line(&self, path: &str) -> Result<ConsoleLine, ApiError> {
        let request = self
            .request(Method::GET, path)
            .version(Version::HTTP_11)
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, CONSOLE_PROTOCOL);
        // An answer that was lost may have joined two ends, of which this one isn't.
        let response = self.send(request, Repeat::IfUnsent).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let text = format!(
                "{} doesn't open consoles: it answered {}; is it an older server, or a proxy that takes `Upgrade` away?",
                self.server(),
                response.status()
            );
            return Err(ApiError::new(ErrorCode::Internal, text));
        }
        let upgraded = response.upgrade().await.map_err(|error| self.translate(&error))?;
        Ok(ConsoleLine::over(upgraded))
    }
}
