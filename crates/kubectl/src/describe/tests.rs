//! Descriptions as the real kubectl prints them.
