//! Every decoder for a moment, by a fixed seed and a fresh one; and what the engine would find if it were there.

use std::time::{Duration, Instant};

use fuzz::engine::{Fault, Outcome, Target, fuzz};

/// As the threads that serve requests have it, and more where nothing is optimised.
const STACK_BYTES: usize = if cfg!(debug_assertions) { 8 << 20 } else { 2 << 20 };

fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work).expect("a thread").join().expect("no panic"))
}

fn planted(run: fn(&[u8], &mut Outcome)) -> Option<Fault> {
    let target = Target { name: "planted", about: "", seeds: || vec![b"{\"a\": 5}".to_vec()], words: &["q", "z"], run };
    on_a_thread(|| fuzz(&target, 1, Instant::now() + Duration::from_secs(120), None)).err().map(|finding| finding.fault)
}

#[test]
fn planted_faults_are_found() {
    let steps = planted(|input, outcome| {
        let text = String::from_utf8_lossy(input);
        // Found only by keeping what was new on the way.
        for word in ["q", "qz", "qzq"] {
            outcome.note(text.contains(word));
        }
        assert!(!text.contains("qzqz"), "three steps away");
    });
    assert!(matches!(steps, Some(Fault::Panic(text)) if text.contains("three steps away")));
    let squares = planted(|input, outcome| {
        let mut sum = 0u64;
        let count = input.iter().filter(|byte| **byte == b'a').count() as u64;
        for one in 0..count.pow(3) / 8000 {
            sum = std::hint::black_box(sum.wrapping_add(one));
        }
        outcome.note(sum & 1);
    });
    assert!(matches!(squares, Some(Fault::OutOfProportion { .. } | Fault::Slow(_))));
}
