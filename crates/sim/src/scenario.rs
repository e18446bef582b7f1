//! A run: users at work while things fail, then quiet, and the verdict.

use std::fmt;
use std::time::Duration;

use store::Store;
use tokio::time::Instant;

use crate::history::History;
use crate::liveness;
use crate::network::Odds;
use crate::random::Random;
use crate::safety::{Promises, Safety};
use crate::workload::User;
use crate::world::World;

/// How long after the last fault everything must be as it was asked for.
const SETTLES_WITHIN: Duration = Duration::from_secs(15 * 60);
/// How long nothing may be written then but heartbeats, after a while in which late news may still be told.
const QUIET_FOR: Duration = Duration::from_secs(60 * 60);
const LATE_NEWS: Duration = Duration::from_secs(10 * 60);
/// What can never succeed is tried again, but ever more rarely: writes in an hour for two such Deployments, events about it included.
const HOPELESS_WRITES: u64 = 150;
const LOOK: Duration = Duration::from_millis(200);
/// More would only repeat themselves.
const MOST_COMPLAINTS: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Nothing fails.
    Calm,
    /// Components crash and come back; no answer is lost but by that.
    Crashes,
    /// Everything fails.
    Storm,
    /// Many clients at the same objects while everything before the store fails.
    Registers,
}

impl Scenario {
    pub const ALL: [Self; 4] = [Self::Calm, Self::Crashes, Self::Storm, Self::Registers];

    pub fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Crashes => "crashes",
            Self::Storm => "storm",
            Self::Registers => "registers",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    pub scenario: Scenario,
    pub nodes: usize,
    pub steps: usize,
}

/// What went wrong, and all that is needed to see it again.
#[derive(Debug)]
pub struct Failure {
    pub complaints: Vec<String>,
    pub steps: Vec<String>,
    pub at: Duration,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "after {:?} of virtual time:", self.at)?;
        self.complaints.iter().try_for_each(|complaint| writeln!(f, "  {complaint}"))?;
        writeln!(f, "what users did:")?;
        self.steps.iter().try_for_each(|step| writeln!(f, "  {step}"))
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Report {
    pub revision: u64,
    pub virtual_time: Duration,
    /// From the last fault to everything as asked for.
    pub settled_after: Duration,
}

struct Run {
    world: World,
    history: History,
    safety: Safety,
    scenario: Scenario,
    wrong: Vec<String>,
    start: Instant,
}

impl Run {
    /// Judges all that was written since the last look.
    fn look(&mut self) {
        let lossless = !self.world.lossy.load(std::sync::atomic::Ordering::Relaxed);
        let promises = Promises { exact_counts: lossless, rolling_bounds: self.scenario == Scenario::Calm };
        while self.wrong.len() < MOST_COMPLAINTS
            && let Some(event) = self.history.next(&mut self.wrong)
        {
            self.safety.judge(&event, &self.history.state, promises, &mut self.wrong);
        }
        let told = self.world.ledger.violations();
        self.wrong.extend(told);
    }

    fn verdict(&mut self, user: &User) -> Result<(), Failure> {
        self.look();
        self.wrong.extend(user.model.contradictions.iter().map(|text| format!("contradicts what was acknowledged: {text}")));
        if self.wrong.is_empty() {
            return Ok(());
        }
        Err(Failure { complaints: std::mem::take(&mut self.wrong), steps: user.model.steps.clone(), at: self.start.elapsed() })
    }

    /// Lets the time pass while it looks on.
    async fn pass(&mut self, time: Duration, user: &User) -> Result<(), Failure> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            tokio::time::sleep(LOOK.min(end - Instant::now())).await;
            self.verdict(user)?;
        }
        Ok(())
    }

    /// Something fails, or a failure ends.
    async fn trouble(&mut self, random: &Random) {
        let node = random.below(self.world.node_count() as u64) as usize;
        let storm = self.scenario == Scenario::Storm;
        match random.below(if storm { 12 } else { 5 }) {
            0 => self.world.stop_scheduler(),
            1 => self.world.stop_controllers(),
            2..5 => {
                self.world.stop_scheduler();
                self.world.start_scheduler();
                self.world.stop_controllers();
                self.world.start_controllers();
            }
            5 => self.world.stop_api(),
            6 => {
                self.world.stop_api();
                self.world.start_api().await;
            }
            7 => self.world.stop_node(node),
            8 => self.world.connect_node(node, false),
            9 => self.world.connect_control_plane(false),
            10 => self.world.fail_writes_once_in(random.between(2, 20) as u32),
            _ => drop(self.world.weather.send_replace(Odds::BAD)),
        }
        let down = if random.once_in(6) { random.millis(60_000, 420_000) } else { random.millis(100, 30_000) };
        tokio::time::sleep(down).await;
        // Most end soon; some go on while the next thing fails.
        if random.once_in(4) {
            return;
        }
        let bad = *self.world.weather.borrow();
        self.world.heal().await;
        if storm && random.once_in(2) {
            self.world.weather.send_replace(bad);
        }
    }
}

/// Runs a plan on the present runtime, which must be single-threaded and paused.
pub async fn run(plan: Plan) -> Result<Report, Failure> {
    if plan.scenario == Scenario::Registers {
        return crate::registers::run(plan).await;
    }
    let start = Instant::now();
    let random = Random::new(plan.seed);
    let broken = |text: String| Failure { complaints: vec![text], steps: Vec::new(), at: Duration::ZERO };
    let world = World::start(random.fork("world"), plan.nodes).await.map_err(|error| broken(error.to_string()))?;
    let history = History::follow(&world.store).map_err(|error| broken(error.to_string()))?;
    let mut user = User::new(world.client("user"), random.fork("user"), plan.scenario == Scenario::Storm);
    let mut run = Run { world, history, safety: Safety::default(), scenario: plan.scenario, wrong: Vec::new(), start };

    let trouble = random.fork("trouble");
    let pause = random.fork("pause");
    {
        let work = async {
            for _ in 0..plan.steps {
                // Some things happen in a hurry, others when all is done.
                tokio::time::sleep(pause.millis(0, if pause.once_in(4) { 90_000 } else { 4000 })).await;
                user.step().await;
            }
        };
        tokio::pin!(work);
        loop {
            let something = async {
                if plan.scenario == Scenario::Calm {
                    return tokio::time::sleep(LOOK).await;
                }
                tokio::time::sleep(trouble.millis(100, 12_000)).await;
                run.trouble(&trouble).await;
            };
            tokio::select! {
                biased;
                () = &mut work => break,
                () = something => run.look(),
            }
            if !run.wrong.is_empty() {
                break;
            }
        }
    }
    run.world.heal().await;
    run.verdict(&user)?;

    let healed = Instant::now();
    loop {
        run.pass(LOOK * 5, &user).await?;
        let missing = liveness::missing(&run.history.state, &user.model, plan.nodes);
        if missing.is_empty() {
            break;
        }
        if healed.elapsed() > SETTLES_WITHIN {
            run.wrong.push(format!("not settled {:?} after the last fault:", healed.elapsed()));
            run.wrong.extend(missing);
            run.wrong.truncate(MOST_COMPLAINTS);
            run.wrong.extend(liveness::hints(&run.history.state));
            run.verdict(&user)?;
        }
    }
    let settled_after = healed.elapsed();

    run.pass(LATE_NEWS, &user).await?;
    let before = run.history.writes;
    run.pass(QUIET_FOR, &user).await?;
    let written = run.history.writes - before;
    if written > 0 {
        run.wrong.push(format!("{written} writes in {QUIET_FOR:?} of nothing to do, the last: {}", run.history.last_write));
    }
    run.wrong.extend(liveness::missing(&run.history.state, &user.model, plan.nodes));
    let before = run.history.writes;
    user.create_hopeless().await;
    run.pass(QUIET_FOR, &user).await?;
    let written = run.history.writes - before;
    if written > HOPELESS_WRITES {
        run.wrong.push(format!("{written} writes in {QUIET_FOR:?} about what cannot succeed, the last: {}", run.history.last_write));
    }
    run.wrong.extend(run.history.lost(&run.world.ledger.writes()));
    run.verdict(&user)?;
    Ok(Report { revision: run.world.store.revision(), virtual_time: start.elapsed(), settled_after })
}

/// Runs a plan on a thread of its own, whose time, chance and order of events follow from the seed.
pub fn simulate(plan: Plan) -> Result<Report, Failure> {
    let broken = |text: String| Failure { complaints: vec![text], steps: Vec::new(), at: Duration::ZERO };
    let thread = std::thread::Builder::new().name(format!("sim-{}", plan.seed)).spawn(move || {
        crate::entropy::seed(plan.seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().map_err(|error| broken(error.to_string()))?;
        runtime.block_on(run(plan))
    });
    match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(broken("the simulation panicked".to_owned())),
        Err(error) => Err(broken(error.to_string())),
    }
}
