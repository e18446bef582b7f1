//! Every decoder for a moment, by fixed seeds; and what the engine would find if it were there.

use std::time::{Duration, Instant};

use fuzz::engine::{Fault, Outcome, Target, fuzz};
use fuzz::targets::ALL;

const MOMENT: Duration = Duration::from_millis(100);
/// Fresh ones belong to longer runs: `cargo xtask fuzz all`.
const SEEDS: [u64; 2] = [1, 2];
/// As the threads that serve requests have it, and more where nothing is optimised.
const STACK_BYTES: usize = if cfg!(debug_assertions) { 8 << 20 } else { 2 << 20 };

fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work).expect("a thread").join().expect("no panic"))
}

#[test]
fn no_decoder_panics_or_blows_up() {
    for target in ALL {
        for seed in SEEDS {
            let report = on_a_thread(|| fuzz(target, seed, Instant::now() + MOMENT, None)).unwrap_or_else(|finding| panic!("{finding}"));
            println!("{}: {} inputs, {} outcomes", target.name, report.inputs, report.outcomes);
            assert!(report.outcomes > 1, "{} tells nothing apart", target.name);
        }
    }
}

fn planted(seeds: fn() -> Vec<Vec<u8>>, run: fn(&[u8], &mut Outcome)) -> Option<Fault> {
    let target = Target { name: "planted", about: "", seeds, words: &["q", "z"], run };
    on_a_thread(|| fuzz(&target, 1, Instant::now() + Duration::from_secs(120), None)).err().map(|finding| finding.fault)
}

#[test]
fn planted_faults_are_found() {
    let steps = planted(|| vec![b"{\"a\": 5}".to_vec()], |input, outcome| {
        let text = String::from_utf8_lossy(input);
        // Found only by keeping what was new on the way.
        for word in ["q", "qz", "qzq"] {
            outcome.note(text.contains(word));
        }
        assert!(!text.contains("qzqz"), "three steps away");
    });
    assert!(matches!(steps, Some(Fault::Panic(text)) if text.contains("three steps away")));
    // Nothing but growth makes many of these.
    let cubes = planted(|| vec![b"555".to_vec()], |input, outcome| {
        let (mut sum, fives) = (0u64, input.iter().filter(|byte| **byte == b'5').count() as u64);
        for one in 0..fives.pow(3) / 100_000 {
            sum = std::hint::black_box(sum.wrapping_add(one));
        }
        outcome.note(sum & 1);
    });
    assert!(matches!(cubes, Some(Fault::OutOfProportion { .. } | Fault::Slow(_))));
}
