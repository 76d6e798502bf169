//! The documentation page, rendered from the OpenAPI document: no assets, nothing from elsewhere.

use std::fmt::Write;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Methods in the order they are shown.
const METHODS: [&str; 6] = ["get", "head", "post", "put", "patch", "delete"];

/// A policy under which only this page's own style and script count, by their digests.
pub(super) fn policy() -> String {
    let digest = |text: &str| STANDARD.encode(Sha256::digest(text.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        digest(STYLE),
        digest(SCRIPT)
    )
}

/// The whole page.
pub(super) fn render(document: &Value, url: &str) -> String {
    let title = text(&document["info"]["title"]);
    let version = text(&document["info"]["version"]);
    let source = Source { document, url };
    let mut nav = String::new();
    let mut main = String::new();
    for tag in document["tags"].as_array().into_iter().flatten() {
        section(&source, tag, &mut nav, &mut main);
    }
    schemas(document, &mut nav, &mut main);
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <title>{title} API</title><style>{STYLE}</style>\
         <body><nav><a class=brand href=\"#top\">{title}<small>{version}</small></a>{nav}\
         <p class=raw><a href=\"/openapi.json\">openapi.json</a></nav>\
         <main id=top><header><h1>{title} API</h1>{about}{start}</header>{main}</main>\
         <script>{SCRIPT}</script></body></html>",
        about = prose(&document["info"]["description"]),
        start = first_steps(url),
    )
}

/// What the page is made of.
struct Source<'a> {
    document: &'a Value,
    /// The server's own, for examples.
    url: &'a str,
}

fn first_steps(url: &str) -> String {
    let steps = "KEY=$(sudo cat /var/lib/sandbar/key)\n\
                 curl URL/v1/sandboxes/hello/exec \\\n  \
                 -H \"Authorization: Bearer $KEY\" \\\n  \
                 -H 'Content-Type: application/json' \\\n  \
                 -d '{\"command\": \"uname -a && whoami\"}'";
    format!("<h2>First steps</h2>{}", code(&steps.replace("URL", url)))
}

/// One noun: its operations in the order of the document.
fn section(source: &Source<'_>, tag: &Value, nav: &mut String, main: &mut String) {
    let name = text(&tag["name"]);
    let mut operations = String::new();
    let mut links = String::new();
    for (path, item) in source.document["paths"].as_object().into_iter().flatten() {
        for method in METHODS {
            let operation = &item[method];
            let is_of_tag = operation["tags"].as_array().is_some_and(|t| t.contains(&tag["name"]));
            if is_of_tag {
                let id = text(&operation["operationId"]);
                let summary = title(operation);
                push(&mut links, format_args!("<li><a href=\"#{id}\">{summary}</a>"));
                self::operation(source, path, method, operation, &mut operations);
            }
        }
    }
    if !links.is_empty() {
        push(nav, format_args!("<h2>{name}</h2><ul>{links}</ul>"));
        let about = prose(&tag["description"]);
        push(main, format_args!("<section><h2>{name}</h2>{about}{operations}</section>"));
    }
}

fn operation(source: &Source<'_>, path: &str, method: &str, operation: &Value, out: &mut String) {
    let id = text(&operation["operationId"]);
    let is_public = operation["security"]
        .as_array()
        .is_some_and(|list| list.contains(&Value::Object(Map::new())));
    push(
        out,
        format_args!(
            "<article id=\"{id}\"><h3>{}</h3><p class=route><b class={method}>{}</b> <code>{}</code>{}</p>{}",
            title(operation),
            method.to_uppercase(),
            escape(path),
            if is_public { " <i>no key needed</i>" } else { "" },
            prose(&operation["description"]),
        ),
    );
    parameters(operation, out);
    for (kind, media) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
        push(out, format_args!("<p>Body: {}</p>", content(kind, &media["schema"])));
    }
    responses(operation, out);
    out.push_str(&code(&curl(source, path, method, operation, is_public)));
    out.push_str("</article>");
}

fn parameters(operation: &Value, out: &mut String) {
    let Some(parameters) = operation["parameters"].as_array().filter(|list| !list.is_empty())
    else {
        return;
    };
    out.push_str("<table><tr><th>Parameter<th>In<th>Type<th>Meaning");
    for parameter in parameters {
        let needed = if parameter["required"] == true { "<sup>*</sup>" } else { "" };
        push(
            out,
            format_args!(
                "<tr><td><code>{}</code>{needed}<td>{}<td>{}<td>{}",
                text(&parameter["name"]),
                text(&parameter["in"]),
                shape(&parameter["schema"]),
                inline(&parameter["description"]),
            ),
        );
    }
    out.push_str("</table>");
}

fn responses(operation: &Value, out: &mut String) {
    out.push_str("<table><tr><th>Answer<th>Body<th>Meaning");
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let bodies: Vec<String> = response["content"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(kind, media)| content(kind, &media["schema"]))
            .collect();
        let class = if status.starts_with('2') { "good" } else { "bad" };
        push(
            out,
            format_args!(
                "<tr><td><b class={class}>{}</b><td>{}<td>{}",
                escape(status),
                bodies.join("<br>"),
                inline(&response["description"]),
            ),
        );
    }
    out.push_str("</table>");
}

/// A body in a few words: its type where it is JSON or events, else what kind of bytes.
fn content(kind: &str, schema: &Value) -> String {
    match kind {
        "application/json" => shape(schema),
        "text/event-stream" => format!("{} <code>{kind}</code>", shape(schema)),
        kind => format!("raw <code>{}</code>", escape(kind)),
    }
}

/// A command to copy. Optional query parameters are left out.
fn curl(
    source: &Source<'_>,
    path: &str,
    method: &str,
    operation: &Value,
    is_public: bool,
) -> String {
    let path = path.replace("{id}", "my-sandbox").replace("{path}", "workspace/hello.txt");
    let mut query = String::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        if parameter["in"] == "query" && parameter["required"] == true {
            let name = parameter["name"].as_str().unwrap_or_default();
            push(&mut query, format_args!("?{name}={name}"));
        }
    }
    let query = query.replace("path=path", "path=/workspace");
    let mut line = "curl".to_owned();
    match method {
        "get" => {}
        "head" => line.push_str(" -I"),
        other => push(&mut line, format_args!(" -X {}", other.to_uppercase())),
    }
    push(&mut line, format_args!(" '{}{path}{query}'", source.url));
    if !is_public {
        line.push_str(" \\\n  -H \"Authorization: Bearer $KEY\"");
    }
    match operation["requestBody"]["content"].as_object().and_then(|all| all.iter().next()) {
        Some((kind, media)) if kind == "application/json" => {
            let example =
                example(source.document, &media["schema"], 0).to_string().replace('\'', r"'\''");
            push(
                &mut line,
                format_args!(" \\\n  -H 'Content-Type: application/json' \\\n  -d '{example}'"),
            );
        }
        Some(_) => line.push_str(" \\\n  --data-binary @hello.txt"),
        None => {}
    }
    line
}

/// The schema's own example, or its required fields with plausible values.
fn example(document: &Value, schema: &Value, depth: usize) -> Value {
    /// Deeper schemas than any of ours; guards against one that holds itself.
    const DEPTH: usize = 8;
    let schema = resolve(document, schema);
    if depth > DEPTH {
        return Value::Null;
    }
    if !schema["example"].is_null() {
        return schema["example"].clone();
    }
    if let Some(first) = schema["enum"].as_array().and_then(|all| all.first()) {
        return first.clone();
    }
    if let Some(first) = schema["oneOf"].as_array().and_then(|all| all.first()) {
        return example(document, first, depth + 1);
    }
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten();
            let fields = required.filter_map(Value::as_str).map(|name| {
                (name.to_owned(), example(document, &schema["properties"][name], depth + 1))
            });
            Value::Object(fields.collect())
        }
        Some("array") => Value::Array(vec![example(document, &schema["items"], depth + 1)]),
        Some("integer" | "number") => 1.into(),
        Some("boolean") => true.into(),
        _ => "...".into(),
    }
}

fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    schema["$ref"]
        .as_str()
        .and_then(|reference| document.pointer(reference.strip_prefix('#')?))
        .unwrap_or(schema)
}

fn schemas(document: &Value, nav: &mut String, main: &mut String) {
    nav.push_str("<h2>types</h2><ul>");
    main.push_str("<section><h2>types</h2>");
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        let name = escape(name);
        push(nav, format_args!("<li><a href=\"#type-{name}\">{name}</a>"));
        push(
            main,
            format_args!(
                "<article id=\"type-{name}\"><h3>{name}</h3>{}",
                prose(&schema["description"])
            ),
        );
        members(schema, main);
        main.push_str("</article>");
    }
    nav.push_str("</ul>");
    main.push_str("</section>");
}

/// What a type is made of: its fields, its variants, or its shape.
fn members(schema: &Value, out: &mut String) {
    if let Some(fields) = schema["properties"].as_object() {
        let required = schema["required"].as_array();
        out.push_str("<table><tr><th>Field<th>Type<th>Meaning");
        for (name, field) in fields {
            let is_needed = required.is_some_and(|all| all.contains(&Value::from(name.as_str())));
            let needed = if is_needed { "<sup>*</sup>" } else { "" };
            push(
                out,
                format_args!(
                    "<tr><td><code>{}</code>{needed}<td>{}<td>{}",
                    escape(name),
                    shape(field),
                    inline(&field["description"]),
                ),
            );
        }
        out.push_str("</table>");
    } else if let Some(variants) = schema["oneOf"].as_array() {
        out.push_str("<p>One of:</p>");
        for variant in variants {
            push(out, format_args!("<div class=variant>{}", prose(&variant["description"])));
            members(variant, out);
            out.push_str("</div>");
        }
    } else {
        push(out, format_args!("<p>{}</p>", shape(schema)));
    }
}

/// A schema in a few words, with links to named types.
fn shape(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        let name = escape(name);
        return format!("<a href=\"#type-{name}\">{name}</a>");
    }
    if let Some(values) = schema["enum"].as_array() {
        let values =
            values.iter().map(|value| format!("<code>{}</code>", escape(&value.to_string())));
        return values.collect::<Vec<_>>().join(" | ");
    }
    let any = ["oneOf", "anyOf", "allOf"].iter().find_map(|key| schema[*key].as_array());
    if let Some(any) = any {
        return any.iter().map(shape).collect::<Vec<_>>().join(" or ");
    }
    match &schema["type"] {
        Value::String(kind) if kind == "array" => format!("list of {}", shape(&schema["items"])),
        Value::String(kind) if kind == "object" && schema["additionalProperties"].is_object() => {
            format!("map to {}", shape(&schema["additionalProperties"]))
        }
        Value::String(kind) => escape(kind),
        Value::Array(kinds) => {
            kinds.iter().filter_map(Value::as_str).map(escape).collect::<Vec<_>>().join(" or ")
        }
        _ => String::new(),
    }
}

fn code(source: &str) -> String {
    format!("<pre><button type=button>copy</button><code>{}</code></pre>", escape(source))
}

/// Paragraphs of a description.
fn prose(description: &Value) -> String {
    let text = description.as_str().unwrap_or_default();
    text.split("\n\n")
        .filter(|paragraph| !paragraph.trim().is_empty())
        .fold(String::new(), |html, paragraph| format!("{html}<p>{}</p>", spans(paragraph)))
}

fn inline(description: &Value) -> String {
    spans(description.as_str().unwrap_or_default())
}

/// Escapes a text and sets what stands between backticks as code.
fn spans(source: &str) -> String {
    let mut html = String::new();
    for (index, part) in source.split('`').enumerate() {
        let part = escape(part);
        let is_code = index % 2 == 1;
        html.push_str(&if is_code { format!("<code>{part}</code>") } else { part });
    }
    html
}

/// An operation's summary as a heading.
fn title(operation: &Value) -> String {
    text(&operation["summary"]).trim_end_matches('.').to_owned()
}

fn text(value: &Value) -> String {
    escape(value.as_str().unwrap_or_default())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a String cannot fail");
}
