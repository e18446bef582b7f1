//! `kubectl top`: what nodes and pods use, where the cluster serves metrics.k8s.io.
//!
//! Mirrors k8s.io/kubectl/pkg/cmd/top.

use serde_json::Value;

use super::pods::{array, text as at};
use crate::command::{command, family};
use crate::error::{Result, fail};
use crate::flags::{Args, Flag, switch, text};
use crate::output;
use crate::session::{Query, Session};
use crate::tabwriter::TABLE;

const SELECTOR: Flag = text("selector", "", "Selector (label query) to filter on, supports '=', '==', '!=', 'in', 'notin'.").short('l');
const HEADERS: Flag = switch("no-headers", "If present, print output without headers");
const SORT: Flag = text("sort-by", "", "If non-empty, sort list using specified field. The field can be either 'cpu' or 'memory'.");
const SWAP: Flag = switch("show-swap", "Print swap usage, where nodes tell of it.");
const PROTOCOL: Flag = crate::flags::on("use-protocol-buffers", "Enables using protocol-buffers to access Metrics API.");
const NODE_FLAGS: &[Flag] = &[SELECTOR, HEADERS, SORT, SWAP, PROTOCOL, switch("show-capacity", "Print node resources based on Capacity instead of Allocatable(default) of the nodes.")];
const POD_FLAGS: &[Flag] = &[SELECTOR, HEADERS, SORT, SWAP, PROTOCOL, text("field-selector", "", "Selector (field query) to filter on, supports '=', '==', and '!='."), switch("sum", "Print the sum of the resource usage"), switch("all-namespaces", "If present, list the requested object(s) across all namespaces.").short('A'), switch("containers", "If present, print usage of containers within a pod.")];

command!(NODE, "node", ["nodes", "no"], "[NAME | -l label] [options]", "Display resource (CPU/memory) usage of nodes", [NODE_FLAGS], nodes);
command!(POD, "pod", ["pods", "po"], "[NAME | -l label] [options]", "Display resource (CPU/memory) usage of pods", [POD_FLAGS], pods);
family!(TOP, "top", "Display resource (CPU/memory) usage", [&NODE, &POD]);

async fn metrics(session: &Session, args: &Args, path: &str) -> Result<Vec<Value>> {
    if session.get("/apis/metrics.k8s.io/v1beta1").await.is_err() {
        return fail("Metrics API not available");
    }
    Ok(match args.positional.first() {
        Some(name) => vec![session.get(&format!("{path}/{name}")).await?],
        None => array(&session.get(&Query::of(path).with("labelSelector", args.text("selector")).with("fieldSelector", args.text("field-selector")).end()).await?, "/items").cloned().collect(),
    })
}

/// Millicores and MiB, as people read them.
fn usage(value: &Value) -> (i64, i64) {
    let amount = |name: &str| api::quantity::Quantity::parse(at(value, &format!("/usage/{name}"))).map_or(0.0, |quantity| quantity.as_f64());
    ((amount("cpu") * 1000.0).ceil() as i64, (amount("memory") / f64::from(1 << 20)) as i64)
}

fn sorted<T>(rows: &mut [(T, i64, i64)], by: &str) -> Result<()> {
    match by {
        "" => {}
        "cpu" => rows.sort_by_key(|(_, cpu, _)| std::cmp::Reverse(*cpu)),
        "memory" => rows.sort_by_key(|(_, _, memory)| std::cmp::Reverse(*memory)),
        _ => return fail("--sort-by accepts only cpu or memory"),
    }
    Ok(())
}

async fn nodes(session: &Session, args: &Args) -> Result<()> {
    let mut rows = Vec::new();
    for one in metrics(session, args, "/apis/metrics.k8s.io/v1beta1/nodes").await? {
        let (cpu, memory) = usage(&one);
        let name = at(&one, "/metadata/name").to_owned();
        let node = session.get(&format!("/api/v1/nodes/{name}")).await?;
        rows.push(((name, node), cpu, memory));
    }
    sorted(&mut rows, args.text("sort-by"))?;
    let mut out = if args.on("no-headers") { String::new() } else { "NAME\tCPU(cores)\tCPU(%)\tMEMORY(bytes)\tMEMORY(%)\n".to_owned() };
    let of = if args.on("show-capacity") { "capacity" } else { "allocatable" };
    for ((name, node), cpu, memory) in rows {
        let whole = |resource: &str| api::quantity::Quantity::parse(at(&node, &format!("/status/{of}/{resource}"))).map_or(0.0, |quantity| quantity.as_f64());
        let share = |part: f64, whole: f64| if whole > 0.0 { (part / whole * 100.0) as i64 } else { 0 };
        let (cpu_share, memory_share) = (share(cpu as f64 / 1000.0, whole("cpu")), share(memory as f64 * f64::from(1 << 20), whole("memory")));
        out.push_str(&format!("{name}\t{cpu}m\t{cpu_share}%\t{memory}Mi\t{memory_share}%\n"));
    }
    output::write(TABLE.format(&out).as_bytes());
    Ok(())
}

async fn pods(session: &Session, args: &Args) -> Result<()> {
    let all = args.on("all-namespaces");
    let path = if all { "/apis/metrics.k8s.io/v1beta1/pods".to_owned() } else { format!("/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods", session.namespace()?) };
    let mut rows = Vec::new();
    for pod in metrics(session, args, &path).await? {
        let start = if all { format!("{}\t", at(&pod, "/metadata/namespace")) } else { String::new() };
        let name = at(&pod, "/metadata/name");
        let each: Vec<(i64, i64, &str)> = array(&pod, "/containers").map(|container| (usage(container), at(container, "/name"))).map(|((cpu, memory), name)| (cpu, memory, name)).collect();
        if args.on("containers") {
            rows.extend(each.iter().map(|(cpu, memory, container)| (format!("{start}{name}\t{container}"), *cpu, *memory)));
        } else {
            rows.push((format!("{start}{name}"), each.iter().map(|one| one.0).sum(), each.iter().map(|one| one.1).sum()));
        }
    }
    if rows.is_empty() {
        output::complain(if all { "No resources found".to_owned() } else { format!("No resources found in {} namespace.", session.namespace()?) });
        return Ok(());
    }
    sorted(&mut rows, args.text("sort-by"))?;
    let mut out = String::new();
    if !args.on("no-headers") {
        out.push_str(if all { "NAMESPACE\t" } else { "" });
        out.push_str(if args.on("containers") { "POD\tNAME\t" } else { "NAME\t" });
        out.push_str("CPU(cores)\tMEMORY(bytes)\n");
    }
    rows.iter().for_each(|(name, cpu, memory)| out.push_str(&format!("{name}\t{cpu}m\t{memory}Mi\n")));
    if args.on("sum") {
        let blank = "\t".repeat(1 + usize::from(all) + usize::from(args.on("containers")));
        let (cpu, memory) = rows.iter().fold((0, 0), |(cpu, memory), row| (cpu + row.1, memory + row.2));
        out.push_str(&format!("{blank}________\t________\n{blank}{cpu}m\t{memory}Mi\n"));
    }
    output::write(TABLE.format(&out).as_bytes());
    Ok(())
}
