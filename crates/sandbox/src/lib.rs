//! Containers: namespaces, cgroups, overlay roots, and the shim that owns a pod's processes
