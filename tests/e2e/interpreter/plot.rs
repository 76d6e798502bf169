//! Plots: pictures that show what they should, and the data behind them.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use testkit::{
    Server,
    api::interpreter::{Chart, ChartSeries, RunOutput},
};

use super::{run, server, shows};

/// Width and height of a PNG, from its header.
pub(super) fn size(picture: &[u8]) -> (u32, u32) {
    let info = png::Decoder::new(std::io::Cursor::new(picture)).read_info().expect("a PNG");
    (info.info().width, info.info().height)
}

/// A decoded picture.
struct Picture {
    width: usize,
    pixels: Vec<[u8; 4]>,
}

impl Picture {
    fn of(output: &RunOutput) -> Self {
        let bytes = BASE64_STANDARD
            .decode(output.png.as_deref().expect("a picture").trim())
            .expect("base64");
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().expect("a PNG");
        let mut buffer = vec![0; reader.output_buffer_size().expect("a size")];
        let frame = reader.next_frame(&mut buffer).expect("a picture");
        assert_eq!(frame.color_type, png::ColorType::Rgba);
        let pixels = buffer.chunks_exact(4).map(|p| [p[0], p[1], p[2], p[3]]).collect();
        Self { width: frame.width as usize, pixels }
    }

    /// Where this colour is: columns and rows from the picture's top left.
    fn places(&self, color: [u8; 3]) -> Vec<(usize, usize)> {
        let is_it = |pixel: &[u8; 4]| pixel[..3] == color && pixel[3] == 255;
        let places = self.pixels.iter().enumerate().filter(|(_, pixel)| is_it(pixel));
        places.map(|(at, _)| (at % self.width, at / self.width)).collect()
    }
}

const RED: [u8; 3] = [255, 0, 0];
const BLUE: [u8; 3] = [0, 0, 255];

/// The one chart that code shows.
async fn chart(server: &Server, code: &str) -> Chart {
    let code = format!("import matplotlib.pyplot as plt, numpy as np, pandas as pd\n{code}");
    let results = shows(server, &code).await;
    let charts: Vec<_> = results.into_iter().filter_map(|result| result.chart).collect();
    assert_eq!(charts.len(), 1, "{code}");
    charts.into_iter().next().expect("one")
}

/// The one series of a chart.
fn only(chart: &Chart) -> &ChartSeries {
    assert_eq!((chart.axes.len(), chart.axes[0].series.len()), (1, 1), "{chart:?}");
    &chart.axes[0].series[0]
}

fn values(values: &[Value]) -> Value {
    Value::from(values.to_vec())
}

#[tokio::test]
async fn a_picture_shows_the_line_that_was_drawn() {
    let server = server();
    let code = "import matplotlib.pyplot as plt\n\
        plt.figure(figsize=(6.4, 4.8))\nplt.axis('off')\nplt.plot([0, 1], [0, 1], color='red', linewidth=6)\nplt.show()";
    let results = shows(&server, code).await;
    assert_eq!(results.len(), 1, "a figure that was shown is not shown again");
    let places = Picture::of(&results[0]).places(RED);
    assert!(places.len() > 1000, "{} red pixels", places.len());
    // From the lower left to the upper right: the lower rows are on the left.
    let (lowest, highest) =
        (places.iter().max_by_key(|p| p.1).unwrap(), places.iter().min_by_key(|p| p.1).unwrap());
    assert!(lowest.0 + 100 < highest.0 && lowest.1 > highest.1 + 100, "{lowest:?} {highest:?}");
}

#[tokio::test]
async fn bars_are_as_high_as_their_values() {
    let server = server();
    let code = "import matplotlib.pyplot as plt\n\
        plt.axis('off')\nplt.bar([0, 1], [1, 2], color=['red', 'blue'], antialiased=False)";
    let results = shows(&server, code).await;
    let picture = Picture::of(results.iter().find(|result| result.png.is_some()).unwrap());
    let (red, blue) = (picture.places(RED).len(), picture.places(BLUE).len());
    assert!(red > 5000 && blue * 10 > red * 19 && blue * 10 < red * 21, "{red} {blue}");
}

#[tokio::test]
async fn figures_come_once_shown_or_left_open() {
    let server = server();
    let code = "import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()\nplt.figure(); plt.plot([2, 1]);";
    assert_eq!(shows(&server, code).await.iter().filter(|r| r.png.is_some()).count(), 2);
    let code = "fig, ax = plt.subplots()\nax.plot([1])\nfig";
    let results = shows(&server, code).await;
    assert!(results.iter().any(|result| result.is_main && result.png.is_some()), "{results:?}");
    assert_eq!(shows(&server, "1").await.len(), 1, "nothing is left open");
    let failed = run(&server, "plt.plot([1])\n1 / 0").await;
    assert_eq!(failed.error.unwrap().name, "ZeroDivisionError");
    assert_eq!(failed.results.len(), 1, "what was drawn before the error is shown");
}

#[tokio::test]
async fn charts_of_lines_and_points_have_their_data() {
    let server = server();
    let code = "plt.plot([1, 2, 3], [1, 4, 9], label='squares')\nplt.plot([1, 2, 3], [1, 8, 27], label='cubes')\n\
        plt.title('Powers'); plt.xlabel('n'); plt.ylabel('value'); plt.legend()";
    let lines = chart(&server, code).await;
    assert_eq!((lines.kind.as_str(), lines.title.as_deref()), ("line", Some("Powers")));
    assert_eq!(lines.library, "matplotlib");
    let axes = &lines.axes[0];
    assert_eq!((axes.x.label.as_deref(), axes.y.label.as_deref()), (Some("n"), Some("value")));
    assert_eq!(axes.series.len(), 2);
    assert_eq!(axes.series[1].label.as_deref(), Some("cubes"));
    assert_eq!(values(&axes.series[0].x), json!([1, 2, 3]));
    assert_eq!(values(&axes.series[1].y), json!([1, 8, 27]));

    let points = chart(&server, "plt.scatter([1, 2.5], [3, 4]); plt.yscale('log')").await;
    assert_eq!((points.kind.as_str(), points.axes[0].y.scale.as_str()), ("scatter", "log"));
    assert_eq!(
        (values(&only(&points).x), values(&only(&points).y)),
        (json!([1, 2.5]), json!([3, 4]))
    );

    let code = "plt.plot(pd.to_datetime(['2024-01-01', '2024-01-03']), [1, 2]);";
    let dated = chart(&server, code).await;
    assert_eq!(dated.axes[0].x.scale, "datetime");
    assert_eq!(values(&only(&dated).x), json!(["2024-01-01T00:00:00", "2024-01-03T00:00:00"]));

    let long = chart(&server, "plt.plot(np.arange(20_000));").await;
    assert_eq!((only(&long).y.len(), only(&long).truncated), (10_000, true));
    let two = chart(
        &server,
        "f, (a, b) = plt.subplots(1, 2); a.plot([1]); b.scatter([1], [2]); f.suptitle('Both');",
    )
    .await;
    assert_eq!((two.title.as_deref(), two.axes.len()), (Some("Both"), 2));
    assert_eq!((two.axes[0].kind.as_str(), two.axes[1].kind.as_str()), ("line", "scatter"));
}

#[tokio::test]
async fn charts_of_bars_and_histograms_have_their_data() {
    let server = server();
    let bars = chart(&server, "plt.bar(['a', 'b'], [3, 4.5]);").await;
    assert_eq!((bars.kind.as_str(), bars.axes[0].x.scale.as_str()), ("bar", "categorical"));
    assert_eq!(
        (values(&only(&bars).x), values(&only(&bars).y)),
        (json!(["a", "b"]), json!([3, 4.5]))
    );
    let lying = chart(&server, "plt.barh(['a', 'b'], [3, 4]);").await;
    assert!(only(&lying).horizontal);
    assert_eq!(
        (values(&only(&lying).x), values(&only(&lying).y)),
        (json!([3, 4]), json!(["a", "b"]))
    );
    let pandas =
        chart(&server, "pd.DataFrame({'m': ['J', 'F'], 'u': [1, 2]}).plot.bar(x='m', y='u');")
            .await;
    assert_eq!(values(&only(&pandas).x), json!(["J", "F"]));
    assert_eq!(only(&pandas).label.as_deref(), Some("u"));

    let histogram = chart(&server, "plt.hist([1, 1, 2, 3, 3, 3], bins=2);").await;
    assert_eq!(histogram.kind, "histogram");
    assert_eq!(only(&histogram).edges, [1.0, 2.0, 3.0]);
    assert_eq!(only(&histogram).counts, [2.0, 4.0]);
    let step = chart(&server, "plt.stairs([2, 4], [1, 2, 3]);").await;
    assert_eq!((step.kind.as_str(), &only(&step).counts), ("histogram", &vec![2.0, 4.0]));
}

#[tokio::test]
async fn charts_of_pies_and_boxes_have_their_data() {
    let server = server();
    let pie = chart(&server, "plt.pie([1, 3], labels=['p', 'q'], autopct='%d%%');").await;
    assert_eq!(pie.kind, "pie");
    assert_eq!(
        (&only(&pie).labels, &only(&pie).shares),
        (&vec!["p".to_owned(), "q".into()], &vec![0.25, 0.75])
    );
    let boxes = "plt.boxplot([[1, 2, 3, 4, 5, 20], [2, 4, 6]], tick_labels=['A', 'B']);";
    for code in [boxes, &boxes.replace("tick_labels", "patch_artist=True, tick_labels")] {
        let plot = chart(&server, code).await;
        assert_eq!(plot.kind, "box", "{code}");
        let series = only(&plot);
        assert_eq!(series.labels, ["A", "B"]);
        let first = &series.boxes[0];
        assert_eq!((first.min, first.median, first.max), (1.0, 3.5, 5.0));
        assert_eq!((first.first_quartile, first.third_quartile), (2.25, 4.75));
        assert_eq!(first.outliers, [20.0]);
        assert_eq!(series.boxes[1].median, 4.0);
        assert!(series.boxes[1].outliers.is_empty());
    }
}
