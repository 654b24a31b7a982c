// SPDX-License-Identifier: GPL-2.0

//! What happened over time, drawn.

use super::Sample;
use plotters::prelude::*;

const SIZE: (u32, u32) = (800, 900);
const MHS: RGBColor = RGBColor(0x1b, 0x7f, 0x5c);
const STATEFUL: RGBColor = RGBColor(0xc4, 0x5a, 0x1d);
const PLAIN: RGBColor = RGBColor(0x5b, 0x5b, 0x8f);

type Line = (&'static str, RGBColor, fn(&Sample) -> u64);

/// An SVG with three panels: entries, broken connections, unstable slots.
pub fn svg(samples: &[Sample], title: &str) -> Result<String, String> {
    let mut text = String::new();
    draw(&mut text, samples, title).map_err(|error| error.to_string())?;
    // SPDX has its say in files that are committed, too.
    Ok(text.replacen(
        "<svg ",
        "<!-- SPDX-License-Identifier: GPL-2.0 -->\n<svg ",
        1,
    ))
}

fn draw(
    text: &mut String,
    samples: &[Sample],
    title: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.titled(title, ("sans-serif", 16))?;
    let panels: [(&str, &[Line]); 3] = [
        (
            "connection entries",
            &[
                ("mhs", MHS, |s| s.mhs_entries),
                ("stateful Maglev", STATEFUL, |s| s.stateful_entries),
            ],
        ),
        (
            "broken connections, in all",
            &[
                ("mhs", MHS, |s| s.mhs_broken),
                ("stateful Maglev", STATEFUL, |s| s.stateful_broken),
                ("plain hash", PLAIN, |s| s.plain_broken),
            ],
        ),
        ("unstable slots", &[("mhs", MHS, |s| s.unstable_slots)]),
    ];
    let end = samples
        .last()
        .map_or(1.0, |sample| sample.minute)
        .max(f64::MIN_POSITIVE);
    for (area, (name, lines)) in root.split_evenly((3, 1)).iter().zip(panels) {
        let values = lines.iter().flat_map(|(_, _, get)| samples.iter().map(get));
        let top = values.max().unwrap_or(0).max(1) as f64 * 1.05;
        let mut chart = ChartBuilder::on(area)
            .caption(name, ("sans-serif", 15))
            .margin(8)
            .x_label_area_size(32)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..end, 0.0..top)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc("minutes")
            .y_label_formatter(&|value| crate::output::short(*value))
            .x_labels(7)
            .y_labels(5)
            .draw()?;
        for &(label, color, get) in lines {
            let points = samples
                .iter()
                .map(|sample| (sample.minute, get(sample) as f64));
            chart
                .draw_series(LineSeries::new(points, color.stroke_width(2)))?
                .label(label)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2))
                });
        }
        if lines.len() > 1 {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::MiddleRight)
                .background_style(WHITE.mix(0.8))
                .border_style(BLACK.mix(0.2))
                .draw()?;
        }
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_every_line() {
        let samples: Vec<Sample> = (0u32..=10)
            .map(|n| Sample {
                minute: n.into(),
                plain_broken: (n * 1000).into(),
                ..Sample::default()
            })
            .collect();
        let svg = svg(&samples, "ten minutes").unwrap();
        assert_eq!(
            svg.matches("<polyline").count()
                - svg
                    .matches("fill=\"none\" opacity=\"1\" stroke=\"#000000\"")
                    .count(),
            6 + 5
        );
        for text in ["ten minutes", "plain hash", "unstable slots", "minutes"] {
            assert!(svg.contains(text), "{text}");
        }
    }
}
