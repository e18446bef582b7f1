//! The figures as a table, or as JSON for other programs. With two clusters each line has its twin and their ratio.

use std::fmt::Write;

use crate::measure::Figure;

const HEAD: &str = "WHAT                                CLUSTER        COUNT   FAILED       /s    p50 ms    p99 ms    max ms   CPU ms each   RATIO";

/// `first` is the name of the cluster that ratios are told for: how many times as fast as the other (of several, the fastest) it was.
pub fn table(figures: &[Figure], first: &str) -> String {
    let mut text = String::from(HEAD);
    text.push('\n');
    for figure in figures {
        let cpu = figure.cpu_ms_each.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.3}"));
        let twins = figures.iter().filter(|other| other.what == figure.what && other.cluster != figure.cluster && figure.cluster == first);
        let ratio = twins.max_by(|a, b| a.per_second.total_cmp(&b.per_second)).map_or_else(String::new, |twin| format!("{:.2}x", figure.per_second / twin.per_second));
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<36}{:<11}{:>9}{:>9}{:>9.0}{:>10.3}{:>10.3}{:>10.3}{:>14}{:>8}",
            figure.what, figure.cluster, figure.count, figure.failed, figure.per_second, figure.p50_ms, figure.p99_ms, figure.max_ms, cpu, ratio
        );
        if let Some(spread) = &figure.spread {
            let _ = write!(text, "    {} rounds, half of them {:.0} to {:.0} /s", spread.rounds, spread.low, spread.high);
            for beside in &spread.beside {
                let _ = write!(text, "; beside {} {:.3}x ({:.3} to {:.3})", beside.cluster, beside.ratio, beside.low, beside.high);
            }
            text.push('\n');
        }
        if let Some(idle) = figure.idle {
            let _ = writeln!(text, "    then idle over {:.0} s: {:.1} MiB PSS, {:.2} % of a core", figure.seconds, idle.pss_mib, idle.cpu_percent);
        }
    }
    text
}

/// The median of several rounds of one figure, by its rate.
pub fn medians(figures: Vec<Figure>) -> Vec<Figure> {
    let mut groups: Vec<Vec<Figure>> = Vec::new();
    for figure in figures {
        match groups.iter_mut().find(|group| group[0].what == figure.what && group[0].cluster == figure.cluster) {
            Some(group) => group.push(figure),
            None => groups.push(vec![figure]),
        }
    }
    groups
        .into_iter()
        .filter_map(|mut group| {
            group.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
            let middle = group.len() / 2;
            group.into_iter().nth(middle)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Stopwatch;

    #[test]
    fn medians_and_ratios() {
        let figure = |cluster: &str, rate: f64| Figure { per_second: rate, ..Stopwatch::start(&[]).figure("create", cluster, 1, 0, Vec::new()) };
        let figures = medians(vec![figure("a", 10.0), figure("b", 3.0), figure("a", 30.0), figure("b", 1.0), figure("a", 20.0), figure("b", 2.0)]);
        assert_eq!(figures.iter().map(|figure| figure.per_second).collect::<Vec<_>>(), [20.0, 2.0]);
        assert!(table(&figures, "a").contains("10.00x"));
    }
}
