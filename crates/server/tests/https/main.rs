//! The API server over HTTPS, as clients meet it: status codes, words, streams. One file a part of the contract.

mod admission;
mod aggregator;
mod audit;
mod authorization;
mod bad_input;
mod conversion;
mod custom;
mod deletion;
mod encodings;
mod encryption;
mod eviction;
mod fairness;
mod full_disk;
mod harness;
mod kinds;
mod limits;
mod listener;
mod policies;
mod proxying;
mod quota;
mod reads;
mod roles;
mod services;
mod validation_rules;
mod webhooks;
mod writes;
