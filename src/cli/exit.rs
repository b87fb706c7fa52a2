//! How a command ends: an exit code for each kind of problem, the same for every command, and the problem in one line.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use brevet_client::Refusal;
use rustls::AlertDescription;
use thiserror::Error;
use tonic::{Code, Status};

/// The exit codes, the same for every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It was done.
    Ok = 0,
    /// It failed.
    Error = 1,
    /// The command line was wrong, or the request did not fit its shape.
    Usage = 2,
    /// Policy or registration said no.
    Denied = 3,
    /// The caller is not known.
    Unauthenticated = 4,
    /// There is no such object.
    NotFound = 7,
    /// The broker cannot do it now: it is not reached, has no room, or a quota is used up.
    Unavailable = 8,
    /// A lock forbids it.
    Locked = 9,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Options that do not fit each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) &'static str);

/// Why a command was not done: what it exits with, and the problem with every cause in one line.
///
/// Every error becomes one, so that a command passes on whatever it meets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    exit: Exit,
    text: String,
}

impl Failure {
    /// Says what the problem is about.
    pub(super) fn about(mut self, what: &str) -> Self {
        self.text = format!("{what}: {}", self.text);
        self
    }

    /// Tells the person at the terminal, and says what to exit with.
    pub(super) fn report(&self) -> Exit {
        tell(&self.text);
        self.exit
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(problem: E) -> Self {
        Self { exit: exit_of(&problem), text: causes(&problem) }
    }
}

/// Tells the person at the terminal why a command failed, with every cause.
pub(super) fn complain(problem: &(dyn Error + 'static)) {
    tell(&causes(problem));
}

fn tell(text: &str) {
    // Whom nothing can be told any more still gets the exit code.
    let _told = writeln!(io::stderr(), "brevet: {text}");
}

/// The code for a problem: by the cause that says the most about it.
fn exit_of(problem: &(dyn Error + 'static)) -> Exit {
    let refused = || chain(problem).any(refuses_certificate).then_some(Exit::Unauthenticated);
    // Whoever answers is not the broker that was meant.
    let foreign = || chain(problem).any(|cause| cause.is::<rustls::Error>()).then_some(Exit::Error);
    let lost =
        || chain(problem).any(|cause| cause.is::<tonic::transport::Error>()).then_some(Exit::Unavailable);
    let answered = || chain(problem).find_map(|cause| cause.downcast_ref().map(of_status));
    let usage = || problem.is::<Usage>().then_some(Exit::Usage);
    refused().or_else(foreign).or_else(lost).or_else(answered).or_else(usage).unwrap_or(Exit::Error)
}

/// The alerts with which a broker refuses a caller's certificate (RFC 8446 §6.2).
const CERTIFICATE_REFUSALS: [AlertDescription; 9] = [
    AlertDescription::BadCertificate,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateUnknown,
    AlertDescription::CertificateRequired,
    AlertDescription::UnknownCA,
    AlertDescription::AccessDenied,
    AlertDescription::DecryptError,
];

/// Whether this is such an alert. It comes after the handshake, and HTTP/2 keeps the text of an error of the
/// connection but not its type, so the text is what tells.
fn refuses_certificate(cause: &(dyn Error + 'static)) -> bool {
    let text = cause.to_string();
    CERTIFICATE_REFUSALS.iter().any(|alert| text.ends_with(&rustls::Error::AlertReceived(*alert).to_string()))
}

fn of_status(status: &Status) -> Exit {
    let refusal = Refusal::from_status(status);
    if refusal.reason.is_none() && status.source().is_some() {
        // The call ended with its connection.
        return Exit::Unavailable;
    }
    of_refusal(refusal.code, refusal.reason.as_deref())
}

fn of_refusal(code: Code, reason: Option<&str>) -> Exit {
    match (code, reason) {
        (_, Some("LOCKED")) => Exit::Locked,
        (Code::PermissionDenied, _) => Exit::Denied,
        (Code::Unauthenticated, _) => Exit::Unauthenticated,
        (Code::NotFound, _) => Exit::NotFound,
        (Code::InvalidArgument, _) => Exit::Usage,
        (Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded, _) => Exit::Unavailable,
        _ => Exit::Error,
    }
}

/// The problem and its causes, the outermost first.
fn chain<'a>(problem: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(problem), |&problem| {
        // An I/O error that wraps another shows the causes of that, but not itself.
        match problem.downcast_ref().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => problem.source(),
        }
    })
}

fn causes(problem: &(dyn Error + 'static)) -> String {
    let mut said: Vec<String> = Vec::new();
    for cause in chain(problem) {
        let text =
            cause.downcast_ref().map_or_else(|| cause.to_string(), |it| Refusal::from_status(it).to_string());
        let line = one_line(&text);
        // Some errors tell their cause themselves.
        if !line.is_empty() && !said.iter().any(|before| before.ends_with(&line)) {
            said.push(line);
        }
    }
    said.join(": ")
}

/// Whatever a file or a peer put into a text, it is one line without control characters.
fn one_line(text: &str) -> String {
    text.split(|character: char| character.is_whitespace() || character.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    fn refused(code: Code, reason: &str) -> Failure {
        let details = ErrorDetails::with_error_info(reason, "brevet", []);
        Status::with_error_details(code, "no", details).into()
    }

    #[test]
    fn each_refusal_has_its_exit_code() {
        for (code, reason, exit) in [
            (Code::PermissionDenied, "POLICY_DENIED", 3),
            (Code::Unauthenticated, "UNAUTHENTICATED", 4),
            (Code::NotFound, "NOT_FOUND", 7),
            (Code::Unavailable, "NO_SPACE", 8),
            (Code::ResourceExhausted, "JOURNAL_BUSY", 8),
            (Code::FailedPrecondition, "LOCKED", 9),
            (Code::FailedPrecondition, "TASK_CLOSED", 1),
            (Code::AlreadyExists, "REQUEST_ID_REUSED", 1),
            (Code::InvalidArgument, "INVALID_ARGUMENT", 2),
        ] {
            let failure = refused(code, reason);
            assert_eq!(failure.exit as u8, exit, "{reason}");
            assert_eq!(failure.text, format!("no ({reason})"));
        }
    }

    #[test]
    fn a_refused_certificate_is_told_from_a_foreign_server() {
        let wrapped = |error: rustls::Error| Failure::from(io::Error::other(io::Error::other(error))).exit;
        let alert = rustls::Error::AlertReceived(AlertDescription::UnknownCA);
        let text = io::Error::other(format!("connection error: {alert}"));
        assert_eq!(
            (wrapped(alert), Failure::from(text).exit),
            (Exit::Unauthenticated, Exit::Unauthenticated)
        );
        let foreign = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        assert_eq!(wrapped(foreign), Exit::Error);
        let mut lost = Status::unknown("transport error");
        lost.set_source(std::sync::Arc::new(io::Error::from(io::ErrorKind::BrokenPipe)));
        assert_eq!(Failure::from(lost).exit, Exit::Unavailable);
    }

    #[test]
    fn a_problem_is_one_line_that_says_nothing_twice() {
        let inner = io::Error::other("second\n  line\u{1b}[31m");
        let failure = Failure::from(io::Error::other(inner)).about("request r");
        assert_eq!(failure.text, "request r: second line [31m");
        assert_eq!(Failure::from(Usage("a or b")).exit, Exit::Usage);
    }
}
