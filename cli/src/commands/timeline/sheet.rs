//! What the pictures of reloads have in common: text that is broken into lines, a legend, colours.

use super::model::PhaseName;
use super::view::Sign;
use crate::safe::{short, wrap};
use crate::svg::Drawing;

pub(super) const LINE: f64 = 17.0;
pub(super) const BAR: f64 = 13.0;
/// Wider than any font has a letter: nothing measures text here.
const LETTER: f64 = 6.9;

const STYLE: &str = "\
text{font:12px system-ui,'Segoe UI','DejaVu Sans',sans-serif;fill:#1f2430}\
.t{font-size:19px;font-weight:600}.s{fill:#5b6472}.n{font-variant-numeric:tabular-nums}.b{fill:#b3261e}\
.g{stroke:#e3e6eb}.a{stroke:#9aa2ae}.z{fill:#1f2430;fill-opacity:.03}.h{paint-order:stroke;stroke:#fff;stroke-width:3px}.e{stroke:#cfd4db;stroke-dasharray:3 3}";

/// How much room a picture has.
#[derive(Debug)]
pub(super) struct Sheet {
    pub(super) width: f64,
    pub(super) margin: f64,
    /// Of the largest letters, and of the others.
    pub(super) title_characters: usize,
    pub(super) characters: usize,
}

impl Sheet {
    /// Writes below `y`, in as many lines as it takes, and returns how far these reach.
    pub(super) fn lines(&self, drawing: &mut Drawing, y: f64, text: &str, (height, class): (f64, &str)) -> f64 {
        let characters = if class == "t" { self.title_characters } else { self.characters };
        wrap(text, characters).iter().fold(y, |y, line| {
            drawing.text((self.margin, y + height), class, "start", line);
            y + height
        })
    }

    /// The name of the unit, and what is to be known first.
    pub(super) fn head(&self, drawing: &mut Drawing, y: f64, unit: &str, facts: &[String]) -> f64 {
        let y = self.lines(drawing, y, &short(unit, 2 * self.title_characters), (24.0, "t"));
        facts.iter().fold(y + 6.0, |y, fact| self.lines(drawing, y, fact, (18.0, "s")))
    }

    /// What each colour means.
    pub(super) fn legend<'a>(
        &self,
        drawing: &mut Drawing,
        y: f64,
        signs: impl IntoIterator<Item = (Sign, &'a str)>,
    ) -> f64 {
        let (mut x, mut y) = (self.margin, y + 27.0);
        for (sign, word) in signs {
            let wide = 19.0 + width_of(word) + 14.0;
            if x > self.margin && x + wide > self.width - self.margin {
                (x, y) = (self.margin, y + 20.0);
            }
            match fill(sign) {
                Some(_) => drawing.rect((x, y - 11.0), (BAR, BAR), &format!("rx=\"2\" {}", painted(sign)), ""),
                None => drawing.text((x + 3.0, y), "", "start", "»"),
            }
            drawing.text((x + 19.0, y), "k", "start", word);
            x += wide;
        }
        y
    }

    /// The whole picture, which reaches so far.
    pub(super) fn picture(&self, drawing: &Drawing, y: f64, title: &str) -> String {
        let (width, height) = (self.width, y + 22.0);
        let size = format!("width=\"{width}\" height=\"{height}\" style=\"max-width:100%;height:auto\"");
        let ground = format!("<style>{STYLE}</style><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>");
        drawing.picture((width, height), &size, title, &ground)
    }
}

/// `None`: a sign of its own.
fn fill(sign: Sign) -> Option<&'static str> {
    Some(match sign {
        Sign::Phase(PhaseName::Spawn) => "#56b4e9",
        Sign::Phase(PhaseName::Ready) => "#0072b2",
        Sign::Phase(PhaseName::Reload) => "#882255",
        Sign::Phase(PhaseName::Switch) => "#e69f00",
        Sign::Phase(PhaseName::Handover) => "#009e73",
        Sign::Moving => "#cc79a7",
        Sign::Drain => "#b9a3c9",
        Sign::Failed => "#d55e00",
        Sign::Beyond => return None,
    })
}

/// The colour of a sign, as an attribute.
pub(super) fn painted(sign: Sign) -> String {
    format!("fill=\"{}\"", fill(sign).unwrap_or_default())
}

/// The room that these words take at the most.
pub(super) fn width_of(words: &str) -> f64 {
    LETTER * f64::from(u8::try_from(words.chars().count()).unwrap_or(u8::MAX))
}
