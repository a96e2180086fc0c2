//! Refusals, with the texts and statuses that the contract fixes.

/// Why a request goes no further. It is the whole answer: no handler runs after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denied {
    /// The path names no workspace (W1).
    #[error("{}", self.message())]
    MissingWorkspaceId,
    /// No bearer where a workspace's is due.
    #[error("{}", self.message())]
    MissingWorkspaceToken,
    /// A bearer that does not open this workspace: unknown, revoked, another workspace's or a removed one's,
    /// which nobody can tell apart (5.R13).
    #[error("{}", self.message())]
    InvalidWorkspaceToken,
    /// No credential where an operator's is due.
    #[error("{}", self.message())]
    AdminRequired,
    /// A bearer that is no operator's.
    #[error("{}", self.message())]
    InvalidAdminToken,
    /// A caller was named without the bearer that proves it (P4).
    #[error("{}", self.message())]
    MissingCallerToken,
    /// A caller was named with a bearer that does not prove it (P5).
    #[error("{}", self.message())]
    InvalidCallerToken,
    /// The named caller is no workspace id, or claims to be the server itself (P1).
    #[error("{}", self.message())]
    InvalidCallerId,
    /// The browser page that asks is not one of ours.
    #[error("{}", self.message())]
    OriginNotAllowed,
    /// The token store did not answer, so nobody can be told apart now (5.R76).
    #[error("{}", self.message())]
    Unavailable,
}

impl Denied {
    /// The HTTP status: 401 "credential missing or wrong", 403 "known, not allowed", 503 "cannot decide now"
    /// (5.R63). Every 401 carries `WWW-Authenticate: Bearer`.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::MissingWorkspaceId
            | Self::MissingWorkspaceToken
            | Self::InvalidWorkspaceToken
            | Self::AdminRequired
            | Self::InvalidAdminToken
            | Self::MissingCallerToken
            | Self::InvalidCallerToken => 401,
            Self::InvalidCallerId | Self::OriginNotAllowed => 403,
            Self::Unavailable => 503,
        }
    }

    /// The fixed text of the body's `error`.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::MissingWorkspaceId => "missing workspace ID",
            Self::MissingWorkspaceToken => "missing workspace auth token",
            Self::InvalidWorkspaceToken => "invalid workspace auth token",
            Self::AdminRequired => "admin auth required",
            Self::InvalidAdminToken => "invalid admin auth token",
            Self::MissingCallerToken => "missing caller auth token",
            Self::InvalidCallerToken => "invalid caller auth token",
            Self::InvalidCallerId => "invalid caller ID",
            Self::OriginNotAllowed => "origin not allowed",
            Self::Unavailable => "platform datastore unavailable — retry shortly",
        }
    }

    /// The body's `code`, for the one refusal that has one.
    #[must_use]
    pub const fn code(self) -> Option<&'static str> {
        match self {
            Self::Unavailable => Some("platform_unavailable"),
            _ => None,
        }
    }

    /// Seconds for `Retry-After`, for the one refusal that has it.
    #[must_use]
    pub const fn retry_after(self) -> Option<u32> {
        match self {
            Self::Unavailable => Some(5),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_is_the_contracts() {
        // 5.R63, 5.R76, 5 §5.2 to §5.9
        let table = [
            (Denied::MissingWorkspaceId, 401, "missing workspace ID"),
            (Denied::MissingWorkspaceToken, 401, "missing workspace auth token"),
            (Denied::InvalidWorkspaceToken, 401, "invalid workspace auth token"),
            (Denied::AdminRequired, 401, "admin auth required"),
            (Denied::InvalidAdminToken, 401, "invalid admin auth token"),
            (Denied::MissingCallerToken, 401, "missing caller auth token"),
            (Denied::InvalidCallerToken, 401, "invalid caller auth token"),
            (Denied::InvalidCallerId, 403, "invalid caller ID"),
            (Denied::OriginNotAllowed, 403, "origin not allowed"),
        ];
        for (denied, status, text) in table {
            assert_eq!(
                (denied.status(), denied.message(), denied.to_string()),
                (status, text, text.to_owned())
            );
            assert_eq!((denied.code(), denied.retry_after()), (None, None));
        }
        let down = Denied::Unavailable;
        assert_eq!(
            (down.status(), down.code(), down.retry_after()),
            (503, Some("platform_unavailable"), Some(5))
        );
        assert_eq!(down.message(), "platform datastore unavailable — retry shortly");
    }
}
