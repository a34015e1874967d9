//! The ids of queries on one link.

use crate::base::random::Random;

/// The ids in use. No two of them agree in their last ten bits, so one bit per ending records which
/// are in use.
#[derive(Debug, Default)]
pub(super) struct Ids {
    by_end: [u64; ENDS / 64],
}

/// The maximum number of ids in use.
const ENDS: usize = 1024;

impl Ids {
    /// Returns an unpredictable id that is not in use. At most [`ENDS`] ids can be in use.
    pub(super) fn take(&mut self, random: &mut Random) -> u16 {
        loop {
            let id = random.next_u16();
            let (word, bit) = index(id);
            if self.by_end[word] & bit == 0 {
                self.by_end[word] |= bit;
                return id;
            }
        }
    }

    /// Releases an id.
    pub(super) fn give_back(&mut self, id: u16) {
        let (word, bit) = index(id);
        self.by_end[word] &= !bit;
    }
}

fn index(id: u16) -> (usize, u64) {
    let end = usize::from(id) % ENDS;
    (end / 64, 1 << (end % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    #[test]
    fn a_link_needs_fewer_ids_than_there_are() {
        let limits = Limits::default();
        assert!(limits.link_inflight_max + limits.link_spare + limits.link_abandoned < ENDS);
    }

    #[test]
    fn ids_in_use_differ() {
        let (mut ids, mut random) = (Ids::default(), Random::new(&[7; 32]));
        for _ in 0..100 {
            let mut out: Vec<u16> = (0..ENDS).map(|_| ids.take(&mut random)).collect();
            for id in &out {
                ids.give_back(*id);
            }
            out.sort_unstable();
            out.dedup();
            assert_eq!(out.len(), ENDS);
        }
    }

    #[test]
    fn every_id_is_used() {
        let (mut ids, mut random) = (Ids::default(), Random::new(&[7; 32]));
        let mut was_out = vec![false; 1 << 16];
        for _ in 0..2_000_000 {
            let id = ids.take(&mut random);
            was_out[usize::from(id)] = true;
            ids.give_back(id);
        }
        assert!(was_out.into_iter().all(|was| was));
    }
}
