//! Security contexts, seccomp and AppArmor profiles.

use serde_json::Value;

use super::windows;
use super::json::{child, flag, number, strings, text};
use super::volume::descending_path;
use crate::internal::Internal;
use crate::validation::{Errors, Path};

/// `ValidateSecurityContext` of a container.
pub fn security_context(errors: &mut Errors, path: &Path, context: &Value, host_users: bool) {
    for name in ["runAsUser", "runAsGroup"] {
        id(errors, &path.child(name), number(context, name));
    }
    match text(context, "procMount") {
        "Default" => {}
        "" if child(context, "procMount").is_none() => {}
        "Unmasked" => {
            if host_users {
                errors.invalid(&path.child("procMount"), "Unmasked", "`hostUsers` must be false to use `Unmasked`");
            }
        }
        other => errors.not_supported(&path.child("procMount"), other, &["Default", "Unmasked"]),
    }
    seccomp(errors, &path.child("seccompProfile"), child(context, "seccompProfile"));
    if child(context, "allowPrivilegeEscalation").and_then(Value::as_bool) == Some(false) {
        if flag(context, "privileged") {
            errors.invalid(path, context, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        if strings(context, "capabilities.add").any(|capability| capability == "CAP_SYS_ADMIN") {
            errors.invalid(path, context, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN");
        }
    }
    windows::options(errors, &path.child("windowsOptions"), child(context, "windowsOptions"));
    app_armor(errors, &path.child("appArmorProfile"), child(context, "appArmorProfile"));
}

/// A user or group id.
pub fn id(errors: &mut Errors, path: &Path, id: Option<i64>) {
    if let Some(id) = id.filter(|id| !(0..=i64::from(i32::MAX)).contains(id)) {
        errors.invalid(path, &id, "must be between 0 and 2147483647, inclusive");
    }
}

const PROFILE_TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];

pub fn seccomp(errors: &mut Errors, path: &Path, profile: Option<&Value>) {
    let Some(profile) = profile else { return };
    let kind = text(profile, "type");
    if kind.is_empty() {
        errors.required(&path.child("type"), "type is required when seccompProfile is set");
    } else if !PROFILE_TYPES.contains(&kind) {
        errors.not_supported(&path.child("type"), kind, &PROFILE_TYPES);
    }
    let local = child(profile, "localhostProfile").and_then(Value::as_str);
    match (kind, local) {
        ("Localhost", None) => errors.required(&path.child("localhostProfile"), "must be set when seccomp type is Localhost"),
        ("Localhost", Some(file)) => descending_path(errors, &path.child("localhostProfile"), file),
        (_, Some(_)) => errors.invalid(&path.child("localhostProfile"), &Internal("core.v1.SeccompProfile", Some(profile)), "can only be set when seccomp type is Localhost"),
        (_, None) => {}
    }
}

pub fn app_armor(errors: &mut Errors, path: &Path, profile: Option<&Value>) {
    const NAME_MAX: usize = 4095;
    let Some(profile) = profile else { return };
    let local_path = path.child("localhostProfile");
    let local = child(profile, "localhostProfile").and_then(Value::as_str);
    match (text(profile, "type"), local) {
        ("Localhost", None | Some("")) => errors.required(&local_path, "must be set when AppArmor type is Localhost"),
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                errors.invalid(&local_path, name, "must not be padded with whitespace");
            }
            if name.len() > NAME_MAX {
                errors.too_long(&local_path, NAME_MAX);
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => errors.invalid(&local_path, name, "can only be set when AppArmor type is Localhost"),
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => errors.required(&path.child("type"), "type is required when appArmorProfile is set"),
        (other, _) => errors.not_supported(&path.child("type"), other, &PROFILE_TYPES),
    }
}
