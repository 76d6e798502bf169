//! The OpenAPI document: the daemon's routes, and the agent's below each sandbox.

use api::{error::ErrorBody, sandbox::FIRST_USE_HEADER};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ContentBuilder, InfoBuilder, License, OpenApi, OpenApiBuilder, RefOr, Response,
        ResponseBuilder,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn},
        schema::{ComponentsBuilder, Ref},
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
        tag::TagBuilder,
    },
};

use crate::forward::table::documented;

/// What one sandbox's routes begin with, in the document.
const SANDBOX: &str = "/v1/sandboxes/{id}";

/// Operations by noun, in reading order.
const TAGS: [(&str, &str); 17] = [
    ("sandbox", "An isolated environment with its own files, processes, limits and network."),
    ("exec", "Run a command and follow it to its end."),
    ("process", "Commands that run on by themselves: start, read, feed, wait for, end."),
    ("service", "Programs that a sandbox runs whenever it runs."),
    ("session", "Shells that keep directory, variables and functions between commands."),
    ("env", "Variables of a sandbox and of its sessions."),
    ("terminal", "Programs on a pseudoterminal, seen and typed into over WebSocket."),
    ("context", "Interpreters that keep variables, and runs of code in them with rich results."),
    (
        "file",
        "Read, write, list, copy, move and delete files inside a sandbox. Contents are raw bodies, or JSON.",
    ),
    ("git", "Check out repositories with the sandbox's own git."),
    ("port", "What listens in a sandbox: URLs for it, waits for it, connections to it."),
    (
        "checkpoint",
        "The files of a sandbox at one moment: to go back to, and to begin others from.",
    ),
    ("event", "What happened in the lives of the sandboxes, and why."),
    ("image", "Immutable root file systems that sandboxes start from."),
    ("key", "Who may call, and for what. For admin keys."),
    ("webhook", "Events sent to a URL, signed, in order, until they are taken. For admin keys."),
    ("node", "The server itself."),
];

const ABOUT: &str = "Runs untrusted code in isolated sandboxes on your own machine.\n\n\
    A sandbox is named by an id you choose and is created by the first request to it, unless that says \
    `x-sandbar-first-use: refused`. Every request \
    but the public ones needs the header `Authorization: Bearer KEY`; on the server's machine the key \
    is in the file `key` of the state directory. A key is an admin's, or for the sandboxes whose ids \
    begin with its prefix: every other sandbox then answers `SANDBOX_NOT_FOUND`, whether or not there \
    is one, and what is for admins `FORBIDDEN`. Bodies are JSON in camelCase; unknown fields are \
    refused. Every error is `{\"error\": {\"code\", \"message\", \"details\", \"requestId\"}}`.";

/// The document without routes.
pub(crate) fn head() -> OpenApi {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A key of the node."))
        .build();
    let components = ComponentsBuilder::new()
        .schema(ErrorBody::name(), ErrorBody::schema())
        .security_scheme("bearer", SecurityScheme::Http(bearer))
        .build();
    let info = InfoBuilder::new()
        .title("Sandbar")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(License::new("Apache-2.0")))
        .build();
    let tags = TAGS
        .iter()
        .map(|(name, about)| TagBuilder::new().name(*name).description(Some(*about)).build());
    OpenApiBuilder::new()
        .info(info)
        .components(Some(components))
        .tags(Some(tags))
        .security(Some([SecurityRequirement::new("bearer", Vec::<String>::new())]))
        .build()
}

/// The daemon's document and the agent's as one. The agent's operations get the sandbox's id and the
/// errors that the way to it adds; every operation gets the error body for what can always happen.
pub(crate) fn assemble(own: OpenApi, mut agent: OpenApi) -> OpenApi {
    // HEAD belongs to GET (RFC 9110, section 9.3.2); described again it would be a second operation
    // of the same name.
    for item in agent.paths.paths.values_mut().filter(|item| item.get.is_some()) {
        item.head = None;
    }
    for (path, operation) in operations(&mut agent) {
        let parameters = operation.parameters.get_or_insert_default();
        parameters.insert(0, id_parameter());
        parameters.push(first_use_parameter());
        // Tags of the agent's handlers are its own affair; here the noun is the path's first word.
        operation.tags = Some(vec![noun(&path).to_owned()]);
    }
    let mut document = own.nest_with_path_composer(SANDBOX, agent, |base, path| {
        format!("{base}{}", documented(path))
    });
    for (_, operation) in operations(&mut document) {
        let errors = operation.responses.responses.entry("default".to_owned());
        errors.or_insert_with(|| RefOr::T(error_response()));
    }
    document
}

/// `exec` for `/exec`, `file` for `/files:list`, `/files/{path}` and `/archive`, `process` for
/// `/processes`, `context` for `/run`.
fn noun(path: &str) -> &str {
    let word = path.trim_start_matches('/').split(['/', ':']).next().unwrap_or_default();
    match word {
        "processes" => "process",
        "archive" => "file",
        "run" => "context",
        word => word.strip_suffix('s').unwrap_or(word),
    }
}

/// Every operation with its path.
fn operations(document: &mut OpenApi) -> impl Iterator<Item = (String, &mut Operation)> {
    document.paths.paths.iter_mut().flat_map(|(path, item)| {
        let methods = [
            item.get.as_mut(),
            item.head.as_mut(),
            item.put.as_mut(),
            item.post.as_mut(),
            item.patch.as_mut(),
            item.delete.as_mut(),
        ];
        methods.into_iter().flatten().map(|operation| (path.clone(), operation))
    })
}

fn id_parameter() -> Parameter {
    ParameterBuilder::new()
        .name("id")
        .parameter_in(ParameterIn::Path)
        .required(utoipa::openapi::Required::True)
        .description(Some("The sandbox; created with the node's defaults if there is none"))
        .schema(Some(api::id::SandboxId::schema()))
        .example(Some("my-sandbox".into()))
        .build()
}

fn first_use_parameter() -> Parameter {
    ParameterBuilder::new()
        .name(FIRST_USE_HEADER)
        .parameter_in(ParameterIn::Header)
        .description(Some("`refused`: of a sandbox that exists, or not at all"))
        .schema(Some(String::schema()))
        .build()
}

fn error_response() -> Response {
    let schema = Ref::from_schema_name(ErrorBody::name());
    ResponseBuilder::new()
        .description("Any other error: no key (401), a key for something else (403, 404), busy (429), a fault of the server (500), ...")
        .content("application/json", ContentBuilder::new().schema(Some(schema)).build())
        .build()
}
