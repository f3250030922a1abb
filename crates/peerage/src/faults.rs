//! What the transport and the sessions report, as the peer manager takes it: who is to blame.

use peerage_peers::{CloseReason, Failure, Fault, RejectReason};
use peerage_transport::{CloseCause, CloseCode, DialError};

/// What a failed dial means.
pub(crate) fn of_dial(error: &DialError) -> Failure {
    let fault = match error {
        DialError::Timeout { .. } => Fault::Timeout,
        DialError::WrongPeer { .. } => Fault::WrongKey,
        DialError::Certificate { .. } => Fault::BadCertificate,
        DialError::Refused { .. } => Fault::Refused,
        DialError::RefusedByTls { .. } => Fault::TlsRefused,
        DialError::Ended { cause, .. } => match of_close(cause) {
            // Only who dialled can say so.
            Fault::VisitOver => Fault::ClosedByPeer,
            other => other,
        },
        DialError::NoSocket { .. } | DialError::Bind { .. } => Fault::NoSocket,
        DialError::BadAddress { .. } => Fault::BadAddress,
        DialError::Closed => Fault::ThisNodeCloses,
        _ => Fault::Broken,
    };
    Failure::new(fault, error.to_string())
}

/// What the end of a connection means.
pub(crate) fn of_end(cause: &CloseCause) -> Failure {
    Failure::new(of_close(cause), cause.to_string())
}

/// How a session calls the end that the peer manager ordered: the code for the peer, and the fault.
pub(crate) fn of_order(reason: CloseReason) -> (CloseCode, Fault) {
    match reason {
        CloseReason::Duplicate => (CloseCode::Duplicate, Fault::Duplicate),
        CloseReason::Replaced => (CloseCode::Replaced, Fault::Replaced),
        CloseReason::Refused => (CloseCode::Normal, Fault::ClosedByUs),
        CloseReason::Disconnect => (CloseCode::Normal, Fault::Disconnected),
        CloseReason::ShuttingDown => (CloseCode::Shutdown, Fault::ThisNodeCloses),
        CloseReason::NotAdmitted => {
            (CloseCode::NotAdmitted, Fault::RefusedByUs(RejectReason::ForeignRefused))
        }
        CloseReason::Overloaded => (CloseCode::ResourceLimit, Fault::HelloTimeout),
        CloseReason::Full => (CloseCode::Full, Fault::RefusedByUs(RejectReason::Full)),
        CloseReason::Banned => (CloseCode::Banned, Fault::RefusedByUs(RejectReason::Banned)),
        CloseReason::Rotated => (CloseCode::Trimmed, Fault::Rotated),
        CloseReason::VisitOver => (CloseCode::VisitOver, Fault::VisitOver),
        CloseReason::VisitTrimmed => (CloseCode::Trimmed, Fault::VisitOver),
    }
}

fn of_close(cause: &CloseCause) -> Fault {
    match cause {
        CloseCause::ByPeer { code, .. } => of_code(*code),
        CloseCause::ByUs { .. } => Fault::ClosedByUs,
        CloseCause::TimedOut { .. } => Fault::Silent,
        CloseCause::Reset => Fault::Restarted,
        CloseCause::VersionMismatch => Fault::NothingInCommon,
        CloseCause::RefusedByTls { .. } => Fault::TlsRefused,
        _ => Fault::Broken,
    }
}

/// What a peer means by the code with which it closed.
fn of_code(code: CloseCode) -> Fault {
    match code {
        CloseCode::NegotiationFailed => Fault::NothingInCommon,
        CloseCode::ResourceLimit => Fault::ResourceLimit,
        CloseCode::RateLimited => Fault::RateLimited,
        CloseCode::ProtocolViolation => Fault::Accused,
        CloseCode::Duplicate => Fault::Duplicate,
        CloseCode::Trimmed => Fault::Trimmed,
        CloseCode::VisitOver => Fault::VisitOver,
        CloseCode::Shutdown => Fault::RefusedByPeer(RejectReason::ShuttingDown),
        CloseCode::NotAdmitted => Fault::RefusedByPeer(RejectReason::ForeignRefused),
        CloseCode::Replaced => Fault::Replaced,
        CloseCode::WrongNetwork => Fault::RefusedByPeer(RejectReason::WrongNetwork),
        CloseCode::Banned => Fault::RefusedByPeer(RejectReason::Banned),
        CloseCode::HandshakeTimeout => Fault::HelloTimeout,
        CloseCode::Clone => Fault::RefusedByPeer(RejectReason::Clone),
        CloseCode::Loop => Fault::RefusedByPeer(RejectReason::SelfDial),
        CloseCode::NoCommonVersion => Fault::RefusedByPeer(RejectReason::NoCommonVersion),
        CloseCode::Full => Fault::RefusedByPeer(RejectReason::Full),
        CloseCode::Normal | CloseCode::CodeOutOfRange | CloseCode::Internal | CloseCode::Other(_) => {
            Fault::ClosedByPeer
        }
        _ => Fault::ClosedByPeer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerage_identity::NodeKey;
    use peerage_peers::Blame;
    use peerage_transport::{BindError, CertificateFault, TlsAlert};
    use std::time::Duration;

    /// Every failure that the transport and the hello know lands on the party at fault.
    #[test]
    fn each_failure_of_the_transport_and_the_hello_is_charged_to_the_party_at_fault() {
        let address = ([192, 0, 2, 1], 1).into();
        let peer = || Box::new(NodeKey::generate().peer_id());
        let after = Duration::from_secs(5);
        let ended = |cause| DialError::Ended { address, cause };
        let source = BindError::AddressInUse { address };
        let dials = [
            (DialError::Timeout { address, after }, Fault::Timeout, Blame::Unlucky),
            (
                DialError::WrongPeer { address, expected: peer(), found: peer() },
                Fault::WrongKey,
                Blame::Hostile,
            ),
            (
                DialError::Certificate { address, fault: CertificateFault::Count { count: 0 } },
                Fault::BadCertificate,
                Blame::Hostile,
            ),
            (DialError::Refused { address }, Fault::Refused, Blame::Overloaded),
            (DialError::RefusedByTls { address, alert: TlsAlert(42) }, Fault::TlsRefused, Blame::Hostile),
            (ended(CloseCause::Reset), Fault::Restarted, Blame::Unlucky),
            (ended(CloseCause::VersionMismatch), Fault::NothingInCommon, Blame::Hostile),
            (ended(CloseCause::TimedOut { after }), Fault::Silent, Blame::Unlucky),
            (ended(CloseCause::Transport { detail: "x".into() }), Fault::Broken, Blame::Unlucky),
            (DialError::NoSocket { address, listening: Vec::new() }, Fault::NoSocket, Blame::Local),
            (DialError::Bind { address, source }, Fault::NoSocket, Blame::Local),
            (DialError::BadAddress { address }, Fault::BadAddress, Blame::Hostile),
            (DialError::Closed, Fault::ThisNodeCloses, Blame::Local),
        ];
        for (error, fault, blame) in dials {
            let failure = of_dial(&error);
            assert_eq!((failure.fault, failure.blame()), (fault, blame), "{error}");
        }
        for code in CloseCode::ALL {
            let blame = of_code(*code).blame();
            let expected = match code {
                CloseCode::Full
                | CloseCode::Banned
                | CloseCode::Clone
                | CloseCode::ResourceLimit
                | CloseCode::RateLimited
                | CloseCode::Trimmed => Blame::Overloaded,
                CloseCode::WrongNetwork
                | CloseCode::NoCommonVersion
                | CloseCode::NegotiationFailed
                | CloseCode::NotAdmitted
                | CloseCode::Loop => Blame::Hostile,
                // Nothing was wrong with anybody.
                CloseCode::VisitOver => Blame::Local,
                _ => Blame::Unlucky,
            };
            assert_eq!(blame, expected, "{code}");
        }
        assert_eq!(
            of_close(&CloseCause::ByUs { code: CloseCode::Normal, reason: String::new() }).blame(),
            Blame::Local
        );
    }
}
