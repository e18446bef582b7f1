//! `kubeadm completion`: the commands and flags for a shell, made from the command line's own description.

use clap::Command;

/// `path` is the words so far, joined by underscores.
fn cases(command: &Command, path: &str, out: &mut String) {
    let commands = command.get_subcommands().map(|command| command.get_name().to_owned());
    let flags = command.get_arguments().filter(|argument| !argument.is_hide_set()).filter_map(|argument| Some(format!("--{}", argument.get_long()?)));
    let words: Vec<String> = commands.chain(flags).collect();
    out.push_str(&format!("    {path}) words=\"{}\" ;;\n", words.join(" ")));
    for inner in command.get_subcommands() {
        cases(inner, &format!("{path}_{}", inner.get_name()), out);
    }
}

pub fn script(command: &Command, shell: &str) -> String {
    let mut out = String::new();
    if shell == "zsh" {
        out.push_str("#compdef kubeadm\nautoload -Uz bashcompinit && bashcompinit\n");
    }
    out.push_str("__kubeadm_complete() {\n  local path=kubeadm word words=\n  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n    case \"$word\" in -*) ;; *) case \"${path}_$word\" in\n");
    let mut paths = Vec::new();
    collect(command, "kubeadm", &mut paths);
    out.push_str(&format!("      {}) path=\"${{path}}_$word\" ;;\n    esac ;; esac\n  done\n  case \"$path\" in\n", paths.join("|")));
    cases(command, "kubeadm", &mut out);
    out.push_str("  esac\n  COMPREPLY=($(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n}\ncomplete -o default -F __kubeadm_complete kubeadm\n");
    out
}

fn collect(command: &Command, path: &str, out: &mut Vec<String>) {
    for inner in command.get_subcommands() {
        let path = format!("{path}_{}", inner.get_name());
        collect(inner, &path, out);
        out.push(path);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command as Process, Stdio};

    use super::*;

    #[test]
    fn a_shell_completes() {
        let command = Command::new("kubeadm").subcommand(Command::new("token").subcommand(Command::new("create")).subcommand(Command::new("list"))).subcommand(Command::new("init").arg(clap::Arg::new("t").long("token-ttl")));
        let asked = |words: &str, at: usize| {
            let mut shell = Process::new("bash").arg("-s").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let text = format!("{}COMP_WORDS=({words}); COMP_CWORD={at}; __kubeadm_complete; echo \"${{COMPREPLY[@]}}\"\n", script(&command, "bash"));
            shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            String::from_utf8(shell.wait_with_output().unwrap().stdout).unwrap()
        };
        assert_eq!(asked("kubeadm t", 1), "token\n");
        assert_eq!(asked("kubeadm token ''", 2), "create list\n");
        assert_eq!(asked("kubeadm init --t", 2), "--token-ttl\n");
        assert!(script(&command, "zsh").starts_with("#compdef kubeadm\n"));
    }
}
