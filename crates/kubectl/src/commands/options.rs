//! `kubectl options`.

use crate::command::command;
use crate::error::Result;
use crate::flags::Args;
use crate::session::Session;

command!(OPTIONS, "options", [], "", "List of all global command-line options that apply to all commands", [], options);

async fn options(_: &Session, _: &Args) -> Result<()> {
    crate::output::write(crate::command::global_options().as_bytes());
    Ok(())
}
