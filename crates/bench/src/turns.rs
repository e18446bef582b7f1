//! Several peers measured in short turns: each figure's median, its spread, and how it compares with its neighbours in time.
//!
//! What disturbs a machine (another program, a clock rate) lasts longer than a turn: so a figure is compared with those of the same round only, and the rounds' ratios
//! are what the median is taken of. Its interval is that of order statistics: it needs no assumption about how they are spread.

use crate::measure::{Beside, Figure, Spread};

/// Whose turn it is in a round, as an index: every second round backwards (A B B A), and every pair of rounds begun by another.
pub fn order(round: usize, peers: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..peers).map(|turn| (round / 2 + turn) % peers).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values
}

fn at(sorted: &[f64], share: f64) -> f64 {
    sorted.get((((sorted.len() as f64 - 1.0) * share).round()).max(0.0) as usize).copied().unwrap_or_default()
}

/// Between which the median of all there could be lies, in 19 of 20 cases.
fn interval(sorted: &[f64]) -> (f64, f64) {
    let rounds = sorted.len() as f64;
    let low = ((rounds - 1.96 * rounds.sqrt()) / 2.0).floor().max(0.0) as usize;
    let high = sorted.len().saturating_sub(1 + low);
    (sorted.get(low).copied().unwrap_or_default(), sorted.get(high).copied().unwrap_or_default())
}

/// One figure of each kind and peer, from those of all rounds. Peers' figures of one kind are in the same order: the n-th are of the n-th round. `first` is told beside the others.
pub fn medians(figures: &[Figure], first: &str) -> Vec<Figure> {
    let mut kinds: Vec<(&str, &str)> = Vec::new();
    for figure in figures {
        if !kinds.contains(&(&figure.what, &figure.cluster)) {
            kinds.push((&figure.what, &figure.cluster));
        }
    }
    // In the order in which they were measured, but the first peer first.
    let place = |(what, cluster): &(&str, &str)| (figures.iter().position(|figure| figure.what == *what), *cluster != first);
    kinds.sort_by_key(place);
    let of = |what: &str, cluster: &str| -> Vec<&Figure> { figures.iter().filter(|figure| figure.what == what && figure.cluster == cluster).collect() };
    kinds
        .iter()
        .filter_map(|(what, cluster)| {
            let rounds = of(what, cluster);
            let values = |read: fn(&Figure) -> f64| sorted(rounds.iter().map(|figure| read(figure)).collect());
            let rates = values(|figure| figure.per_second);
            let beside = |other: &str| {
                let ratios = rounds.iter().zip(of(what, other)).filter(|(_, other)| other.per_second > 0.0).map(|(mine, other)| mine.per_second / other.per_second);
                let ratios = sorted(ratios.collect());
                let (low, high) = interval(&ratios);
                Beside { cluster: other.to_owned(), ratio: at(&ratios, 0.5), low, high }
            };
            let others = kinds.iter().filter(|(kind, other)| kind == what && other != cluster && *cluster == first);
            let spread = Spread { rounds: rounds.len(), low: at(&rates, 0.25), high: at(&rates, 0.75), beside: others.map(|(_, other)| beside(other)).collect() };
            let median = |read| at(&values(read), 0.5);
            Some(Figure {
                count: rounds.iter().map(|figure| figure.count).sum(),
                failed: rounds.iter().map(|figure| figure.failed).sum(),
                seconds: rounds.iter().map(|figure| figure.seconds).sum(),
                per_second: at(&rates, 0.5),
                p50_ms: median(|figure| figure.p50_ms),
                p99_ms: median(|figure| figure.p99_ms),
                max_ms: values(|figure| figure.max_ms).last().copied().unwrap_or_default(),
                spread: Some(spread),
                ..(*rounds.first()?).clone()
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Stopwatch;

    #[test]
    fn everybody_is_first_and_last_equally_often() {
        assert_eq!((0..4).map(|round| order(round, 2)).collect::<Vec<_>>(), [[0, 1], [1, 0], [1, 0], [0, 1]]);
        for place in 0..3 {
            let mut at: Vec<usize> = (0..6).map(|round| order(round, 3)[place]).collect();
            at.sort_unstable();
            assert_eq!(at, [0, 0, 1, 1, 2, 2], "place {place}");
        }
    }

    #[test]
    fn medians_of_rounds_and_of_their_ratios() {
        // The machine gets faster all the time; b is always 2 % slower.
        let figure = |cluster: &str, rate: f64| Figure { per_second: rate, ..Stopwatch::start(&[]).figure("connections", cluster, 10, 1, Vec::new()) };
        let figures: Vec<Figure> = (1..=25).flat_map(|round| [figure("a", f64::from(round) * 102.0), figure("b", f64::from(round) * 100.0)]).collect();
        let medians = medians(&figures, "a");
        assert_eq!((medians[0].per_second, medians[0].count, medians[0].failed), (1326.0, 250, 25));
        let spread = medians[0].spread.as_ref().unwrap();
        assert_eq!((spread.rounds, spread.low, spread.high), (25, 714.0, 1938.0));
        let beside = &spread.beside[0];
        assert!([beside.low, beside.ratio, beside.high].iter().all(|ratio| (ratio - 1.02).abs() < 1e-9), "{beside:?}");
        assert!(medians[1].spread.as_ref().unwrap().beside.is_empty());
        assert_eq!(interval(&sorted((1..=100).map(f64::from).collect())), (41.0, 60.0));
    }
}
