//! Which of a port's endpoints this node sends traffic to. Pure.
//!
//! Mirrors pkg/proxy/topology.go: ready endpoints, and of them those hinted for this node, else for its zone, if the hints are of any use here; where nobody is
//! ready, those that end but still serve (KEP-1669). What must stay on this node ignores the hints, and chooses by itself between ready and ending ones.

use std::collections::BTreeSet;

use ::network::Endpoint;

/// One endpoint as its slice has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub endpoint: Endpoint,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub zones: BTreeSet<String>,
    pub nodes: BTreeSet<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// For traffic that may go anywhere; empty only when nobody serves anywhere.
    pub cluster: Vec<Endpoint>,
    /// For traffic that must stay here.
    pub local: Vec<Endpoint>,
    /// The rest of those that serve: no new traffic, but what is there may stay.
    pub draining: Vec<Endpoint>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Anywhere,
    SameZone,
    SameNode,
}

fn mode(candidates: &[Candidate], node: &str, zone: &str) -> Mode {
    let ready = || candidates.iter().filter(|candidate| candidate.ready);
    // A hint that one endpoint lacks would leave that one without traffic.
    let useful = |of: fn(&Candidate) -> &BTreeSet<String>, here: &str| ready().all(|candidate| !of(candidate).is_empty()) && ready().any(|candidate| of(candidate).contains(here));
    if useful(|candidate| &candidate.nodes, node) {
        Mode::SameNode
    } else if useful(|candidate| &candidate.zones, zone) {
        Mode::SameZone
    } else {
        Mode::Anywhere
    }
}

pub fn choose(candidates: &[Candidate], node: &str, zone: &str) -> Chosen {
    let mode = mode(candidates, node, zone);
    let hinted = |candidate: &Candidate| match mode {
        Mode::Anywhere => true,
        Mode::SameZone => candidate.zones.contains(zone),
        Mode::SameNode => candidate.nodes.contains(node),
    };
    let best = |accept: &dyn Fn(&Candidate) -> bool, hinted: &dyn Fn(&Candidate) -> bool| -> Vec<Endpoint> {
        let of = |wanted: &dyn Fn(&Candidate) -> bool| -> Vec<Endpoint> { candidates.iter().filter(|c| accept(c) && wanted(c)).map(|c| c.endpoint).collect() };
        let ready = of(&|c| c.ready && hinted(c));
        if ready.is_empty() { of(&|c| c.serving && c.terminating) } else { ready }
    };
    let cluster = best(&|_| true, &hinted);
    let local = best(&|c| c.endpoint.local, &|_| true);
    let rest = candidates.iter().filter(|c| c.serving).map(|c| c.endpoint).filter(|e| !cluster.contains(e) && !local.contains(e));
    Chosen { draining: rest.collect(), cluster, local }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `3 rsz=a,b n=node-1 l`: the last byte of its address, then r ready, s serving, t terminating, l local, and its hints.
    fn candidates(text: &str) -> Vec<Candidate> {
        let one = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let hints = |head: &str| words.iter().filter_map(|word| word.strip_prefix(head)).flat_map(|list| list.split(',')).map(str::to_owned).collect();
            let flag = |letter: char| words.get(1).is_some_and(|flags| flags.contains(letter));
            let address = [10, 0, 0, words[0].parse().expect("a number")].into();
            let endpoint = Endpoint { address, port: 80, local: flag('l') };
            Candidate { endpoint, ready: flag('r'), serving: flag('s'), terminating: flag('t'), zones: hints("z="), nodes: hints("n=") }
        };
        text.split(';').map(str::trim).filter(|line| !line.is_empty()).map(one).collect()
    }

    fn show(endpoints: &[Endpoint]) -> String {
        let last = |e: &Endpoint| e.address.to_string().rsplit('.').next().unwrap_or_default().to_owned();
        endpoints.iter().map(last).collect::<Vec<_>>().join(" ")
    }

    /// Upstream's TestCategorizeEndpoints, and what its rules say beside it.
    #[test]
    fn which_endpoints() {
        let zones = "3 r z=a; 4 r z=b; 5 r z=c; 6 r z=a";
        let local_zones = "3 rl z=a; 4 rl z=b; 5 r z=c; 6 r z=a";
        let nodes = "3 r z=a n=node-1; 4 r z=b n=node-2; 5 r z=c n=node-3; 6 r z=a n=node-4";
        for (what, node, zone, given, cluster, local) in [
            ("all are hinted and there is one for the zone", "", "a", zones, "3 6", ""),
            ("hints are not for what must stay here", "", "a", local_zones, "3 6", "3 4"),
            ("the node has no zone", "", "", "3 r z=a", "3", ""),
            ("the node is in a zone without any", "", "b", "3 r z=a", "3", ""),
            ("one is not ready", "", "a", "3 r z=a; 4 r z=b; 5 r z=c; 6 - z=a", "3", ""),
            ("none of the zone is ready", "", "a", "3 - z=a; 4 r z=b; 5 r z=c; 6 - z=a", "4 5", ""),
            ("one has no hint", "", "a", "3 r z=a; 4 r z=b; 5 r; 6 r z=a", "3 4 5 6", ""),
            ("several zones in a hint", "", "c", "3 r z=a,b,c; 4 r z=b,c; 5 r z=b,d; 6 r z=c", "3 4 6", ""),
            ("the same node", "node-1", "a", nodes, "3", ""),
            ("one has no hint of nodes nor of zones", "node-1", "a", "3 r z=a n=node-1; 4 r; 5 r z=c n=node-3; 6 r z=a n=node-4", "3 4 5 6", ""),
            ("one has no hint of nodes", "node-1", "a", "3 r z=a n=node-1; 4 r z=b; 5 r z=a n=node-3", "3 5", ""),
            ("none on the node: the zone", "node-0", "a", nodes, "3 6", ""),
            ("none on the node nor in the zone", "node-0", "d", nodes, "3 4 5 6", ""),
            ("hints and staying here disagree", "", "a", "0 rl z=a; 1 rl z=b; 2 r z=a; 3 r z=b", "0 2", "0 1"),
            ("nobody at all", "", "", "", "", ""),
            ("all are elsewhere", "", "", "0 r; 1 r", "0 1", ""),
            ("all are here", "", "", "0 rl; 1 rl", "0 1", "0 1"),
            ("some are here", "", "", "0 rl; 1 r", "0 1", "0"),
            ("nobody is ready", "", "", "0 -; 1 -", "", ""),
            ("somebody is ready", "", "", "0 -; 1 r", "1", ""),
            ("all end", "", "", "0 stl; 1 st", "0 1", "0"),
            ("all end, elsewhere", "", "", "0 st; 1 st", "0 1", ""),
            ("one that ends, here; a ready one elsewhere", "", "", "0 r; 1 l; 2 stl; 3 st", "0", "2"),
            ("hints of those that end do not count", "", "a", "0 st z=b; 1 r z=a; 2 r z=b", "1", ""),
            ("one that neither is ready nor ends", "", "a", "0 -", "", ""),
        ] {
            let chosen = choose(&candidates(given), node, zone);
            assert_eq!((show(&chosen.cluster).as_str(), show(&chosen.local).as_str()), (cluster, local), "{what}");
        }
    }

    #[test]
    fn who_may_finish() {
        let chosen = choose(&candidates("1 rs z=a; 2 rs z=b; 3 st z=a; 4 t; 5 -"), "", "a");
        assert_eq!((show(&chosen.cluster).as_str(), show(&chosen.draining).as_str()), ("1", "2 3"));
    }
}
