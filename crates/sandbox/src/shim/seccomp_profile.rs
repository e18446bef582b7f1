//! Seccomp profiles from the node's disk (`type: Localhost`), in the format of the OCI runtime specification's `linux.seccomp`.
//!
//! A profile becomes one program per action, which the kernel runs all, the strictest answer winning: one that gives the default to every call not
//! named, and one for each action other than "allow" that gives it to the calls named with it. Names this architecture does not have are skipped,
//! as libseccomp does; what cannot be expressed (user notification) is refused.

use std::collections::BTreeMap;
use std::path::Path;

use seccompiler::{BpfProgram, TargetArch};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Vec<Argument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// The programs, to be installed in this order.
pub fn load(path: &Path, architecture: TargetArch) -> Result<Vec<BpfProgram>, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("cannot load seccomp profile {:?}: {}", path.display().to_string(), super::text::reason(&error)))?;
    programs(&bytes, architecture).map_err(|error| format!("cannot load seccomp profile {:?}: {error}", path.display().to_string()))
}

fn programs(profile: &[u8], architecture: TargetArch) -> Result<Vec<BpfProgram>, String> {
    let profile: Profile = serde_json::from_slice(profile).map_err(|error| format!("decoding seccomp profile failed: {error}"))?;
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let mut named: Vec<Value> = Vec::new();
    let mut by_action: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
    for rule in &profile.syscalls {
        let given = action(&rule.action, rule.errno_ret)?;
        if given == default {
            continue;
        }
        let conditions = rule.args.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
        for name in rule.names.iter().filter(|name| exists(name, architecture)) {
            let mut call = json!({"syscall": name});
            if !conditions.is_empty() {
                call["args"] = Value::Array(conditions.clone());
            }
            if given != "allow" {
                by_action.entry(given.to_string()).or_insert_with(|| (given.clone(), Vec::new())).1.push(call.clone());
            }
            named.push(call);
        }
    }
    let mut programs = Vec::new();
    for (action, calls) in by_action.into_values() {
        programs.push(compile(&json!("allow"), &action, calls, architecture)?);
    }
    if default != "allow" {
        // The strictest is the last: the others could not be installed after it.
        programs.push(compile(&default, &json!("allow"), named, architecture)?);
    }
    Ok(programs)
}

fn compile(otherwise: &Value, action: &Value, calls: Vec<Value>, architecture: TargetArch) -> Result<BpfProgram, String> {
    let text = json!({"main": {"mismatch_action": otherwise, "match_action": action, "filter": calls}}).to_string();
    let mut compiled = seccompiler::compile_from_json(text.as_bytes(), architecture).map_err(|error| error.to_string())?;
    compiled.remove("main").ok_or_else(|| "empty profile".to_owned())
}

fn exists(name: &str, architecture: TargetArch) -> bool {
    compile(&json!("allow"), &json!("log"), vec![json!({"syscall": name})], architecture).is_ok()
}

fn action(name: &str, errno: Option<u32>) -> Result<Value, String> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => json!("allow"),
        "SCMP_ACT_ERRNO" => json!({"errno": errno.unwrap_or(libc::EPERM as u32)}),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => json!("kill_thread"),
        "SCMP_ACT_KILL_PROCESS" => json!("kill_process"),
        "SCMP_ACT_LOG" => json!("log"),
        "SCMP_ACT_TRAP" => json!("trap"),
        "SCMP_ACT_TRACE" => json!({"trace": errno.unwrap_or(libc::EPERM as u32)}),
        other => return Err(format!("unsupported seccomp action {other:?}")),
    })
}

fn condition(argument: &Argument) -> Result<Value, String> {
    let (operator, value) = match argument.op.as_str() {
        "SCMP_CMP_EQ" => (json!("eq"), argument.value),
        "SCMP_CMP_NE" => (json!("ne"), argument.value),
        "SCMP_CMP_LT" => (json!("lt"), argument.value),
        "SCMP_CMP_LE" => (json!("le"), argument.value),
        "SCMP_CMP_GT" => (json!("gt"), argument.value),
        "SCMP_CMP_GE" => (json!("ge"), argument.value),
        "SCMP_CMP_MASKED_EQ" => (json!({"masked_eq": argument.value}), argument.value_two),
        other => return Err(format!("unsupported seccomp operator {other:?}")),
    };
    Ok(json!({"index": argument.index, "type": "qword", "op": operator, "val": value}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::seccomp::architecture;

    #[test]
    fn profiles_become_programs() {
        let count = |text: &str| programs(text.as_bytes(), architecture().unwrap()).map(|programs| programs.len());
        assert_eq!(count(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#), Ok(0));
        assert_eq!(count(r#"{"defaultAction":"SCMP_ACT_LOG"}"#), Ok(1));
        let deny = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[
            {"names":["mkdirat","no_such_call"],"action":"SCMP_ACT_ERRNO","errnoRet":38},
            {"names":["personality"],"action":"SCMP_ACT_KILL","args":[{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]}]}"#;
        assert_eq!(count(deny), Ok(2));
        let allow = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read","write"],"action":"SCMP_ACT_ALLOW"},{"names":["openat"],"action":"SCMP_ACT_LOG"}]}"#;
        assert_eq!(count(allow), Ok(2));
        assert!(count(r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#).is_err());
        assert!(count("nonsense").is_err());
    }
}
