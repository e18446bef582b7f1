//! Typed client, kubeconfig, informer cache and work queue
