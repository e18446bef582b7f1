//! `kubectl completion`: names of commands and flags for bash and zsh, from the same tree that parses them.

use crate::command::{Command, ROOT, command};
use crate::error::{Result, fail};
use crate::flags::{Args, GLOBAL};
use crate::output;
use crate::session::Session;

command!(COMPLETION, "completion", [], "SHELL [options]", "Output shell completion code for the specified shell (bash or zsh)", [], run);

/// `case` branches: for each command line so far, the words that may follow.
fn branches(command: &Command, path: &str, out: &mut String) {
    let names = command.subcommands.iter().map(|sub| sub.name.to_owned());
    let flags = command.flags.iter().flat_map(|flags| flags.iter()).map(|flag| format!("--{}", flag.name));
    let words: Vec<String> = names.chain(flags).collect();
    out.push_str(&format!("        \"{path}\") words=\"{}\" ;;\n", words.join(" ")));
    for sub in command.subcommands {
        branches(sub, &format!("{path} {}", sub.name).trim_start().to_owned(), out);
    }
}

async fn run(_: &Session, args: &Args) -> Result<()> {
    let shell = match args.positional.as_slice() {
        [shell] => shell.as_str(),
        [] => return fail("Shell not specified.\nSee 'kubectl completion -h' for help and examples"),
        _ => return fail("Too many arguments. Expected only the shell type.\nSee 'kubectl completion -h' for help and examples"),
    };
    if !matches!(shell, "bash" | "zsh") {
        return fail(format!("Unsupported shell type {shell:?}.\nSee 'kubectl completion -h' for help and examples"));
    }
    let mut cases = String::new();
    branches(&ROOT, "", &mut cases);
    let global: Vec<String> = GLOBAL.iter().map(|flag| format!("--{}", flag.name)).collect();
    let zsh = if shell == "zsh" { "autoload -U +X bashcompinit && bashcompinit\n" } else { "" };
    output::write(
        format!(
            "{zsh}_kubectl() {{\n    local words path=\"\" word next\n    for word in \"${{COMP_WORDS[@]:1:COMP_CWORD-1}}\"; do\n        case \"$word\" in -*) ;; *) path=\"${{path:+$path }}$word\" ;; esac\n    done\n    words=none\n    while [ \"$words\" = none ]; do\n        case \"$path\" in\n{cases}        *\" \"*) path=\"${{path% *}}\" ;;\n        *) words=\"\" ;;\n        esac\n    done\n    COMPREPLY=($(compgen -W \"$words {}\" -- \"${{COMP_WORDS[COMP_CWORD]}}\"))\n}}\ncomplete -o default -F _kubectl kubectl\n",
            global.join(" ")
        )
        .as_bytes(),
    );
    Ok(())
}
