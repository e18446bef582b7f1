//! The chains that the verdicts of the Service maps lead to: which there are, and what they are called.

use std::fmt;

/// Whether a frontend is an address and a port, or a port of any address of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum By {
    Address,
    NodePort,
}

/// Whose source address stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Keeps {
    /// Pods have a way back of their own; whoever else comes may have none but through this node.
    Pods,
    /// Nobody's: so the answer comes back through this node, wherever the endpoint is.
    Nobody,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Chain {
    /// Shared by all frontends of the same kind and number of endpoints.
    Pick { by: By, keeps: Keeps, endpoints: u32 },
    /// `externalTrafficPolicy: Local`. Pods and the node itself go to any endpoint, as if they came back from outside; the rest goes to
    /// this node's with its source address, and to nobody when there is none.
    Local { by: By, endpoints: u32, local: u32 },
    /// With session affinity each Service port has chains of its own.
    Sticky { kind: Sticks, service: u64 },
    /// Drops who is not in the port's `loadBalancerSourceRanges`.
    Firewall { service: u64 },
    /// There is no endpoint anywhere: tells the client so.
    Refuse,
    /// There is one, but not here: says nothing, so that a load balancer's client tries elsewhere.
    Discard,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sticks {
    /// From inside the cluster to any endpoint.
    Cluster,
    /// From inside the cluster to endpoints of this node.
    ClusterLocal,
    External,
    ExternalLocal,
}

impl Chain {
    /// Whether it belongs to one Service port and ends with it.
    pub const fn is_own(self) -> bool {
        matches!(self, Self::Sticky { .. } | Self::Firewall { .. })
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pick { by: By::Address, keeps: Keeps::Pods, endpoints } => write!(f, "pick-{endpoints}"),
            Self::Pick { by: By::Address, keeps: Keeps::Nobody, endpoints } => write!(f, "external-pick-{endpoints}"),
            Self::Pick { by: By::NodePort, keeps: Keeps::Pods, endpoints } => write!(f, "nodeport-inside-pick-{endpoints}"),
            Self::Pick { by: By::NodePort, keeps: Keeps::Nobody, endpoints } => write!(f, "nodeport-pick-{endpoints}"),
            Self::Local { by: By::Address, endpoints, local } => write!(f, "external-local-{local}-of-{endpoints}"),
            Self::Local { by: By::NodePort, endpoints, local } => write!(f, "nodeport-local-{local}-of-{endpoints}"),
            Self::Sticky { kind, service } => {
                let kind = match kind {
                    Sticks::Cluster => "",
                    Sticks::ClusterLocal => "local-",
                    Sticks::External => "external-",
                    Sticks::ExternalLocal => "external-local-",
                };
                write!(f, "{kind}sticky-{service:016x}")
            }
            Self::Firewall { service } => write!(f, "firewall-{service:016x}"),
            Self::Refuse => write!(f, "refuse"),
            Self::Discard => write!(f, "discard"),
        }
    }
}
