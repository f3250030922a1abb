//! What a peer says about itself, and how it is kept: what nodes of one program have in common is kept once for all who say the same.

use std::sync::{Arc, Mutex, PoisonError};

use peerage_machine::Interner;

use crate::channel::ChannelLimits;

/// What a peer says about itself. Nothing of it is proved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// Its software, such as `peerage/0.1.0`.
    pub agent: String,
    /// Its name for people.
    pub moniker: String,
    /// The version of its protocol family, from identify.
    pub protocol_version: String,
    /// The protocols that it serves, where it has told us.
    pub protocols: Vec<String>,
    /// Where it says that it listens, from identify.
    pub listen: Vec<String>,
    /// The address at which it sees us.
    pub observed: Option<String>,
    /// The version of the Peerage protocols that it and this node speak; 0 for a foreign peer.
    pub version: u32,
    /// Its channels with their limits, as far as it has told us.
    pub channels: Vec<ChannelLimits>,
}

/// Programs that are kept once at a time; peers that say something else beyond keep it each for itself. So it is with the addresses at which peers see us.
pub(crate) const MAX_SHARED: usize = 64;

/// What the node's peers say in common.
#[derive(Debug)]
pub(crate) struct Sayings(Mutex<(Interner<Program>, Interner<str>)>);

impl Default for Sayings {
    fn default() -> Self {
        Self(Mutex::new((Interner::new(MAX_SHARED), Interner::new(MAX_SHARED))))
    }
}

/// What one peer says, as it is kept.
#[derive(Debug)]
pub(crate) struct Said {
    program: Arc<Program>,
    observed: Option<Arc<str>>,
    /// Mostly of one program's nodes: each its own.
    moniker: Box<str>,
    listen: Box<[Box<str>]>,
    version: u32,
}

/// What all nodes of a program say that are set up alike.
#[derive(Debug, PartialEq, Eq)]
struct Program {
    agent: String,
    protocol_version: String,
    protocols: Vec<String>,
    channels: Vec<ChannelLimits>,
}

impl Said {
    pub(crate) fn new(about: About, sayings: &Sayings) -> Self {
        let About { agent, moniker, protocol_version, protocols, listen, observed, version, channels } =
            about;
        let program = Arc::new(Program { agent, protocol_version, protocols, channels });
        let observed = observed.map(Arc::from);
        let (programs, addresses) = &mut *sayings.0.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            program: programs.share(program),
            observed: observed.map(|observed| addresses.share(observed)),
            moniker: moniker.into(),
            listen: listen.into_iter().map(String::into_boxed_str).collect(),
            version,
        }
    }

    /// As a value of its own.
    pub(crate) fn about(&self) -> About {
        let Program { agent, protocol_version, protocols, channels } = &*self.program;
        About {
            agent: agent.clone(),
            moniker: self.moniker.to_string(),
            protocol_version: protocol_version.clone(),
            protocols: protocols.clone(),
            listen: self.listen.iter().map(ToString::to_string).collect(),
            observed: self.observed.as_ref().map(ToString::to_string),
            version: self.version,
            channels: channels.clone(),
        }
    }

    pub(crate) fn channel(&self, name: &str) -> Option<&ChannelLimits> {
        self.program.channels.iter().find(|limits| limits.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(number: usize) -> About {
        About {
            agent: format!("test/{number}"),
            moniker: "one of many".into(),
            protocols: vec!["/a/1".into(), "/b/1".into()],
            listen: vec![format!("/ip4/127.0.0.1/udp/{number}/quic-v1")],
            observed: Some("/ip4/127.0.0.1/udp/9/quic-v1".into()),
            version: 2,
            ..About::default()
        }
    }

    #[test]
    fn what_peers_say_alike_is_kept_once_and_comes_back_as_it_was_said() {
        let sayings = Sayings::default();
        let (one, other) = (about(1), About { listen: Vec::new(), ..about(1) });
        let kept = [&one, &other].map(|about| Said::new(about.clone(), &sayings));
        assert_eq!([kept[0].about(), kept[1].about()], [one, other]);
        assert!(Arc::ptr_eq(&kept[0].program, &kept[1].program));
        let observed = kept.each_ref().map(|said| said.observed.as_ref().unwrap());
        assert!(Arc::ptr_eq(observed[0], observed[1]));
        let third = Said::new(about(3), &sayings);
        assert!(!Arc::ptr_eq(&kept[0].program, &third.program));
    }

    #[test]
    fn sixty_four_programs_are_kept_once_and_of_more_each_peer_keeps_its_own() {
        let sayings = Sayings::default();
        let all: Vec<_> = (0..=MAX_SHARED).map(|number| Said::new(about(number), &sayings)).collect();
        let is_shared = |number: usize| {
            let again = Said::new(about(number), &sayings);
            assert_eq!(again.about(), about(number));
            Arc::ptr_eq(&again.program, &all[number].program)
        };
        assert!(is_shared(0) && is_shared(MAX_SHARED - 1) && !is_shared(MAX_SHARED));
    }
}
