//! Pictures, as SVG: what is drawn is markup, and nothing that is said in it can be.

use std::fmt::Write as _;

use crate::safe::markup;

/// A picture under way. Places and sizes are in its own units, `x` before `y`.
#[derive(Debug, Default)]
pub(crate) struct Drawing(String);

impl Drawing {
    /// `anchor` is the part of the text that is at the place: `start`, `middle` or `end`.
    pub(crate) fn text(&mut self, (x, y): (f64, f64), class: &str, anchor: &str, words: &str) {
        let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
        let anchor = if anchor == "start" { String::new() } else { format!(" text-anchor=\"{anchor}\"") };
        let _ = write!(self.0, "<text x=\"{x:.1}\" y=\"{y:.1}\"{class}{anchor}>{}</text>", markup(words));
    }

    /// A title is what is shown of it on request.
    pub(crate) fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), attributes: &str, title: &str) {
        let place = format!("x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"");
        self.shape("rect", &format!("{place} {attributes}"), title);
    }

    pub(crate) fn path(&mut self, d: &str, attributes: &str, title: &str) {
        self.shape("path", &format!("d=\"{d}\" {attributes}"), title);
    }

    pub(crate) fn shape(&mut self, name: &str, attributes: &str, title: &str) {
        let _ = match title {
            "" => write!(self.0, "<{name} {attributes}/>"),
            title => write!(self.0, "<{name} {attributes}><title>{}</title></{name}>", markup(title)),
        };
    }

    /// On top of what is there.
    pub(crate) fn add(&mut self, other: &Self) {
        self.0 += &other.0;
    }

    /// The whole picture. `attributes` are its own, `ground` is markup below all else.
    pub(crate) fn picture(&self, (width, height): (f64, f64), attributes: &str, title: &str, ground: &str) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" {attributes} role=\"img\">\
             <title>{}</title>{ground}{}</svg>",
            markup(title),
            self.0
        )
    }
}
