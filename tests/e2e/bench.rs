//! What the benchmark does with a real server, beyond what it measures by default.

use serde_json::{Value, json};

use crate::server;

#[test]
fn a_bench_measures_scale_and_overload_and_writes_a_page() {
    let server = server();
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("page.html");
    let scale = ["--idle", "1,3", "--stopped", "2", "--restart", "true"];
    let output = server
        .command(["bench", "--only", "--runs", "2", "--json", "--overload", "--report"])
        .arg(&page)
        .args(scale)
        .output()
        .unwrap();

    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let scales = report["scales"].as_array().unwrap();
    let counts: Vec<Vec<&Value>> = scales
        .iter()
        .map(|scale| scale["levels"].as_array().unwrap().iter().map(|l| &l["sandboxes"]).collect())
        .collect();
    assert_eq!(counts, [vec![&json!(1), &json!(3)], vec![&json!(2)]]);
    let levels = scales.iter().flat_map(|scale| scale["levels"].as_array().unwrap());
    for level in levels {
        assert!(level["restartMs"].as_f64().unwrap() > 0.0, "{level}");
        let measures = level["measures"].as_array().unwrap();
        assert!(measures.len() >= 6, "{level}");
        assert!(measures.iter().all(|one| one["failures"] == 0 && one["count"] == 2), "{level}");
    }
    for overload in report["overloads"].as_array().unwrap() {
        assert_eq!(overload["failures"], 0, "{overload}");
        assert!(overload["measures"][0]["count"].as_u64().unwrap() > 0, "{overload}");
    }
    let page = std::fs::read_to_string(page).unwrap();
    for part in ["<svg", "exec true in one, 3 idle", "Beside stopped sandboxes", "All numbers"] {
        assert!(page.contains(part), "{part:?} in\n{page}");
    }
    assert!(!page.contains("<script") && !page.contains("http"), "{page}");
}
