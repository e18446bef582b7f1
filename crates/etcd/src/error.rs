//! What goes wrong between us and etcd, and whether the request may have been carried out all the same.

/// gRPC's status codes, as far as etcd's answers are told apart by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    OutOfRange,
    Unavailable,
    Unauthenticated,
    Other(u32),
}

impl Code {
    pub(crate) fn of(number: u32) -> Self {
        match number {
            3 => Self::InvalidArgument,
            4 => Self::DeadlineExceeded,
            5 => Self::NotFound,
            7 => Self::PermissionDenied,
            8 => Self::ResourceExhausted,
            9 => Self::FailedPrecondition,
            11 => Self::OutOfRange,
            14 => Self::Unavailable,
            16 => Self::Unauthenticated,
            other => Self::Other(other),
        }
    }

    /// As Go's gRPC calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidArgument => "InvalidArgument",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::NotFound => "NotFound",
            Self::PermissionDenied => "PermissionDenied",
            Self::ResourceExhausted => "ResourceExhausted",
            Self::FailedPrecondition => "FailedPrecondition",
            Self::OutOfRange => "OutOfRange",
            Self::Unavailable => "Unavailable",
            Self::Unauthenticated => "Unauthenticated",
            Self::Other(1) => "Canceled",
            Self::Other(6) => "AlreadyExists",
            Self::Other(10) => "Aborted",
            Self::Other(12) => "Unimplemented",
            Self::Other(13) => "Internal",
            Self::Other(15) => "DataLoss",
            Self::Other(_) => "Unknown",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Config(String),
    /// No connection: nothing was sent.
    #[error("{0}")]
    Connect(String),
    /// The connection broke with the request under way.
    #[error("{0}")]
    Broken(String),
    #[error("etcdserver: request timed out")]
    Timeout,
    /// etcd's own answer.
    #[error("{message}")]
    Refused { code: Code, message: String },
    #[error("the answer of etcd cannot be read")]
    Malformed,
}

impl Error {
    /// Whether the request was certainly not carried out.
    pub fn nothing_done(&self) -> bool {
        match self {
            Self::Config(_) | Self::Connect(_) => true,
            Self::Broken(_) | Self::Timeout | Self::Malformed => false,
            // Those that come after the proposal went into the log.
            Self::Refused { code: Code::Unavailable | Code::DeadlineExceeded | Code::Other(_), message } => message.contains("no leader") || message.contains("not leader"),
            Self::Refused { .. } => true,
        }
    }

    /// Whether another try, perhaps at another member, can end better.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Broken(_) | Self::Timeout => true,
            Self::Refused { code, .. } => matches!(code, Code::Unavailable | Code::DeadlineExceeded),
            Self::Config(_) | Self::Malformed => false,
        }
    }

    pub fn is_compacted(&self) -> bool {
        matches!(self, Self::Refused { code: Code::OutOfRange, message } if message.contains("compacted"))
    }
}
