//! The node agent: pods, probes, volumes, logs, exec, status, service proxy
