//! Logs: one line per event on stderr, redacted as a whole before it leaves the process.

use std::backtrace::Backtrace;
use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged when nothing else was asked for.
pub const DEFAULT_FILTER: &str = "info";

/// Replaces what looks like a secret in a line of the log (5.R159).
pub type Redact = fn(&str) -> Cow<'_, str>;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line, for collectors.
    Json,
    /// For a person at a terminal.
    Human,
}

impl Format {
    /// Human when stderr is a terminal, JSON otherwise.
    #[must_use]
    pub fn for_stderr() -> Self {
        if io::stderr().is_terminal() { Self::Human } else { Self::Json }
    }
}

/// The subscriber could not be installed: another one is.
#[derive(Debug, thiserror::Error)]
#[error("logging was set up twice")]
pub struct AlreadySetUp;

/// Sets up logging and the panic hook for the whole process. `filter` has the syntax of `RUST_LOG`; one that cannot
/// be read is named in a warning and [`DEFAULT_FILTER`] is used.
///
/// # Errors
/// When a subscriber is already installed.
pub fn init(format: Format, filter: Option<&str>, redact: Redact) -> Result<(), AlreadySetUp> {
    let (filter, refused) = env_filter(filter);
    let writer = Redacting { redact, out: io::stderr };
    match format {
        Format::Json => json(filter, writer).try_init(),
        Format::Human => human(filter, writer).try_init(),
    }
    .map_err(|_| AlreadySetUp)?;
    std::panic::set_hook(Box::new(log_panic));
    if refused {
        tracing::warn!("RUST_LOG cannot be read; using the default {DEFAULT_FILTER}");
    }
    Ok(())
}

fn env_filter(directives: Option<&str>) -> (EnvFilter, bool) {
    match directives.map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, false),
        refused => (EnvFilter::new(DEFAULT_FILTER), refused.is_some()),
    }
}

fn json<W>(filter: EnvFilter, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(true)
        .with_env_filter(filter)
        .with_writer(writer)
        .finish()
}

fn human<W>(filter: EnvFilter, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).finish()
}

/// Logs a panic with its place and backtrace, under the span that it happened in.
fn log_panic(info: &PanicHookInfo<'_>) {
    tracing::error!(
        thread = std::thread::current().name().unwrap_or("unnamed"),
        location = info.location().map(tracing::field::display),
        panic = info.payload_as_str().unwrap_or("(no text)"),
        backtrace = %Backtrace::force_capture(),
        "panic"
    );
}

/// The formatter hands over each event as one write, so a secret is never split between two.
#[derive(Clone)]
struct Redacting<M> {
    redact: Redact,
    out: M,
}

struct RedactingWriter<W> {
    redact: Redact,
    out: W,
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Redacting<M> {
    type Writer = RedactingWriter<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        RedactingWriter { redact: self.redact, out: self.out.make_writer() }
    }
}

impl<W: Write> Write for RedactingWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        self.out.write_all((self.redact)(&text).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn hide(text: &str) -> Cow<'_, str> {
        Cow::Owned(text.replace("hunter2", "[REDACTED]"))
    }

    fn redacting(captured: &Captured) -> Redacting<impl Fn() -> Captured + Send + Sync + 'static> {
        let captured = captured.clone();
        Redacting { redact: hide, out: move || captured.clone() }
    }

    // 5.R159
    #[test]
    fn messages_fields_and_spans_are_redacted_in_both_formats() {
        for format in [Format::Json, Format::Human] {
            let captured = Captured::default();
            let (filter, _) = env_filter(None);
            let log = || {
                let _span = tracing::info_span!("request", query = "hunter2").entered();
                tracing::warn!(header = "Bearer hunter2", "refused hunter2");
                tracing::debug!("not at this level");
            };
            match format {
                Format::Json => tracing::subscriber::with_default(json(filter, redacting(&captured)), log),
                Format::Human => tracing::subscriber::with_default(human(filter, redacting(&captured)), log),
            }
            let text = captured.text();
            assert!(!text.contains("hunter2"), "{text}");
            assert_eq!(text.matches("[REDACTED]").count(), 3, "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
            if format == Format::Json {
                let line: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!(line["message"], "refused [REDACTED]");
            }
        }
    }

    // 1.R158, 3.R60
    #[test]
    fn a_panic_is_logged_with_place_backtrace_and_span() {
        let captured = Captured::default();
        let (filter, _) = env_filter(Some("error"));
        let before = std::panic::take_hook();
        tracing::subscriber::with_default(json(filter, redacting(&captured)), || {
            let _span = tracing::error_span!("task", task = "sweep").entered();
            std::panic::set_hook(Box::new(log_panic));
            std::panic::catch_unwind(|| panic!("lost hunter2")).unwrap_err();
        });
        std::panic::set_hook(before);
        let text = captured.text();
        // Other tests may panic meanwhile, but they log nowhere: the subscriber is this thread's.
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["panic"], "lost [REDACTED]");
        assert!(line["location"].as_str().unwrap().contains("telemetry.rs"));
        assert!(line["backtrace"].as_str().unwrap().contains("telemetry"));
        assert_eq!(line["spans"][0]["task"], "sweep");
    }

    #[test]
    fn an_unreadable_filter_falls_back_to_info() {
        assert_eq!(env_filter(Some("=!x=")).0.to_string(), "info");
        assert!(env_filter(Some("=!x=")).1);
        assert!(!env_filter(None).1);
        assert_eq!(env_filter(Some("warn")).0.to_string(), "warn");
    }
}
