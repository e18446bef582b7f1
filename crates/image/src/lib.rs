//! Image names, content store, registry protocol, layers and builds
