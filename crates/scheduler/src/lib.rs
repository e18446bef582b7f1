//! Runs the placement of pods
