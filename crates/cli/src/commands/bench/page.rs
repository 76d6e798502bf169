//! The report as one page that a browser shows without a script or a network: a plot of each measure's
//! samples, and the whole text.
//!
//! Drawn by hand: a plotting crate is a hundred times these lines, and has no such plot.

use std::fmt::{self, Write as _};

use super::{
    report::Report,
    samples::{Samples, Summary},
};

/// Widths in pixels: of names, of the plot, of numbers; the height of a row, and of the axis.
const NAME: f64 = 380.0;
const PLOT: f64 = 460.0;
const NUMBERS: f64 = 160.0;
const ROW: f64 = 24.0;
const AXIS: f64 = 22.0;

/// Columns of a row's histogram.
const BINS: usize = 115;
const BINS_U32: u32 = 115;

const STYLE: &str = "\
    :root{color-scheme:light dark}\
    body{font:14px/1.4 system-ui,sans-serif;max-width:1020px;margin:2em auto;padding:0 1em}\
    svg{width:100%;height:auto}text{font:12px system-ui,sans-serif;fill:currentColor}\
    .grid{stroke:currentColor;opacity:.2}.bins{fill:#3b82f6}.mid{stroke:#ef4444;stroke-width:2}\
    .tail{stroke:#f59e0b;stroke-width:2}.end{text-anchor:end}.middle{text-anchor:middle}\
    pre{overflow-x:auto;font-size:12px}";

/// The page.
pub(super) fn page(report: &Report) -> String {
    let mut page = String::new();
    // A String takes everything.
    write(&mut page, report).unwrap_or_default();
    page
}

fn write(page: &mut String, report: &Report) -> fmt::Result {
    write!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>sandbar bench</title>\
         <style>{STYLE}</style><h1>sandbar bench</h1><p>{}</p><p>Each row shows all samples of one \
         measure, on a logarithmic scale: the height is how many took so long, red is the median, \
         yellow the 99th percentile.</p>",
        escape(&report.machine().to_string())
    )?;
    for (title, rows) in report.plots() {
        write!(page, "<h2>{}</h2>", escape(&title))?;
        plot(page, &rows)?;
    }
    write!(page, "<h2>All numbers</h2><pre>{}</pre></html>", escape(&report.to_string()))
}

/// A logarithmic axis from one power of ten to another.
#[derive(Debug, Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    /// One that all samples are on; none without any.
    fn of(rows: &[&Samples]) -> Option<Self> {
        let all = rows.iter().flat_map(|row| row.milliseconds()).copied();
        let all = all.filter(|value| *value > 0.0);
        let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let (low, high) = (low.log10().floor(), high.log10().ceil());
        low.is_finite().then_some(Self { low, high: high.max(low + 1.0) })
    }

    /// Where a value is: 0 at the beginning, 1 at the end.
    fn place(self, milliseconds: f64) -> f64 {
        let place = (milliseconds.log10() - self.low) / (self.high - self.low);
        place.clamp(0.0, 1.0)
    }

    fn x(self, milliseconds: f64) -> f64 {
        NAME + PLOT * self.place(milliseconds)
    }

    /// The powers of ten on it.
    fn ticks(self) -> impl Iterator<Item = f64> {
        let powers = std::iter::successors(Some(self.low), |power| Some(power + 1.0));
        powers.take_while(move |power| *power <= self.high).map(|power| 10_f64.powf(power))
    }
}

/// Rows of samples under one axis.
fn plot(page: &mut String, rows: &[&Samples]) -> fmt::Result {
    let Some(axis) = Axis::of(rows) else { return page.write_str("<p>Nothing was measured.</p>") };
    let width = NAME + PLOT + NUMBERS;
    let bottom = AXIS + ROW * f64::from(u32::try_from(rows.len()).unwrap_or(u32::MAX));
    write!(page, "<svg viewBox=\"0 0 {width} {}\" role=\"img\">", bottom + 4.0)?;
    for tick in axis.ticks() {
        let x = axis.x(tick);
        write!(
            page,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{AXIS}\" y2=\"{bottom}\"/>\
             <text class=\"middle\" x=\"{x:.1}\" y=\"14\">{tick} ms</text>"
        )?;
    }
    let numbers = "<text class=\"end\" x=\"";
    write!(page, "{numbers}{width}\" y=\"14\">p50 / p99</text>")?;
    let mut base = AXIS;
    for row in rows {
        base += ROW;
        let (name, text) = (escape(row.name()), base - 7.0);
        let end = NAME - 12.0;
        write!(page, "{numbers}{end}\" y=\"{text}\">{name}</text>")?;
        match row.summary() {
            Some(summary) => distribution(page, axis, row, summary, base)?,
            None => write!(page, "<text x=\"{NAME}\" y=\"{text}\">no attempt succeeded</text>")?,
        }
    }
    page.write_str("</svg>")
}

/// The histogram of a row, whose foot is at `base`.
fn distribution(
    page: &mut String,
    axis: Axis,
    row: &Samples,
    Summary { p50, p99, .. }: Summary,
    base: f64,
) -> fmt::Result {
    let bins = bins(axis, row.milliseconds());
    let most = bins.iter().copied().max().unwrap_or(1).max(1);
    let (height, column) = (ROW - 4.0, PLOT / f64::from(BINS_U32));
    page.write_str("<path class=\"bins\" d=\"")?;
    let mut x = NAME;
    for count in bins {
        if count > 0 {
            // Even one sample is seen.
            let tall = (height * f64::from(count) / f64::from(most)).max(1.5);
            write!(page, "M{x:.1} {base}v-{tall:.1}h{column:.1}V{base}z")?;
        }
        x += column;
    }
    let (middle, tail, top) = (axis.x(p50), axis.x(p99), base - height);
    write!(
        page,
        "\"/><line class=\"mid\" x1=\"{middle:.1}\" x2=\"{middle:.1}\" y1=\"{top}\" y2=\"{base}\"/>\
         <line class=\"tail\" x1=\"{tail:.1}\" x2=\"{tail:.1}\" y1=\"{top}\" y2=\"{base}\"/>\
         <text class=\"end\" x=\"{}\" y=\"{}\">{p50:.2} / {p99:.2}</text>",
        NAME + PLOT + NUMBERS,
        base - 7.0
    )
}

/// How many samples fall into each column of the axis.
fn bins(axis: Axis, samples: &[f64]) -> Vec<u32> {
    let mut bins = vec![0; BINS];
    for sample in samples {
        let place = axis.place(*sample) * f64::from(BINS_U32);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to the number of columns"
        )]
        let column = (place as usize).min(BINS - 1);
        bins[column] += 1;
    }
    bins
}

/// Text between tags, or in an attribute.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn samples(name: &str, micros: &[u64]) -> Samples {
        let mut samples = Samples::new(name);
        micros.iter().for_each(|micros| samples.push(Duration::from_micros(*micros)));
        samples
    }

    #[test]
    fn an_axis_goes_from_one_power_of_ten_to_another() {
        let row = samples("x", &[250, 40_000]);
        let axis = Axis::of(&[&row]).unwrap();
        assert_eq!((axis.low, axis.high), (-1.0, 2.0));
        let ticks: Vec<String> = axis.ticks().map(|tick| tick.to_string()).collect();
        assert_eq!(ticks, ["0.1", "1", "10", "100"]);
        assert!((axis.place(1.0) - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!((axis.place(0.0), axis.place(1e9)), (0.0, 1.0));
        assert!(Axis::of(&[&samples("none", &[])]).is_none());
    }

    #[test]
    fn every_sample_is_in_a_column() {
        let row = samples("x", &[100, 1000, 1000, 10_000]);
        let bins = bins(Axis::of(&[&row]).unwrap(), row.milliseconds());
        assert_eq!(bins.iter().sum::<u32>(), 4);
        assert_eq!((bins[0], bins[BINS - 1]), (1, 1));
        assert_eq!(bins.iter().max(), Some(&2));
    }

    #[test]
    fn names_are_text_and_a_row_without_samples_says_so() {
        let (row, none) = (samples("<a & \"b\">", &[1500]), samples("none", &[]));
        let mut page = String::new();
        plot(&mut page, &[&row, &none]).unwrap();
        assert!(page.contains("&lt;a &amp; &quot;b&quot;&gt;"), "{page}");
        assert!(page.contains("1.50 / 1.50") && page.contains("no attempt succeeded"), "{page}");
        assert!(!page.contains("<a"), "{page}");
    }
}
