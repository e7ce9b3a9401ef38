//! Events that the broker did not take, because the inbox they go to is full: counted, and said in our health.

use edgebus_bus::payload::Up;

/// Counted since this process started.
#[derive(Debug, Default)]
pub struct Losses {
    lost: u64,
    /// None was taken since the last one was lost.
    losing: bool,
}

impl Losses {
    /// So many Events were taken and so many refused. What our health is from now on, if that changed.
    pub fn step(&mut self, taken: u64, refused: u64) -> Option<(Up, String)> {
        self.lost += refused;
        let said = |state, lost| Some((state, format!("{lost} Events were lost since this start")));
        if refused > 0 {
            self.losing = true;
            return said(Up::Degraded, self.lost);
        }
        if taken > 0 && std::mem::take(&mut self.losing) {
            return said(Up::Up, self.lost);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_said_while_they_go_on_and_their_number_stays() {
        let mut losses = Losses::default();
        for (taken, refused, said) in [
            (5, 0, None),
            (1, 2, Some((Up::Degraded, "2 Events"))),
            (0, 0, None),
            (0, 1, Some((Up::Degraded, "3 Events"))),
            (1, 0, Some((Up::Up, "3 Events"))),
            (1, 0, None),
        ] {
            let now = losses.step(taken, refused);
            let now = now.as_ref().map(|(up, why)| (*up, &why[..8]));
            assert_eq!(now, said, "{taken} {refused}");
        }
    }
}
