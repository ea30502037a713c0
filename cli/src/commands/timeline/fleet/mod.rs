//! The reloads of one unit on several machines: a roll-out, as the journals of all have it.

mod html;
mod model;
mod svg;
mod text;

pub(super) use html::render as html;
pub(super) use model::{Fleet, Lane};
pub(super) use svg::render as svg;
pub(super) use text::render as text;
