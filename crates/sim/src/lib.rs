//! The whole control plane on virtual time with seeded faults
