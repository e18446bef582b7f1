//! `kubectl describe`, kind by kind.
