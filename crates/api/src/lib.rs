//! The resource table, the schema facts, defaults, validation, selectors and quantities of the Kubernetes API
