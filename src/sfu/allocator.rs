//! Who gets how much of a receiver's bandwidth: what matters most first, something for everybody before more for anybody.
//! Pure.

/// What a receiver's video could be, cheapest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// What comes first; 0 before 1.
    pub priority: u8,
    pub steps: Vec<Step>,
    /// Which of them it is now; `None` where it is held back.
    pub current: Option<usize>,
}

/// One way to send a video.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub layer: u8,
    pub temporal: u8,
    /// What it takes, bits per second.
    pub bps: u64,
}

/// More is given only where so much is left, percent of what it costs: estimates and encoders waver, and each change up
/// costs a keyframe.
const RAISE_AT_PERCENT: u64 = 115;

/// Divides `bps` among the claims: for each the step that it gets, `None` where it is held back.
pub fn allocate(bps: u64, claims: &[Claim]) -> Vec<Option<usize>> {
    let mut order: Vec<usize> = (0..claims.len()).collect();
    order.sort_by_key(|at| claims[*at].priority);
    let mut given = vec![None; claims.len()];
    let mut left = bps;
    for at in &order {
        let claim = &claims[*at];
        if let Some(first) = claim.steps.first()
            && price(claim, 0, first.bps) <= left
        {
            given[*at] = Some(0);
            left -= first.bps.min(left);
        }
    }
    for at in &order {
        let claim = &claims[*at];
        let Some(lowest) = given[*at] else { continue };
        let has = claim.steps[lowest].bps;
        let dearest = claim
            .steps
            .iter()
            .enumerate()
            .rposition(|(step, it)| step > lowest && price(claim, step, it.bps).saturating_sub(has) <= left);
        if let Some(step) = dearest {
            given[*at] = Some(step);
            left -= claim.steps[step].bps.saturating_sub(has).min(left);
        }
    }
    given
}

/// What must be left for a step: more than it costs where it is not there yet.
fn price(claim: &Claim, step: usize, bps: u64) -> u64 {
    let is_more = claim.current.is_none_or(|current| step > current);
    if is_more { bps * RAISE_AT_PERCENT / 100 } else { bps }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(priority: u8, current: Option<usize>, kbps: &[u64]) -> Claim {
        let step = |(layer, kbps): (usize, &u64)| Step { layer: layer as u8, temporal: u8::MAX, bps: kbps * 1_000 };
        Claim { priority, steps: kbps.iter().enumerate().map(step).collect(), current }
    }

    #[test]
    fn everybody_gets_something_before_anybody_gets_more() {
        let claims = [claim(1, None, &[150, 500, 1_500]), claim(1, None, &[150, 500, 1_500])];
        assert_eq!(allocate(10_000_000, &claims), [Some(2), Some(2)]);
        assert_eq!(allocate(2_000_000, &claims), [Some(2), Some(0)]);
        assert_eq!(allocate(400_000, &claims), [Some(0), Some(0)]);
        assert_eq!(allocate(200_000, &claims), [Some(0), None]);
        assert_eq!(allocate(100_000, &claims), [None, None]);
    }

    #[test]
    fn the_screen_comes_before_faces() {
        let claims = [claim(2, None, &[150, 500]), claim(0, None, &[400, 2_000])];
        assert_eq!(allocate(500_000, &claims), [None, Some(0)]);
        assert_eq!(allocate(2_500_000, &claims), [Some(0), Some(1)]);
    }

    #[test]
    fn what_is_there_stays_where_a_little_more_would_not_come() {
        let at = |current| [claim(0, current, &[150, 500, 1_500])];
        assert_eq!(allocate(1_550_000, &at(Some(2))), [Some(2)]);
        assert_eq!(allocate(1_550_000, &at(Some(1))), [Some(1)]);
        assert_eq!(allocate(1_800_000, &at(Some(1))), [Some(2)]);
        assert_eq!(allocate(1_400_000, &at(Some(2))), [Some(1)]);
    }

    proptest! {
        #[test]
        fn never_more_is_given_than_there_is(
            bps in 0u64..5_000_000,
            claims in proptest::collection::vec((0u8..3, proptest::collection::vec(1u64..2_000, 0..4)), 0..8),
        ) {
            let claims: Vec<_> = claims
                .into_iter()
                .map(|(priority, mut steps)| {
                    steps.sort_unstable();
                    claim(priority, Some(0), &steps)
                })
                .collect();
            let given = allocate(bps, &claims);
            let sum: u64 = given.iter().zip(&claims).filter_map(|(step, claim)| Some(claim.steps[(*step)?].bps)).sum();
            prop_assert!(sum <= bps);
        }
    }
}
