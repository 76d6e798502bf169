//! Services: where each is.

use api::{
    id::SandboxId,
    service::{ServiceList, ServiceStatus},
};
use reqwest::Method;

use crate::{Client, ClientError, call::ANSWER_LIMIT};

impl Client {
    /// The services of a sandbox, in the order of their definition. The sandbox is started if it does
    /// not run.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn services(&self, id: &SandboxId) -> Result<Vec<ServiceStatus>, ClientError> {
        let call = self.request(Method::GET, &format!("/v1/sandboxes/{id}/services"));
        let list: ServiceList = self.send_json("list the services", ANSWER_LIMIT, call).await?;
        Ok(list.services)
    }
}
