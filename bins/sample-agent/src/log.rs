//! Lines on standard error, which is where a container's log comes from.

use std::io::Write;

pub(crate) fn line(text: &str) {
    // There is nowhere left to report a closed standard error to.
    let _ = writeln!(std::io::stderr().lock(), "sample-agent: {text}");
}
