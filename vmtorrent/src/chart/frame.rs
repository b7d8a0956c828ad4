//! Invariant: text keeps its size however wide the picture is: only what lies inside a stretched part is stretched.

use std::fmt::{Display, Write};

use super::{Axis, Escaped};

/// The place of a text relative to its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    /// It begins there.
    Start,
    /// It is centred there.
    Middle,
    /// It ends there.
    End,
}

/// The inside of an SVG element that is as wide as it may be and `height` pixels high.
///
/// Places across are shares of the width from 0 to 1, places down are pixels. Axes are written around it: whoever shows
/// it leaves room below and to the left, and lets it overflow.
#[derive(Debug)]
pub(crate) struct Frame {
    height: f64,
    body: String,
}

/// Rules for what a frame draws, beside [`COLOURS`](super::COLOURS).
pub(crate) const FRAME_STYLE: &str = "\
.frame{overflow:visible;display:block}\
.frame text{font:12px system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:var(--soft)}\
.frame .strong{fill:var(--text);font-weight:600;paint-order:stroke;stroke:var(--page);stroke-width:4px;stroke-linejoin:round}\
.frame .grid{stroke:var(--line);stroke-width:1}\
.frame .edge{stroke:var(--axis);stroke-width:1}\
.frame .dashed{stroke:var(--rate);stroke-width:1.5;stroke-dasharray:6 4}\
.frame .line{fill:none;stroke-width:2;vector-effect:non-scaling-stroke}\
.frame .stall{fill:var(--stall);opacity:.16}\
@media(max-width:640px){.frame .alt{display:none}}";

impl Frame {
    /// An empty one.
    pub(crate) fn new(height: f64) -> Self {
        Self {
            height,
            body: String::new(),
        }
    }

    /// Lines and numbers of an axis at the bottom, and its title below them.
    pub(crate) fn x_axis(&mut self, axis: &Axis, title: &str) {
        let (height, below) = (self.height, self.height + 18.0);
        for (n, mark) in axis.marks.iter().enumerate() {
            let at = mark.at * 100.0;
            let class = if n % 2 == 1 { " class=\"alt\"" } else { "" };
            let _ = write!(
                self.body,
                "<line class=\"grid\" x1=\"{at:.2}%\" x2=\"{at:.2}%\" y1=\"0\" y2=\"{height}\"/>\
                 <text{class} x=\"{at:.2}%\" y=\"{below}\" text-anchor=\"middle\">{}</text>",
                Escaped(&mark.text)
            );
        }
        self.edge(0.0, height, 1.0, height);
        let title = match axis.unit {
            "" => title.to_owned(),
            unit => format!("{title} ({unit})"),
        };
        self.text(0.5, height + 36.0, Anchor::Middle, "", title);
    }

    /// Lines and numbers of an axis on the left, growing upwards, and its title above it.
    pub(crate) fn y_axis(&mut self, axis: &Axis, title: &str) {
        for mark in &axis.marks {
            let at = self.height * (1.0 - mark.at);
            let _ = write!(
                self.body,
                "<line class=\"grid\" x1=\"0\" x2=\"100%\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"-8\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                at + 4.0,
                Escaped(&mark.text)
            );
        }
        self.edge(0.0, 0.0, 0.0, self.height);
        let title = match axis.unit {
            "" => title.to_owned(),
            unit => format!("{title} ({unit})"),
        };
        let _ = write!(
            self.body,
            "<text x=\"0\" y=\"-10\" text-anchor=\"start\">{}</text>",
            Escaped(&title)
        );
    }

    /// A line on the border.
    pub(crate) fn edge(&mut self, x1: f64, y1: f64, x2: f64, y2: f64) {
        let (x1, x2) = (x1 * 100.0, x2 * 100.0);
        let _ = write!(
            self.body,
            "<line class=\"edge\" x1=\"{x1:.2}%\" x2=\"{x2:.2}%\" y1=\"{y1:.1}\" y2=\"{y2:.1}\"/>"
        );
    }

    /// A dashed line over the whole width.
    pub(crate) fn dashed(&mut self, y: f64) {
        let _ = write!(
            self.body,
            "<line class=\"dashed\" x1=\"0\" x2=\"100%\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
        );
    }

    /// A text; `class` may be empty.
    pub(crate) fn text(&mut self, x: f64, y: f64, anchor: Anchor, class: &str, text: impl Display) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = text.to_string();
        let _ = write!(
            self.body,
            "<text class=\"{class}\" x=\"{:.2}%\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
            x * 100.0,
            Escaped(&text)
        );
    }

    /// A text to the left of the frame, centred on a height.
    pub(crate) fn left_text(&mut self, y: f64, text: impl Display) {
        let text = text.to_string();
        let _ = write!(
            self.body,
            "<text x=\"-8\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            y + 4.0,
            Escaped(&text)
        );
    }

    /// Shapes over the whole frame, whose own coordinates run over `columns` across and `rows` down. They are no text.
    pub(crate) fn stretched(&mut self, columns: usize, rows: usize, shapes: &str) {
        let _ = write!(
            self.body,
            "<svg width=\"100%\" height=\"{}\" viewBox=\"0 0 {columns} {rows}\" \
             preserveAspectRatio=\"none\">{shapes}</svg>",
            self.height
        );
    }

    /// What was drawn: an SVG element with these attributes.
    pub(crate) fn finish(self, attributes: &str) -> String {
        format!(
            "<svg class=\"frame\" height=\"{}\" {attributes}>{}</svg>",
            self.height, self.body
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_and_shapes_are_stretched_alone() {
        let mut frame = Frame::new(100.0);
        frame.x_axis(&Axis::time(2e6, 4), "guest <time>");
        frame.y_axis(&Axis::rate(10e6, 2), "rate");
        frame.text(0.25, 7.0, Anchor::End, "strong", "<b>&");
        frame.left_text(50.0, "\"a\"");
        frame.stretched(10, 5, "<path d=\"m0 0h1\"/>");
        let svg = frame.finish("width=\"100%\"");
        for part in [
            "guest &lt;time&gt; (s)",
            "rate (MB/s)",
            "x=\"25.00%\" y=\"7.0\" text-anchor=\"end\">&lt;b&gt;&amp;</text>",
            "&quot;a&quot;",
            "viewBox=\"0 0 10 5\" preserveAspectRatio=\"none\"><path d=\"m0 0h1\"/></svg></svg>",
        ] {
            assert!(svg.contains(part), "no {part} in {svg}");
        }
        assert!(svg.starts_with("<svg class=\"frame\" height=\"100\" width=\"100%\">"));
    }
}
