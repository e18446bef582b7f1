//! Priority levels: how many seats each has by its configuration, how many it has right now, and its queues.
//!
//! Mirrors `digestConfigObjects` and `updateBorrowing` of apf_controller.go: seats are shared out by nominal shares; every ten seconds those a level does not use are lent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::HeaderValue;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::oneshot;

use super::allocation::{Claim, allocate};
use super::classify::{CATCH_ALL, EXEMPT, Schema, order};
use super::counters::{Counters, Known};
use super::defaults;
use super::demand::Demand;
use super::dropped::Dropped;
use super::queues::{Discipline, Queues, Running};
use super::shuffle;
use crate::registry::text;

/// Of a level's nominal seats, what one request may take.
const MAX_SEATS_SHARE: f64 = 0.15;

/// Who waits for a seat is handed one through this.
pub type Handed = oneshot::Sender<Running>;

#[derive(Debug, Clone, Copy, PartialEq)]
struct Plan {
    /// `None`: exempt.
    discipline: Option<Discipline>,
    shares: f64,
    lendable_percent: f64,
    borrowing_percent: Option<f64>,
}

impl Plan {
    /// `None` for one that contradicts itself, which upstream passes over too.
    fn of(object: &Value) -> Option<Self> {
        let exempt = text(object, "/spec/type") == "Exempt";
        if exempt != (text(object, "/metadata/name") == EXEMPT) {
            return None;
        }
        let spec = object.pointer(if exempt { "/spec/exempt" } else { "/spec/limited" })?;
        let number = |pointer: &str| spec.pointer(pointer).and_then(Value::as_f64);
        let count = |pointer: &str| spec.pointer(pointer).and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok());
        let discipline = match (exempt, text(spec, "/limitResponse/type")) {
            (true, _) => None,
            (false, "Reject") => Some(Discipline::Reject),
            (false, _) => {
                let (queues, hand) = (count("/limitResponse/queuing/queues")?, count("/limitResponse/queuing/handSize")?);
                if !shuffle::possible(queues, hand) {
                    return None;
                }
                Some(Discipline::Queue { queues, hand, length: count("/limitResponse/queuing/queueLengthLimit")? })
            }
        };
        Some(Self { discipline, shares: number("/nominalConcurrencyShares").unwrap_or(0.0), lendable_percent: number("/lendablePercent").unwrap_or(0.0), borrowing_percent: number("/borrowingLimitPercent") })
    }
}

/// Seats by configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bounds {
    pub nominal: usize,
    pub lower: usize,
    pub upper: usize,
}

/// What a level has right now, and why.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seats {
    pub current: usize,
    pub demand: Demand,
    pub target: f64,
}

/// What lives on when a level's configuration changes.
pub struct State {
    pub queues: Mutex<Queues<Handed>>,
    pub seats: Mutex<Seats>,
    pub dropped: Mutex<Dropped>,
    /// Of the exempt level, which has no queues: seats in use, and the most there were since the last look.
    pub exempt_seats: AtomicUsize,
    pub exempt_high: AtomicUsize,
}

pub struct Level {
    pub name: String,
    /// The UID, for the answer's head; empty while the object is only imagined.
    pub uid: HeaderValue,
    plan: Plan,
    pub bounds: Bounds,
    /// The most seats a request may be estimated at.
    pub max_seats: usize,
    pub state: Arc<State>,
}

impl Level {
    pub fn is_exempt(&self) -> bool {
        self.plan.discipline.is_none()
    }

    pub fn queues(&self) -> bool {
        matches!(self.plan.discipline, Some(Discipline::Queue { .. }))
    }
}

/// Seats go to those who waited. Under the queues' lock, so that who stops waiting knows which of both has happened.
pub fn hand_out(queues: &mut Queues<Handed>, now: f64, mut started: Vec<(Running, Handed)>) {
    while let Some((running, handed)) = started.pop() {
        if let Err(running) = handed.send(running) {
            started.extend(queues.finish(now, &running));
            if running.lingers() > 0.0 {
                started.extend(queues.release(now, &running));
            }
        }
    }
}

/// A FlowSchema with its level.
pub struct Flow {
    pub schema: Schema,
    pub uid: HeaderValue,
    pub level: Arc<Level>,
    pub counters: Arc<Counters>,
}

/// All of the configuration, as requests use it.
#[derive(Default)]
pub struct Digested {
    /// In the order in which they are asked.
    pub flows: Vec<Flow>,
    pub levels: BTreeMap<String, Arc<Level>>,
    pub fair_fraction: f64,
}

/// The configuration of the objects there are, with queues carried over from `old`. The mandatory objects are imagined when they are missing.
pub fn digest(old: &Digested, levels: &[Value], schemas: &[Value], server_seats: usize, known: &Known, now: f64) -> Digested {
    let mut plans: BTreeMap<String, (HeaderValue, Plan)> = BTreeMap::new();
    let imagined: Vec<Value> = defaults::priority_levels().into_iter().filter(|default| default.mandatory).map(|default| default.object).collect();
    for object in imagined.iter().chain(levels) {
        match Plan::of(object) {
            Some(plan) => drop(plans.insert(text(object, "/metadata/name").to_owned(), (header(object), plan))),
            None => tracing::warn!(level = text(object, "/metadata/name"), "a PriorityLevelConfiguration contradicts itself and is passed over"),
        }
    }
    let shares: f64 = plans.values().map(|(_, plan)| plan.shares).sum();
    let digested: BTreeMap<String, Arc<Level>> = plans
        .into_iter()
        .map(|(name, (uid, plan))| {
            let nominal = if shares > 0.0 { (server_seats as f64 * plan.shares / shares).ceil() } else { 0.0 };
            let lendable = (nominal * plan.lendable_percent / 100.0).round();
            let borrowing = plan.borrowing_percent.map_or(server_seats as f64, |percent| (nominal * percent / 100.0).round());
            let bounds = Bounds { nominal: nominal as usize, lower: (nominal - lendable) as usize, upper: (nominal + borrowing) as usize };
            let max_seats = match plan.discipline {
                Some(Discipline::Queue { hand, .. }) => (nominal * MAX_SEATS_SHARE).ceil().min((nominal / hand as f64).floor()).max(1.0) as usize,
                _ => 0,
            };
            let state = old.levels.get(&name).map(|level| level.state.clone()).unwrap_or_else(|| {
                let current = (nominal - (lendable / 2.0).floor()) as usize;
                let queues = Queues::new(plan.discipline.unwrap_or(Discipline::Reject), current, now);
                Arc::new(State { queues: Mutex::new(queues), seats: Mutex::new(Seats { current, ..Seats::default() }), dropped: Mutex::default(), exempt_seats: AtomicUsize::new(0), exempt_high: AtomicUsize::new(0) })
            });
            (name.clone(), Arc::new(Level { name, uid, plan, bounds, max_seats, state }))
        })
        .collect();
    let mut ordered: Vec<Schema> = schemas.iter().map(Schema::of).filter(|schema| digested.contains_key(&schema.level)).collect();
    for default in defaults::flow_schemas().iter().filter(|default| default.mandatory) {
        if !ordered.iter().any(|schema| schema.name == text(&default.object, "/metadata/name")) {
            ordered.push(Schema::of(&default.object));
        }
    }
    order(&mut ordered);
    let flows = ordered.into_iter().filter_map(|schema| {
        let level = digested.get(&schema.level)?.clone();
        let uid = HeaderValue::from_str(&schema.uid).unwrap_or_else(|_| HeaderValue::from_static(""));
        let counters = known.of(&level.name, &schema.name);
        Some(Flow { schema, uid, level, counters })
    });
    let mut digested = Digested { flows: flows.collect(), levels: digested, fair_fraction: 0.0 };
    digested.fair_fraction = rebalance(&digested.levels, now);
    digested
}

fn header(object: &Value) -> HeaderValue {
    HeaderValue::from_str(text(object, "/metadata/uid")).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Lends what is not used: each level's seats for the next period, by what it could have used in the last. Answers with the fair fraction.
pub fn rebalance(levels: &BTreeMap<String, Arc<Level>>, now: f64) -> f64 {
    let total: usize = levels.values().map(|level| level.bounds.nominal).sum();
    let mut left = total as f64;
    let (mut limited, mut claims) = (Vec::new(), Vec::new());
    for level in levels.values() {
        let mut seats = level.state.seats.lock();
        if level.is_exempt() {
            let high = level.state.exempt_high.swap(level.state.exempt_seats.load(Ordering::Relaxed), Ordering::Relaxed);
            seats.current = level.bounds.lower.max(high);
            seats.demand.high = high as f64;
            left -= seats.current as f64;
            continue;
        }
        let seen = level.state.queues.lock().demand.take(now);
        seats.demand.update(seen);
        let lower = (level.bounds.lower as f64).max(seats.demand.high.min(level.bounds.nominal as f64));
        seats.target = lower.max(seats.demand.smoothed);
        claims.push(Claim { target: seats.target, lower, upper: level.bounds.upper as f64 });
        limited.push(level);
    }
    let least: f64 = limited.iter().map(|level| level.bounds.lower as f64).sum();
    let wanted: f64 = claims.iter().map(|claim| claim.lower).sum();
    let mut fraction = 0.0;
    let shares: Vec<f64> = if left <= least {
        limited.iter().map(|level| level.bounds.lower as f64).collect()
    } else if left <= wanted {
        let part = (left - least) / (wanted - least);
        limited.iter().zip(&claims).map(|(level, claim)| level.bounds.lower as f64 + (claim.lower - level.bounds.lower as f64) * part).collect()
    } else {
        match allocate(total as f64, &claims) {
            Some((shares, fair)) => {
                fraction = fair;
                shares
            }
            None => limited.iter().map(|level| level.state.seats.lock().current as f64).collect(),
        }
    };
    for (level, share) in limited.iter().zip(shares) {
        let current = share.round() as usize;
        level.state.seats.lock().current = current;
        if let Some(discipline) = level.plan.discipline {
            let mut queues = level.state.queues.lock();
            let started = queues.configure(now, discipline, current);
            hand_out(&mut queues, now, started);
        }
    }
    fraction
}

/// Whether nothing would change if nobody came for a while.
pub fn is_settled(levels: &BTreeMap<String, Arc<Level>>) -> bool {
    levels.values().all(|level| {
        level.state.exempt_seats.load(Ordering::Relaxed) == 0 && level.state.seats.lock().demand.high == 0.0 && level.state.queues.lock().is_idle()
    })
}

/// The flow of last resort: it matches everybody who was authenticated, or not.
pub fn fallback(flows: &[Flow]) -> Option<&Flow> {
    flows.iter().find(|flow| flow.schema.name == CATCH_ALL)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::queues::{Arrival, Work};
    use super::*;

    fn objects(list: Vec<defaults::Bootstrap>) -> Vec<Value> {
        list.into_iter().map(|default| default.object).collect()
    }

    fn all(old: &Digested, now: f64) -> Digested {
        digest(old, &objects(defaults::priority_levels()), &objects(defaults::flow_schemas()), 600, &Known::default(), now)
    }

    #[test]
    fn upstreams_seats_of_the_default_levels() {
        let digested = all(&Digested::default(), 0.0);
        let seats = |name: &str| {
            let Bounds { nominal, lower, upper } = digested.levels[name].bounds;
            (nominal, lower, upper, digested.levels[name].max_seats)
        };
        // 600 seats in 245 shares, as a kube-apiserver's metrics show them.
        assert_eq!(seats("system"), (74, 50, 674, 12));
        assert_eq!(seats("node-high"), (98, 73, 698, 15));
        assert_eq!(seats("leader-election"), (25, 25, 625, 4));
        assert_eq!(seats("workload-high"), (98, 49, 698, 15));
        assert_eq!(seats("workload-low"), (245, 24, 845, 37));
        assert_eq!(seats("global-default"), (49, 24, 649, 8));
        assert_eq!(seats("catch-all"), (13, 13, 613, 0));
        assert_eq!(seats("exempt"), (0, 0, 600, 0));
        assert_eq!(digested.flows.first().map(|flow| &*flow.schema.name), Some("exempt"));
        assert_eq!(digested.flows.last().map(|flow| &*flow.schema.name), Some("catch-all"));
    }

    #[test]
    fn a_busy_level_borrows_and_gives_back() {
        let digested = all(&Digested::default(), 0.0);
        let level = &digested.levels["global-default"];
        let mut held = Vec::new();
        let mut waiting = Vec::new();
        for flow in 0..400u64 {
            let (handed, hand) = oneshot::channel();
            match level.state.queues.lock().arrive(1.0, shuffle::hash("f", &flow.to_string()), Work::of(1), handed) {
                Arrival::Run(running, _) => held.push(running),
                Arrival::Wait { .. } => waiting.push(hand),
                Arrival::Full(..) => panic!("there is room to wait"),
            }
        }
        let before = held.len();
        assert_eq!(before, level.state.seats.lock().current);
        rebalance(&digested.levels, 11.0);
        let handed: Vec<Running> = waiting.iter_mut().filter_map(|hand| hand.try_recv().ok()).collect();
        let current = level.state.seats.lock().current;
        assert_eq!(before + handed.len(), current);
        assert!(current > 200, "others' seats: {current}");
        let total: usize = digested.levels.values().map(|level| level.state.seats.lock().current).sum();
        assert!((600..=606).contains(&total), "{total}");
        assert!(!is_settled(&digested.levels));
        // The configuration changes meanwhile: nobody is lost.
        let digested = all(&digested, 12.0);
        assert_eq!(digested.levels["global-default"].state.queues.lock().executing, current);
    }

    #[test]
    fn what_is_missing_is_imagined_and_what_is_broken_is_passed_over() {
        let dangling = json!({"metadata": {"name": "d", "uid": "u"}, "spec": {"matchingPrecedence": 5, "priorityLevelConfiguration": {"name": "nowhere"}, "rules": []}});
        let broken = json!({"metadata": {"name": "broken"}, "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 9, "limitResponse": {"type": "Queue", "queuing": {"queues": 2, "handSize": 5, "queueLengthLimit": 1}}}}});
        let digested = digest(&Digested::default(), &[broken], &[dangling], 10, &Known::default(), 0.0);
        assert_eq!(digested.levels.keys().collect::<Vec<_>>(), ["catch-all", "exempt"]);
        assert_eq!(digested.flows.iter().map(|flow| &*flow.schema.name).collect::<Vec<_>>(), ["exempt", "catch-all"]);
        assert_eq!(digested.levels["catch-all"].bounds.nominal, 10);
    }
}
