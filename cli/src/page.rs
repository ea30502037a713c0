//! Pages: one file each, which needs nothing else and runs nothing.

use crate::safe::markup;
use crate::terminal::{Ink, Table};

const STYLE: &str = "\
body{font:15px/1.5 system-ui,'Segoe UI','DejaVu Sans',sans-serif;color:#1f2430;background:#fff;max-width:1050px;margin:2em auto;padding:0 1em}\
svg{max-width:100%;height:auto;display:block}.narrow{display:none}.scrolls{overflow-x:auto}\
@media(max-width:800px){body{margin:1em auto}.wide{display:none}.narrow{display:block}}\
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}\
th,td{padding:.25em .7em;text-align:right;border-bottom:1px solid #e3e6eb;white-space:nowrap}\
.words th:last-child,.words td:last-child{text-align:left;white-space:normal;overflow-wrap:anywhere;min-width:18em}\
.b{color:#b3261e}footer{color:#5b6472;margin-top:2em}";

/// Makes a page. The title is text, `body` is markup already.
pub(crate) fn page(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"script-src 'none'; object-src 'none'; img-src 'none'; connect-src 'none'\">\
         <title>{}</title><style>{STYLE}</style></head>\n<body>\n{body}\
         <footer>handover {}</footer>\n</body></html>",
        markup(title),
        env!("CARGO_PKG_VERSION")
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
