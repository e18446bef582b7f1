//! The fair choice, as tables and as small histories under a clock of their own.

use super::*;

const QUEUED: Discipline = Discipline::Queue { queues: 8, hand: 2, length: 3 };

/// One priority level whose requests all take a while; runs it and counts what each flow got.
struct World {
    queues: Queues<(u64, usize)>,
    now: f64,
    running: Vec<(f64, u64, Running)>,
    served: Vec<f64>,
    turned_away: usize,
}

impl World {
    fn new(discipline: Discipline, limit: usize, flows: usize) -> Self {
        Self { queues: Queues::new(discipline, limit, 0.0), now: 0.0, running: Vec::new(), served: vec![0.0; flows], turned_away: 0 }
    }

    fn arrive(&mut self, flow: u64, seats: usize) {
        match self.queues.arrive(self.now, shuffle::hash("schema", &flow.to_string()), Work::of(seats), (flow, seats)) {
            Arrival::Run(running, (flow, _)) => self.running.push((self.now, flow, running)),
            Arrival::Wait { .. } => {}
            Arrival::Full(..) => self.turned_away += 1,
        }
    }

    /// To `until`, each request lasting `seconds`; a flow whose request ends comes again at once.
    fn run(&mut self, until: f64, seconds: f64) {
        while self.now < until {
            self.running.sort_by(|one, other| other.0.total_cmp(&one.0));
            let Some((since, flow, running)) = self.running.pop() else { return };
            self.now = self.now.max(since + seconds);
            self.served[flow as usize] += running.work.seats as f64 * seconds;
            for (running, (flow, _)) in self.queues.finish(self.now, &running) {
                self.running.push((self.now, flow, running));
            }
            assert!(self.queues.seats_in_use <= self.queues.limit, "never more than there are");
            self.arrive(flow, running.work.seats);
        }
    }
}

#[test]
fn an_elephant_and_mice_share_alike() {
    // Ten requests at a time against one at a time, two seats.
    let mut world = World::new(Discipline::Queue { queues: 64, hand: 4, length: 50 }, 2, 3);
    for _ in 0..10 {
        world.arrive(0, 1);
    }
    world.arrive(1, 1);
    world.arrive(2, 1);
    world.run(100.0, 0.1);
    let [elephant, one, other] = world.served[..] else { panic!() };
    assert!((elephant + one + other - 200.0).abs() < 2.0, "no seat is left empty: {:?}", world.served);
    // An elephant has its whole hand of queues, each of which shares alike; without fairness it would have ten parts of twelve.
    assert!(one > 25.0 && other > 25.0, "{:?}", world.served);
    assert!((one - other).abs() < 5.0, "{:?}", world.served);
}

#[test]
fn wide_requests_pay_for_their_width() {
    let mut world = World::new(Discipline::Queue { queues: 64, hand: 1, length: 50 }, 4, 2);
    for _ in 0..8 {
        world.arrive(0, 4);
        world.arrive(1, 1);
    }
    world.run(200.0, 0.1);
    let [wide, narrow] = world.served[..] else { panic!() };
    assert!((0.6..1.7).contains(&(wide / narrow)), "seat-seconds, not requests: {:?}", world.served);
}

#[test]
fn who_is_turned_away() {
    let mut world = World::new(QUEUED, 2, 1);
    for _ in 0..20 {
        world.arrive(0, 1);
    }
    // Two run, and each of the two queues of the hand holds three.
    assert_eq!((world.running.len(), world.queues.waiting, world.turned_away), (2, 6, 12));
    let mut rejecting = World::new(Discipline::Reject, 2, 1);
    for _ in 0..5 {
        rejecting.arrive(0, 1);
    }
    assert_eq!((rejecting.running.len(), rejecting.queues.waiting, rejecting.turned_away), (2, 0, 3));
}

#[test]
fn one_that_is_wider_than_everything_runs_alone() {
    let mut queues: Queues<&str> = Queues::new(QUEUED, 3, 0.0);
    let Arrival::Run(wide, "wide") = queues.arrive(0.0, 1, Work::of(9), "wide") else { panic!() };
    let Arrival::Wait { .. } = queues.arrive(0.0, 2, Work::of(1), "narrow") else { panic!() };
    let started = queues.finish(1.0, &wide);
    assert_eq!(started.iter().map(|(running, who)| (*who, running.waited)).collect::<Vec<_>>(), [("narrow", 1.0)]);
    assert_eq!(queues.seats_in_use, 1);
}

#[test]
fn seats_linger_for_what_a_write_causes() {
    let mut queues: Queues<&str> = Queues::new(QUEUED, 2, 0.0);
    let work = Work { seats: 1, final_seats: 2, final_seconds: 0.5 };
    let Arrival::Run(write, _) = queues.arrive(0.0, 1, work, "write") else { panic!() };
    assert_eq!(queues.seats_in_use, 2);
    let Arrival::Wait { .. } = queues.arrive(0.0, 2, Work::of(1), "next") else { panic!() };
    assert!(queues.finish(1.0, &write).is_empty(), "the client has its answer, but its seats are taken");
    assert_eq!((queues.executing, queues.seats_in_use, write.lingers()), (0, 2, 0.5));
    assert_eq!(queues.release(1.5, &write).len(), 1);
    // Wider than the level: as much work on fewer seats.
    let Arrival::Run(narrowed, _) = Queues::new(Discipline::Reject, 2, 0.0).arrive(0.0, 1, Work { final_seats: 8, ..work }, "") else { panic!() };
    assert_eq!((narrowed.work.final_seats, narrowed.lingers()), (2, 2.0));
}

#[test]
fn who_gives_up_leaves_no_trace() {
    let mut queues: Queues<&str> = Queues::new(QUEUED, 1, 0.0);
    let Arrival::Run(first, _) = queues.arrive(0.0, 1, Work::of(1), "first") else { panic!() };
    let Arrival::Wait { ticket, queue, length: 1 } = queues.arrive(0.0, 2, Work::of(1), "second") else { panic!() };
    assert_eq!(queues.leave(1.0, queue, ticket), Some("second"));
    assert_eq!(queues.leave(1.0, queue, ticket), None);
    assert!(queues.finish(2.0, &first).is_empty());
    assert!(queues.is_idle() && queues.active == 0);
    let Arrival::Wait { ticket, queue, .. } = ({
        let Arrival::Run(..) = queues.arrive(3.0, 1, Work::of(1), "third") else { panic!() };
        queues.arrive(3.0, 2, Work::of(1), "fourth")
    }) else {
        panic!()
    };
    assert_eq!(queues.configure(3.0, QUEUED, 2).len(), 1, "more seats");
    assert_eq!(queues.leave(3.0, queue, ticket), None, "it was dispatched");
}

#[test]
fn another_number_of_queues_loses_nobody() {
    let mut queues: Queues<usize> = Queues::new(QUEUED, 1, 0.0);
    let Arrival::Run(first, _) = queues.arrive(0.0, 1, Work::of(1), 0) else { panic!() };
    for flow in 1..6 {
        let Arrival::Wait { .. } = queues.arrive(0.0, shuffle::hash("", &flow.to_string()), Work::of(1), flow) else { panic!() };
    }
    assert!(queues.configure(0.0, Discipline::Queue { queues: 1, hand: 1, length: 3 }, 1).is_empty());
    let mut seen = vec![0];
    let mut running = first;
    let mut now = 0.0;
    loop {
        now += 0.1;
        let mut started = queues.finish(now, &running);
        let Some((next, who)) = started.pop() else { break };
        assert!(started.is_empty());
        seen.push(who);
        running = next;
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
    assert!(queues.is_idle() && queues.queues.len() == 1 && queues.active == 0);
}
