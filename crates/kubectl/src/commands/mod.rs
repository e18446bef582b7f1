//! One file a command, or a small family.

pub mod apply;
pub mod debug;
pub mod explain;
pub mod kuberc;
pub mod kustomize;
pub mod completion;
pub mod options;
pub mod plugin;
pub mod proxy;
pub mod discover;
pub mod describe;
mod detach;
pub mod config;
pub mod certificate;
pub mod watching;
mod wire;
pub mod streams;
pub mod pods;
pub mod autoscale;
pub mod attach;
pub mod change;
pub mod create;
pub mod delete;
pub mod edit;
pub mod exec;
pub mod expose;
pub mod get;
pub mod label;
pub mod logs;
pub mod rollout;
pub mod run;
pub mod scale;
pub mod set;
pub mod cordon;
pub mod drain;
pub mod taint;
pub mod top;
pub mod auth;
pub mod cp;
pub mod diff;
pub mod events;
pub mod port_forward;
pub mod wait;

use crate::command::Command;

/// In the order of upstream's help.
pub static ALL: &[&Command] = &[
    &create::CREATE, &expose::EXPOSE, &run::RUN, &set::SET, &get::GET, &edit::EDIT, &delete::DELETE, &rollout::ROLLOUT, &scale::SCALE, &autoscale::AUTOSCALE, &logs::LOGS, &attach::ATTACH, &exec::EXEC,
    &apply::APPLY, &label::PATCH, &create::REPLACE, &wait::WAIT, &label::LABEL, &label::ANNOTATE,
    &cordon::CORDON, &cordon::UNCORDON, &drain::DRAIN, &taint::TAINT, &top::TOP, &auth::AUTH, &cp::CP, &diff::DIFF, &events::EVENTS, &port_forward::PORT_FORWARD,
    &describe::DESCRIBE, &discover::API_RESOURCES, &discover::API_VERSIONS, &discover::VERSION, &discover::CLUSTER_INFO, &config::CONFIG, &kuberc::KUBERC, &certificate::CERTIFICATE, &debug::DEBUG, &kustomize::KUSTOMIZE, &plugin::PLUGIN,
    &options::OPTIONS, &explain::EXPLAIN, &completion::COMPLETION, &proxy::PROXY,
];
