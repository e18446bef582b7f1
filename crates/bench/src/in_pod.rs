//! What runs in the pods of `--only pod-services`: the server until it is told to end, the client once.

use tokio::signal::unix::{SignalKind, signal};

use crate::measure::Figure;
use crate::through::{self, program};
use crate::{BenchError, Options};

pub async fn answer() -> Result<Vec<Figure>, BenchError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(program("wait for a signal"))?;
    through::answer()?;
    terminate.recv().await;
    Ok(Vec::new())
}

pub async fn through(options: &Options) -> Result<Vec<Figure>, BenchError> {
    let [short, long] = options.to[..] else { return Err(BenchError::Needs("through", "--to with two addresses")) };
    let measured = tokio::task::spawn_blocking(move || {
        through::until_answers(short)?;
        through::until_answers(long)?;
        through::measure(short, long, "this way", "this")
    });
    measured.await.map_err(|error| BenchError::Strange(error.to_string()))?
}
