//! Line plots as inline SVG: no script, nothing to load.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 34.0;
/// Told apart also by those who do not see all colours (Okabe and Ito).
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];

/// A plot.
#[derive(Debug)]
pub(super) struct Plot<'a> {
    /// What is on the axes.
    pub(super) x_title: &'a str,
    /// As above.
    pub(super) y_title: &'a str,
    /// Lines, by name.
    pub(super) lines: Vec<(&'a str, Vec<(f64, f64)>)>,
    /// Spans that are shaded: (name, from, until).
    pub(super) spans: Vec<(String, f64, f64)>,
    /// Logarithmic upwards.
    pub(super) logarithmic: bool,
}

impl Plot<'_> {
    /// The picture.
    pub(super) fn svg(&self) -> String {
        let points = || {
            self.lines
                .iter()
                .flat_map(|(_, points)| points.iter().copied())
        };
        let x_max = points().map(|point| point.0).fold(1e-9, f64::max);
        let y_max = points().map(|point| point.1).fold(1.0, f64::max);
        let y_min = if self.logarithmic {
            points()
                .map(|point| point.1)
                .filter(|y| *y > 0.0)
                .fold(y_max, f64::min)
        } else {
            0.0
        };
        let ticks = if self.logarithmic {
            decades(y_min, y_max)
        } else {
            steps(y_max)
        };
        let y_top = ticks.last().copied().unwrap_or(y_max).max(y_max);
        let y_low = if self.logarithmic {
            ticks.first().copied().unwrap_or(y_min)
        } else {
            0.0
        };
        let x = |value: f64| LEFT + value / x_max * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| {
            let share = if self.logarithmic {
                (value.max(y_low).ln() - y_low.ln()) / (y_top.ln() - y_low.ln()).max(1e-9)
            } else {
                value / y_top
            };
            HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
        };
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
        for (name, from, until) in &self.spans {
            let width = (x(*until) - x(*from)).max(2.0);
            let _ = write!(
                svg,
                "<rect class=\"fault\" x=\"{:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{:.1}\"><title>{}</title></rect>",
                x(*from),
                HEIGHT - TOP - BOTTOM,
                escape(name)
            );
            let _ = write!(
                svg,
                "<text class=\"small\" transform=\"translate({:.1},{:.1}) rotate(-90)\" text-anchor=\"end\">{}</text>",
                x(*from) + 9.0,
                TOP + 4.0,
                escape(name)
            );
        }
        for tick in ticks {
            let at = y(tick);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                number(tick)
            );
        }
        for tick in steps(x_max)
            .into_iter()
            .filter(|tick| *tick <= x_max * 1.0001)
        {
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                x(tick),
                HEIGHT - BOTTOM + 16.0,
                number(tick)
            );
        }
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            HEIGHT - 4.0,
            escape(self.x_title)
        );
        let _ = write!(
            svg,
            "<text transform=\"translate(13,{:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            HEIGHT / 2.0,
            escape(self.y_title)
        );
        for (index, (name, points)) in self.lines.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let path: Vec<String> = points
                .iter()
                .map(|(px, py)| format!("{:.1},{:.1}", x(*px), y(*py)))
                .collect();
            let _ = write!(
                svg,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\" points=\"{}\"/>",
                path.join(" ")
            );
            let legend = LEFT + 10.0 + index as f64 * 190.0;
            let _ = write!(
                svg,
                "<rect x=\"{legend}\" y=\"{:.1}\" width=\"14\" height=\"3\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                HEIGHT - 12.0,
                legend + 19.0,
                HEIGHT - 6.0,
                escape(name)
            );
        }
        svg.push_str("</svg>");
        svg
    }
}

/// Round steps from 0 to beyond the largest value.
fn steps(max: f64) -> Vec<f64> {
    let rough = max / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(power);
    (0..=6)
        .map(|index| f64::from(index) * step)
        .take_while(|tick| *tick < max + step)
        .collect()
}

fn decades(min: f64, max: f64) -> Vec<f64> {
    let first = min.max(1e-3).log10().floor() as i32;
    let last = max.max(1e-3).log10().ceil() as i32;
    (first..=last.max(first + 1))
        .map(|power| 10f64.powi(power))
        .collect()
}

/// A number as people write it.
pub(super) fn number(value: f64) -> String {
    let text = if value.abs() >= 100.0 || value == value.trunc() {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    };
    let (sign, digits) = text
        .strip_prefix('-')
        .map_or(("", text.as_str()), |digits| ("-", digits));
    let (whole, fraction) = digits
        .split_once('.')
        .map_or((digits, ""), |(whole, fraction)| (whole, fraction));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() {
        format!("{sign}{grouped}")
    } else {
        format!("{sign}{grouped}.{fraction}")
    }
}

/// Text that is safe in HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(number(1_234_567.0), "1,234,567");
        assert_eq!(number(-1234.0), "-1,234");
        assert_eq!(number(12.345), "12.35");
        assert_eq!(number(0.0), "0");
    }

    #[test]
    fn a_plot_stays_within_its_frame() {
        for logarithmic in [false, true] {
            let lines = vec![("a", vec![(0.0, 0.0), (5.0, 1234.0), (10.0, 3.0)])];
            let plot = Plot {
                x_title: "x",
                y_title: "y",
                lines,
                spans: vec![("<b>".into(), 2.0, 3.0)],
                logarithmic,
            };
            let svg = plot.svg();
            assert!(svg.contains("&lt;b&gt;") && !svg.contains("<b>"));
            let points = svg
                .split("points=\"")
                .nth(1)
                .unwrap()
                .split('"')
                .next()
                .unwrap();
            for point in points.split(' ') {
                let (x, y) = point.split_once(',').unwrap();
                assert!((0.0..=WIDTH).contains(&x.parse().unwrap()), "{x}");
                assert!((0.0..=HEIGHT).contains(&y.parse().unwrap()), "{y}");
            }
        }
    }
}
