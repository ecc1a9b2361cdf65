//! Pictures out: how things look for people and for programs.
//!
//! Nothing here asks a server; everything here is given what it shows, the time, and whether there is a terminal.

mod doctor;
mod image;
mod ink;
mod job;
mod json;
mod progress;
pub(crate) mod run;
mod table;
mod time;

pub(crate) use doctor::write_report;
pub(crate) use image::ImageProgress;
pub(crate) use ink::{Ink, Paint};
pub(crate) use job::{job_lines, jobs_table, status_paint};
pub(crate) use json::write_json;
pub(crate) use progress::Progress;
pub(crate) use table::{Align, Cell, Column, Table, terminal_width};
pub(crate) use time::{ago, amount, now};
