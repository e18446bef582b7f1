//! What runs in the pods of `--only pod-services`: the server until it is told to end, the client once.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::measure::Figure;
use crate::through::{self, program};
use crate::{BenchError, Options};

/// Short, so that many rounds of several nodes are close to one another.
const CARRY: Duration = Duration::from_secs(1);

pub async fn answer() -> Result<Vec<Figure>, BenchError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(program("wait for a signal"))?;
    through::answer()?;
    terminate.recv().await;
    Ok(Vec::new())
}

pub async fn through(options: &Options) -> Result<Vec<Figure>, BenchError> {
    let to = options.to.clone();
    let measured = tokio::task::spawn_blocking(move || {
        let Some((long, short)) = to.split_last().filter(|(_, short)| !short.is_empty()) else { return Err(BenchError::Needs("through", "--to with two addresses")) };
        to.iter().try_for_each(|to| through::until_answers(*to))?;
        through::measure(short, (*long, CARRY), "this way", "this")
    });
    measured.await.map_err(|error| BenchError::Strange(error.to_string()))?
}
