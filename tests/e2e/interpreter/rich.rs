//! What objects show of themselves.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;

use super::{RUN, run, run_in, server, shows};

#[tokio::test]
async fn an_object_has_every_representation_it_offers() {
    let server = server();
    let code = "class All:\n\
        \x20   def __repr__(self): return 'text'\n\
        \x20   def _repr_html_(self): return '<b>html</b>'\n\
        \x20   def _repr_markdown_(self): return '# markdown'\n\
        \x20   def _repr_svg_(self): return '<svg/>'\n\
        \x20   def _repr_png_(self): return b'\\x89PNG'\n\
        \x20   def _repr_jpeg_(self): return b'\\xff\\xd8'\n\
        \x20   def _repr_pdf_(self): return b'%PDF'\n\
        \x20   def _repr_latex_(self): return '$x$'\n\
        \x20   def _repr_json_(self): return {'a': [1, None]}\n\
        \x20   def _repr_javascript_(self): return 'alert(1)'\n\
        All()";
    let results = shows(&server, code).await;
    let all = &results[0];
    assert!(all.is_main && results.len() == 1);
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let bytes = |field: &Option<String>| BASE64_STANDARD.decode(text(field).trim()).unwrap();
    assert_eq!(text(&all.text), "text");
    assert_eq!(text(&all.html), "<b>html</b>");
    assert_eq!(text(&all.markdown), "# markdown");
    assert_eq!(text(&all.svg), "<svg/>");
    assert_eq!(bytes(&all.png), b"\x89PNG");
    assert_eq!(bytes(&all.jpeg), b"\xff\xd8");
    assert_eq!(bytes(&all.pdf), b"%PDF");
    assert_eq!(text(&all.latex), "$x$");
    assert_eq!(all.json, Some(json!({"a": [1, null]})));
    assert_eq!(text(&all.javascript), "alert(1)");
}

#[tokio::test]
async fn what_is_displayed_comes_in_order_before_the_value() {
    let server = server();
    let code = "from IPython.display import HTML, Markdown, display\n\
        display(HTML('<i>1</i>'))\ndisplay({'application/x-own': {'n': 2}, 'text/plain': 'two'}, raw=True)\n\
        handle = display('first', display_id='d')\nhandle.update('second')\nMarkdown('# 3')";
    let results = shows(&server, code).await;
    assert_eq!(results.len(), 5, "{results:?}");
    assert_eq!(results[0].html.as_deref(), Some("<i>1</i>"));
    assert_eq!(results[1].extra["application/x-own"], json!({"n": 2}));
    assert_eq!((results[2].display_id.as_deref(), results[2].is_update), (Some("d"), false));
    assert_eq!((results[3].display_id.as_deref(), results[3].is_update), (Some("d"), true));
    assert_eq!(results[4].markdown.as_deref(), Some("# 3"));
    let main: Vec<_> = results.iter().map(|result| result.is_main).collect();
    assert_eq!(main, [false, false, false, false, true]);
}

#[tokio::test]
async fn plain_values_are_json_too() {
    let server = server();
    let value = &shows(&server, "{'a': [1, 2.5, None, True], 'ä': {'n': '\\n'}}").await[0];
    assert_eq!(value.json, Some(json!({"a": [1, 2.5, null, true], "ä": {"n": "\n"}})));
    assert!(value.text.as_deref().unwrap_or_default().starts_with("{'a'"));
    for other in ["[float('nan')]", "{1: 2}", "[object()]", "2 ** 70", "{'a': {1, 2}}"] {
        assert_eq!(shows(&server, other).await[0].json, None, "{other}");
    }
}

#[tokio::test]
async fn values_that_go_too_deep_or_far_show_as_text_and_cost_no_context() {
    let server = server();
    let list = "node = None\nfor i in range(200): node = {'v': i, 'next': node}\nnode";
    let results = shows(&server, list).await;
    assert!(results[0].text.as_deref().unwrap().starts_with("{'v': 199,"));
    assert_eq!(results[0].json, None);
    let results = shows(
        &server,
        "from IPython.display import JSON\ndisplay(JSON({'a': 10**400, 'n': node}))",
    )
    .await;
    assert_eq!(results[0].json.as_ref().unwrap()["n"]["next"]["v"], 198);
    let results = shows(&server, "display(1, display_id=5); None").await;
    assert_eq!(results[0].display_id.as_deref(), Some("5"));
    // What cannot be read is told.
    let raw = "import os, socket\nwire = socket.socket(fileno=os.dup(3))\nbad = b'{' * 300\n_ = wire.send(len(bad).to_bytes(4, 'big') + bad); wire.detach()\n1";
    let results = shows(&server, raw).await;
    assert!(results[0].text.as_deref().unwrap().contains("cannot be told"), "{results:?}");

    let list = "let list = null; for (let i = 0; i < 200; i++) list = { v: i, next: list }; list";
    let result = run_in(&server, RUN, list, json!({"language": "javascript"})).await;
    assert!(result.success, "{result:?}");
    assert!(result.results[0].text.as_deref().unwrap().contains("v: 199"));
}

#[tokio::test]
async fn a_data_frame_has_text_html_and_records() {
    let server = server();
    let code = "import pandas as pd, numpy as np\n\
        pd.DataFrame({'name': ['Alice', None], 'age': [25, 30], 'ratio': [0.5, np.nan],\n\
        \x20 'when': pd.to_datetime(['2024-01-02 03:04:05', None]), 'ok': [True, False],\n\
        \x20 'kind': pd.Categorical(['a', 'b'])}, index=['x', 'y'])";
    let frame = &shows(&server, code).await[0];
    assert!(frame.html.as_deref().unwrap_or_default().contains("<td>Alice</td>"));
    assert!(frame.text.as_deref().unwrap_or_default().contains("Alice"));
    let data = frame.data.as_ref().unwrap();
    assert_eq!(data.columns, ["name", "age", "ratio", "when", "ok", "kind"]);
    assert_eq!(
        serde_json::to_value(&data.records).unwrap(),
        json!([
            {"name": "Alice", "age": 25, "ratio": 0.5, "when": "2024-01-02T03:04:05", "ok": true, "kind": "a"},
            {"name": null, "age": 30, "ratio": null, "when": null, "ok": false, "kind": "b"},
        ])
    );
    assert_eq!(
        (&data.index, data.total_rows, data.truncated),
        (&vec![json!("x"), json!("y")], 2, false)
    );
    assert_eq!(data.types[1], "int64");

    let long = &shows(&server, "pd.DataFrame({'n': range(20_000)})").await[0];
    let data = long.data.as_ref().unwrap();
    assert_eq!((data.records.len(), data.total_rows, data.truncated), (10_000, 20_000, true));
    let grouped = &shows(&server, "pd.Series([1, 2], name='s').groupby([0, 0]).sum()").await[0];
    assert_eq!(
        serde_json::to_value(&grouped.data.as_ref().unwrap().records).unwrap(),
        json!([{"s": 3}])
    );
    let two = &shows(&server, "pd.DataFrame([[1, 2]], columns=['a', 'a'])").await[0];
    assert_eq!(
        serde_json::to_value(&two.data.as_ref().unwrap().records).unwrap(),
        json!([{"a": 1, "a.1": 2}])
    );
}

#[tokio::test]
async fn pictures_and_arrays_show_as_in_a_notebook() {
    let server = server();
    let results = shows(&server, "from PIL import Image; Image.new('RGB', (3, 2), 'red')").await;
    let picture = BASE64_STANDARD.decode(results[0].png.as_deref().unwrap().trim()).unwrap();
    assert_eq!(super::plot::size(&picture), (3, 2));
    let results = shows(&server, "import numpy as np; np.arange(3) * 0.5").await;
    assert_eq!(results[0].text.as_deref(), Some("array([0. , 0.5, 1. ])"));
    let warned = run(&server, "import warnings; warnings.warn('careful'); 1").await;
    assert!(warned.logs.stderr.concat().contains("UserWarning: careful"), "{warned:?}");
}

#[tokio::test]
async fn packages_installed_in_the_sandbox_show_too() {
    let server = server();
    super::trust_what_this_machine_trusts(&server).await;
    let installed = run(&server, "%pip install --quiet sympy plotly nbformat altair").await;
    assert!(installed.success, "{installed:?}");
    let latex = &shows(&server, "import sympy; sympy.sqrt(8)").await[0];
    assert_eq!(latex.latex.as_deref(), Some("$\\displaystyle 2 \\sqrt{2}$"));
    assert_eq!(latex.text.as_deref(), Some("2*sqrt(2)"));
    let code = "import plotly.graph_objects as go; go.Figure(go.Bar(x=['a', 'b'], y=[1, 3]))";
    // As in Jupyter, it is the figure's own display that shows it.
    let plotly = shows(&server, code).await;
    let mut figures = plotly.iter().filter_map(|r| r.extra.get("application/vnd.plotly.v1+json"));
    let figure = figures.next().unwrap();
    assert_eq!(figure["data"][0]["type"], "bar");
    assert_eq!(figure["data"][0]["x"], json!(["a", "b"]));
    let code = "import altair, pandas as pd\n\
        altair.Chart(pd.DataFrame({'x': [1, 2], 'y': [3, 4]})).mark_line().encode(x='x', y='y')";
    let altair = &shows(&server, code).await[0];
    let page = altair.html.as_deref().unwrap();
    assert!(page.contains("vegaEmbed") && page.contains(r#""type": "line""#), "{page}");
}
