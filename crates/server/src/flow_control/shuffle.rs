//! Shuffle sharding: each flow is dealt a hand of queues, so that a flow that floods its own seldom floods all of another's.
//!
//! Mirrors k8s.io/apiserver/pkg/util/shufflesharding. Pure.

/// Hands are no larger: more does not help, and upstream's validation allows no more either.
pub const MAX_HAND: usize = 15;
/// How many bits of a hash may be used up, so that the last card is as good as evenly dealt.
const MAX_ENTROPY_BITS: f64 = 60.0;

/// Whether hands of this size can be dealt from that many queues.
pub fn possible(deck: usize, hand: usize) -> bool {
    (1..=MAX_HAND).contains(&hand) && hand <= deck && deck <= 1 << 26 && ((deck as f64).log2() * hand as f64).ceil() <= MAX_ENTROPY_BITS
}

/// `hand` different numbers below `deck`, the same for the same hash. The caller has asked [`possible`].
pub fn deal(mut hash: u64, deck: usize, hand: usize) -> impl ExactSizeIterator<Item = usize> + Clone {
    let mut cards = [0usize; MAX_HAND];
    let hand = hand.min(MAX_HAND);
    for dealt in 0..hand {
        let left = (deck - dealt).max(1) as u64;
        cards[dealt] = (hash % left) as usize;
        hash /= left;
    }
    // Each is a place among the cards not dealt before it: make it a card.
    let places = cards;
    for dealt in 0..hand {
        for before in (0..dealt).rev() {
            if cards[dealt] >= places[before] {
                cards[dealt] += 1;
            }
        }
    }
    cards.into_iter().take(hand)
}

/// FNV-1a over a flow's two names. It needs to spread, not to resist.
pub fn hash(schema: &str, distinguisher: &str) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    const MIX: u64 = 0xff51_afd7_ed55_8ccd;
    let hashed = schema.bytes().chain([0]).chain(distinguisher.bytes()).fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    // The low bits decide the first card: let the high ones speak too.
    let mixed = (hashed ^ (hashed >> 33)).wrapping_mul(MIX);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_are_different_cards_of_the_deck_and_every_card_is_dealt() {
        for (deck, hand) in [(1, 1), (8, 8), (64, 6), (128, 6), (16, 4)] {
            assert!(possible(deck, hand));
            let mut times = vec![0; deck];
            for flow in 0..2_000 {
                let mut cards: Vec<usize> = deal(hash("schema", &format!("user-{flow}")), deck, hand).collect();
                assert_eq!(cards.len(), hand);
                cards.iter().for_each(|card| times[*card] += 1);
                cards.sort_unstable();
                cards.dedup();
                assert_eq!(cards.len(), hand, "no card twice");
            }
            let even = 2_000 * hand / deck;
            assert!(times.iter().all(|times| (even / 2..=even * 2).contains(times)), "{deck} {hand}: {times:?}");
        }
    }

    #[test]
    fn the_places_upstream_deals() {
        // 5 = 1·4 + 1: card 1 of four, then place 1 of the three others.
        assert_eq!(deal(5, 4, 2).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(deal(0, 4, 3).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn what_cannot_be_dealt() {
        for (deck, hand) in [(0, 0), (4, 0), (4, 5), (64, 11), (1 << 27, 1), (128, 16)] {
            assert!(!possible(deck, hand), "{deck} {hand}");
        }
        assert!(possible(64, 10));
    }
}
