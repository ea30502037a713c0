//! Pages: one file each, which needs nothing else and runs nothing.

use crate::safe::markup;
use crate::terminal::{Ink, Table};

/// Makes a page. The title is text, `body` is markup already.
pub(crate) fn page(title: &str, body: &str) -> String {
    format!(
        include_str!("page.html"),
        title = markup(title),
        style = include_str!("page.css"),
        body = body,
        version = env!("CARGO_PKG_VERSION")
    )
}

/// The markup of a table, and nothing of one without rows. `class` is `words` where the last column
/// has sentences.
pub(crate) fn table(table: &Table, class: &str) -> String {
    let mut html = format!("<table class=\"{class}\"><thead><tr>");
    html.extend(table.names().map(|name| format!("<th>{}", markup(name))));
    html += "</tr></thead>\n<tbody>\n";
    for row in table.rows() {
        html += if row.iter().any(|(ink, _)| *ink == Ink::Bad) { "<tr class=\"b\">" } else { "<tr>" };
        html.extend(row.iter().map(|(_, cell)| format!("<td>{}", markup(cell))));
        html += "</tr>\n";
    }
    if table.rows().is_empty() { String::new() } else { html + "</tbody></table>\n" }
}
