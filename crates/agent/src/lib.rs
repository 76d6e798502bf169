//! The agent: PID 1 of every sandbox, an HTTP server on an inherited socket.

#![forbid(unsafe_code)]

use utoipa::OpenApi;

/// Run a command.
#[utoipa::path(post, path = "/exec", operation_id = "exec", request_body = api::exec::ExecRequest,
    responses((status = 200, description = "How it ended", body = api::exec::ExecResult)))]
#[expect(dead_code, reason = "documents a route that is being written")]
fn exec() {}

/// Read a file.
#[utoipa::path(get, path = "/files/{path}", operation_id = "readFile",
    params(("path" = String, Path, description = "The file")),
    responses((status = 200, description = "Its bytes", content_type = "application/octet-stream", body = [u8])))]
#[expect(dead_code, reason = "documents a route that is being written")]
fn read() {}

/// Write a file.
#[utoipa::path(put, path = "/files/{path}", operation_id = "writeFile",
    params(("path" = String, Path, description = "The file")),
    request_body(content = [u8], content_type = "application/octet-stream"),
    responses((status = 204, description = "Written")))]
#[expect(dead_code, reason = "documents a route that is being written")]
fn write() {}

/// List a directory.
#[utoipa::path(get, path = "/files:list", operation_id = "listFiles",
    params(api::file::ListFiles),
    responses((status = 200, description = "A page", body = api::file::FileList)))]
#[expect(dead_code, reason = "documents a route that is being written")]
fn list() {}

#[derive(OpenApi)]
#[openapi(paths(exec, read, write, list))]
struct Document;

/// The agent's routes.
#[must_use]
pub fn api() -> utoipa::openapi::OpenApi {
    Document::openapi()
}
