//! Keys: create, list, remove; replace the local one. All need an admin key.

use api::{
    id::KeyName,
    key::{CreateKey, Key, KeyList, NewKey},
};
use reqwest::Method;

use crate::{Client, ClientError, call::ANSWER_LIMIT};

impl Client {
    /// Creates a key. Its secret is in the answer and nowhere else.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `KEY_EXISTS`, `FORBIDDEN`, ...
    pub async fn create_key(&self, request: &CreateKey) -> Result<NewKey, ClientError> {
        let call = self.request(Method::POST, "/v1/keys").json(request);
        self.send_json("create a key", ANSWER_LIMIT, call).await
    }

    /// All keys, sorted by name.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `FORBIDDEN`.
    pub async fn list_keys(&self) -> Result<Vec<Key>, ClientError> {
        let call = self.request(Method::GET, "/v1/keys");
        let list: KeyList = self.send_json("list the keys", ANSWER_LIMIT, call).await?;
        Ok(list.keys)
    }

    /// Removes a key. When it was this client's own, further calls fail with `UNAUTHORIZED`.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `KEY_NOT_FOUND`, `FORBIDDEN`.
    pub async fn remove_key(&self, name: &KeyName) -> Result<(), ClientError> {
        let call = self.request(Method::DELETE, &format!("/v1/keys/{name}"));
        self.send("remove a key", ANSWER_LIMIT, call).await.map(drop)
    }

    /// Replaces the key of the clients on the server's machine, and returns the new one. A client
    /// that was made with the old one has to be made again.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `FORBIDDEN`.
    pub async fn rotate_key(&self) -> Result<NewKey, ClientError> {
        let call = self.request(Method::POST, "/v1/keys:rotate");
        self.send_json("replace the local key", ANSWER_LIMIT, call).await
    }
}
