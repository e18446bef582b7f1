//! JSON, merge, strategic merge patch and server-side apply, pure
