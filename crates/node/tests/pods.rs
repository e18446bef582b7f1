//! Pods for real: this node, the API server in process, the embedded runtime, busybox. Needs root.
//!
//! No test harness of its own: the binary is also the runtime's shim (`<exe> shim …`). Arguments filter by name.

#[path = "pods/cases.rs"]
mod cases;
#[path = "pods/logind.rs"]
mod logind;
#[path = "pods/shortage.rs"]
mod shortage;
#[path = "pods/world.rs"]
mod world;

fn main() {
    if std::env::args().nth(1).as_deref() == Some("shim") {
        sandbox::shim::main(std::env::args_os().skip(2));
    }
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    if std::env::args().any(|a| a == "--list") {
        return;
    }
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let failed = runtime.block_on(cases::run(&filters));
    runtime.shutdown_background();
    std::process::exit(i32::from(failed));
}
