//! For programs: the API's objects as they are.

use std::io::{self, Write};

use serde::Serialize;

/// Writes a value as JSON, indented, with a line's end.
pub(crate) fn write_json<T: Serialize + ?Sized>(out: &mut impl Write, value: &T) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    out.write_all(b"\n")
}
