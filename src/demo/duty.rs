//! Decides when every request must succeed. A failure is acceptable if no backend could serve the request, or if two
//! died before a check could detect it, because a request is tried on at most two. Pure.

/// The known state of one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// It listens.
    pub alive: bool,
    /// It answers checks and requests well.
    pub well: bool,
    /// The proxy has checked it since its last change, and its state agrees.
    pub settled: bool,
}

/// Undetected dead backends that a request survives, because it is retried once.
const UNSEEN_DEATHS_MAX: usize = 1;

/// Whether every request must be answered with 200 now.
pub fn every_request_must_succeed(backends: &[Known]) -> bool {
    let good = backends.iter().any(|backend| backend.alive && backend.well && backend.settled);
    let unseen = backends.iter().filter(|backend| !backend.alive && !backend.settled).count();
    good && unseen <= UNSEEN_DEATHS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `G` good, `g` good but not checked yet, `S` slow or sick, `D` dead, `d` dead but not detected yet.
    fn known(letters: &str) -> Vec<Known> {
        let one = |letter| match letter {
            'G' => Known { alive: true, well: true, settled: true },
            'g' => Known { alive: true, well: true, settled: false },
            'S' => Known { alive: true, well: false, settled: true },
            'D' => Known { alive: false, well: true, settled: true },
            'd' => Known { alive: false, well: true, settled: false },
            other => panic!("{other}"),
        };
        letters.chars().map(one).collect()
    }

    #[test]
    fn a_request_must_succeed_where_a_backend_is_known_good_and_a_retry_finds_it() {
        for (letters, must) in [
            ("GGG", true),
            ("dGG", true),
            ("DGG", true),
            ("DdG", true),
            ("DDG", true),
            ("SSG", true),
            // Both attempts may hit a dead backend.
            ("ddG", false),
            // Revived but not checked yet: 503 is right.
            ("gDD", false),
            ("gdd", false),
            ("ggg", false),
            ("DDD", false),
            // It answers, but its checks fail.
            ("SDD", false),
            ("SSS", false),
        ] {
            assert_eq!(every_request_must_succeed(&known(letters)), must, "{letters}");
        }
    }
}
