//! The API server: HTTP, authentication, authorisation, admission, and the generic registry over the store
