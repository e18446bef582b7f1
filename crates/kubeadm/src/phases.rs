//! The phases of a workflow by their names: which there are, which are left out (`--skip-phases`), and one alone (`init phase`). Mirrors `cmd/phases/workflow`.

use crate::error::Error;

/// One step, with the parts that can be asked for alone.
pub struct Phase {
    pub name: &'static str,
    pub short: &'static str,
    pub parts: &'static [&'static str],
}

impl Phase {
    pub fn is_skipped(&self, skipped: &[String]) -> bool {
        skipped.iter().any(|name| name == self.name)
    }

    fn has(&self, name: &str) -> bool {
        match name.split_once('/') {
            Some((phase, part)) => phase == self.name && self.parts.contains(&part),
            None => name == self.name,
        }
    }
}

/// Whether part `part` of a phase is to be run: asked for alone, or with all and not skipped.
pub fn wants(phase: &str, part: &str, only: Option<&str>, skipped: &[String]) -> bool {
    match only {
        Some("all") | None => !skipped.iter().any(|name| name.split_once('/') == Some((phase, part))),
        Some(only) => only == part,
    }
}

/// Fails if `--skip-phases` names what there is not.
pub fn known(phases: &[Phase], skipped: &[String]) -> Result<(), Error> {
    match skipped.iter().find(|name| !phases.iter().any(|phase| phase.has(name))) {
        None => Ok(()),
        Some(name) => Err(Error::Invalid(format!("invalid phase name: {name}\nhint: there are {}", names(phases)))),
    }
}

fn names(phases: &[Phase]) -> String {
    phases.iter().map(|phase| phase.name).collect::<Vec<_>>().join(", ")
}

/// The phase of `<workflow> phase <words>`; lists them if there are no words.
pub fn find<'a>(phases: &'a [Phase], workflow: &str, words: &'a [String]) -> Result<Option<(&'a Phase, Option<&'a str>)>, Error> {
    let Some(name) = words.first() else {
        println!("Use this command to invoke single phase of the {workflow:?} workflow\n\nUsage:\n  kubeadm {workflow} phase [command]\n\nAvailable Commands:");
        for phase in phases {
            let parts = if phase.parts.is_empty() { String::new() } else { format!(" ({})", phase.parts.join(", ")) };
            println!("  {:<22}{}{parts}", phase.name, phase.short);
        }
        return Ok(None);
    };
    let phase = phases.iter().find(|phase| phase.name == name).ok_or_else(|| Error::Invalid(format!("unknown command {name:?} for \"kubeadm {workflow} phase\"\nhint: there are {}", names(phases))))?;
    if let Some(more) = words.get(2) {
        return Err(Error::Invalid(format!("unknown command {more:?} for \"kubeadm {workflow} phase {name}\"")));
    }
    match words.get(1) {
        Some(part) if part != "all" && !phase.parts.contains(&part.as_str()) => Err(Error::Invalid(format!("unknown command {part:?} for \"kubeadm {workflow} phase {name}\"\nhint: there are {}", phase.parts.join(", ")))),
        part => Ok(Some((phase, part.map(String::as_str)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_names() {
        let all = [Phase { name: "certs", short: "", parts: &["ca", "apiserver"] }, Phase { name: "addon", short: "", parts: &[] }];
        let of = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert!(known(&all, &of("certs certs/ca addon")).is_ok() && all[0].is_skipped(&of("certs")) && !all[0].is_skipped(&of("certs/ca")));
        assert!(known(&all, &of("certs/x")).unwrap_err().to_string().starts_with("invalid phase name: certs/x") && known(&all, &of("x")).is_err());
        let words = of("certs ca");
        assert!(matches!(find(&all, "init", &words).unwrap(), Some((phase, Some("ca"))) if phase.name == "certs"));
        assert!(find(&all, "init", &of("certs all")).is_ok() && find(&all, "init", &of("certs x")).is_err() && find(&all, "init", &of("certs ca x")).is_err() && find(&all, "init", &of("x")).is_err());
        for (only, skipped, wanted) in [(None, "", true), (Some("all"), "", true), (Some("ca"), "", true), (Some("apiserver"), "", false), (None, "certs/ca", false), (None, "addon/ca", true)] {
            assert_eq!(wants("certs", "ca", only, &of(skipped)), wanted, "{only:?} {skipped}");
        }
    }
}
