//! The load generator, for any kubeconfig
