//! Cluster DNS: names of Services and Pods, forwarding for the rest
