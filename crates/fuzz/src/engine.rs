//! The engine: inputs from a corpus, mutated, run, and kept if their outcome is new; panics and time out of proportion are findings.
//!
//! Time is CPU time of the thread, so that a busy machine finds nothing that is not there. A stack overflow ends the process: `trace` holds the input it was reading.

use std::cell::Cell;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::mutate;
use crate::random::Random;

/// A decoder under fuzz.
pub struct Target {
    pub name: &'static str,
    pub about: &'static str,
    /// Where mutation starts.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words of its language.
    pub words: &'static [&'static str],
    /// Reads the input; what it made of it goes to the outcome.
    pub run: fn(&[u8], &mut Outcome),
}

/// The shape of what came of an input.
#[derive(Default)]
pub struct Outcome(DefaultHasher);

impl Outcome {
    pub fn note(&mut self, fact: impl Hash) {
        fact.hash(&mut self.0);
    }

    /// An error by its words, without what it quotes and counts.
    pub fn error(&mut self, error: &dyn std::fmt::Display) {
        let (mut quoted, mut shape) = (false, String::new());
        for character in error.to_string().chars().take(200) {
            match character {
                '"' | '\'' | '`' => quoted = !quoted,
                _ if quoted || character.is_ascii_digit() || !character.is_ascii() => {}
                _ => shape.push(character),
            }
        }
        self.note(shape);
    }

    pub fn of<T, E: std::fmt::Display>(&mut self, result: Result<T, E>) -> Option<T> {
        self.note(result.is_ok());
        result.map_err(|error| self.error(&error)).ok()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    Panic(String),
    /// So much CPU time for one input.
    Slow(Duration),
    /// Four times the input took far more than four times the time.
    OutOfProportion { small: Duration, large: Duration },
}

#[derive(Debug, Clone)]
pub struct Finding {
    pub target: &'static str,
    pub seed: u64,
    pub fault: Fault,
    pub input: Vec<u8>,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 2000;
        let shown: String = String::from_utf8_lossy(&self.input).chars().take(SHOWN).collect();
        write!(f, "{} (seed {}): {:?} on {} bytes:\n{shown}\n{:?}", self.target, self.seed, self.fault, self.input.len(), shown)
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Report {
    pub inputs: u64,
    pub outcomes: usize,
}

/// No input may take longer.
const SLOW: Duration = Duration::from_secs(5);
/// Inputs of these sizes are compared.
const SMALL_BYTES: usize = 8 << 10;
const LARGE_BYTES: usize = 4 * SMALL_BYTES;
/// Times as much time for four times the input: more than by the square is out of proportion. Below `NOTICED` nothing is said.
const PROPORTION: u32 = 24;
const NOTICED: Duration = Duration::from_millis(400);
/// Inputs kept for mutation.
const MOST_KEPT: usize = 2000;
/// Every so many inputs, one is grown.
const GROW_EVERY: u64 = 200;
/// Attempts to make a finding smaller.
const SHRINKS: usize = 400;

fn cpu() -> Duration {
    let seconds = |time: TimeVal| Duration::from_micros(time.num_microseconds().unsigned_abs());
    getrusage(UsageWho::RUSAGE_THREAD).map_or(Duration::ZERO, |usage| seconds(usage.user_time()) + seconds(usage.system_time()))
}

thread_local! {
    /// What panics here is expected: a finding tells it, and telling it each time takes longer than all else.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}
static HOOK: Once = Once::new();

fn without_a_word<T>(work: impl FnOnce() -> T) -> std::thread::Result<T> {
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !EXPECTED.get() {
                usual(panic);
            }
        }));
    });
    EXPECTED.set(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    EXPECTED.set(false);
    done
}

struct Run<'a> {
    target: &'a Target,
    trace: Option<&'a Path>,
}

impl Run<'_> {
    fn once(&self, input: &[u8]) -> (Result<u64, String>, Duration) {
        if let Some(trace) = self.trace {
            // Who cannot write it goes on without.
            let _ = std::fs::write(trace, input);
        }
        let start = cpu();
        let ended = without_a_word(|| {
            let mut outcome = Outcome::default();
            (self.target.run)(input, &mut outcome);
            outcome.0.finish()
        });
        let took = cpu() - start;
        let ended = ended.map_err(|panic| {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".to_owned())
        });
        (ended, took)
    }

    fn judge(&self, input: &[u8]) -> Result<u64, Fault> {
        match self.once(input) {
            (_, took) if took > SLOW => Err(Fault::Slow(took)),
            (Err(panic), _) => Err(Fault::Panic(panic)),
            (Ok(outcome), _) => Ok(outcome),
        }
    }

    fn proportion(&self, input: &[u8], random: &mut Random) -> Result<(), (Fault, Vec<u8>)> {
        let piece = mutate::piece(input, random);
        if piece.is_empty() || input.len() > SMALL_BYTES {
            return Ok(());
        }
        let (small, large) = (mutate::grown(input, piece.clone(), SMALL_BYTES), mutate::grown(input, piece, LARGE_BYTES));
        self.judge(&small).map_err(|fault| (fault, small.clone()))?;
        let (_, first) = self.once(&small);
        self.judge(&large).map_err(|fault| (fault, large.clone()))?;
        let (_, second) = self.once(&large);
        if second > NOTICED && second > first * PROPORTION {
            return Err((Fault::OutOfProportion { small: first, large: second }, large));
        }
        Ok(())
    }

    /// The smallest input with the same kind of fault that some tries find.
    fn shrunk(&self, input: Vec<u8>, fault: &Fault, random: &mut Random) -> Vec<u8> {
        let Fault::Panic(_) = fault else { return input };
        let mut best = input;
        for _ in 0..SHRINKS {
            let (start, length) = (random.below(best.len()), 1 + random.below(best.len() / 2 + 1));
            let end = (start + length).min(best.len());
            let tried = [&best[..start], &best[end..]].concat();
            if self.once(&tried).0.is_err() {
                best = tried;
            }
        }
        best
    }
}

/// Until `deadline`, or the first finding. `trace` is where each input is written before it is run.
pub fn fuzz(target: &Target, seed: u64, deadline: Instant, trace: Option<&Path>) -> Result<Report, Finding> {
    let mut random = Random::new(seed);
    let run = Run { target, trace };
    let finding = |fault, input| Finding { target: target.name, seed, fault, input };
    let mut corpus = (target.seeds)();
    let mut seen = HashSet::new();
    for input in &corpus {
        seen.insert(run.judge(input).map_err(|fault| finding(fault, input.clone()))?);
    }
    let mut inputs = 0;
    while Instant::now() < deadline {
        inputs += 1;
        let (Some(base), Some(other)) = (random.pick(&corpus).cloned(), random.pick(&corpus).cloned()) else { break };
        let input = mutate::mutate(&base, target.words, &other, &mut random);
        match run.judge(&input) {
            Ok(outcome) => {
                if seen.insert(outcome) && corpus.len() < MOST_KEPT {
                    corpus.push(input);
                }
            }
            Err(fault) => {
                let input = run.shrunk(input, &fault, &mut random);
                return Err(finding(fault, input));
            }
        }
        if inputs % GROW_EVERY == 0 {
            run.proportion(&base, &mut random).map_err(|(fault, input)| finding(fault, input))?;
        }
    }
    Ok(Report { inputs, outcomes: seen.len() })
}
