//! Many points, few questions: neighbours in one table are read together, over gaps that are
//! cheaper to read than to ask around.

use crate::config::{Dev, Point, Table};

/// One read question, and which points it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The table.
    pub table: Table,
    /// First cell.
    pub address: u16,
    /// Cells.
    pub count: u16,
    /// Indices into the points that were given.
    pub points: Vec<usize>,
}

/// Most cells that one question may ask for (Modbus Application Protocol V1.1b3 §6.1-6.4).
fn most(table: Table, dev: &Dev) -> u32 {
    if table.bits() {
        2000.min(u32::from(dev.max_registers) * 16)
    } else {
        u32::from(dev.max_registers)
    }
}

/// Groups points into questions.
pub fn batches(dev: &Dev, points: &[&Point]) -> Vec<Batch> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by_key(|i| (points[*i].table, points[*i].address, points[*i].count));
    let mut out: Vec<Batch> = Vec::new();
    for i in order {
        let (start, end) = (
            u32::from(points[i].address),
            u32::from(points[i].address) + u32::from(points[i].count),
        );
        if let Some(last) = out.last_mut() {
            let last_end = u32::from(last.address) + u32::from(last.count);
            let whole = end.max(last_end) - u32::from(last.address);
            let near = start <= last_end + u32::from(dev.max_gap);
            if last.table == points[i].table && near && whole <= most(last.table, dev) {
                // Bounded by `most`, at most 2000.
                last.count = u16::try_from(whole).unwrap_or(last.count);
                last.points.push(i);
                continue;
            }
        }
        out.push(Batch {
            table: points[i].table,
            address: points[i].address,
            count: points[i].count,
            points: vec![i],
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{dev, point};
    use proptest::prelude::*;

    #[test]
    fn neighbours_are_read_together_and_tables_apart() {
        let d = dev(serde_json::json!({"ip": "h"}));
        let ps = [
            ("holding", 10, 2),
            ("holding", 0, 2),
            ("holding", 2, 1),
            ("input", 3, 1),
        ]
        .map(|(t, a, n)| point(t, a, n));
        let all = batches(&d, &ps.iter().collect::<Vec<_>>());
        let seen: Vec<_> = all
            .iter()
            .map(|b| (b.table, b.address, b.count, b.points.clone()))
            .collect();
        assert_eq!(
            seen,
            [
                (Table::Input, 3, 1, vec![3]),
                (Table::Holding, 0, 3, vec![1, 2]),
                (Table::Holding, 10, 2, vec![0])
            ]
        );
    }

    #[test]
    fn a_gap_is_read_over_where_it_is_allowed() {
        let d = dev(serde_json::json!({"ip": "h", "maxgap": 7}));
        let ps = [point("holding", 0, 2), point("holding", 9, 1)];
        assert_eq!(batches(&d, &ps.iter().collect::<Vec<_>>()).len(), 1);
    }

    proptest! {
        #[test]
        fn every_point_is_answered_by_a_question_that_covers_it(
            places in prop::collection::vec((0u16..400, prop::sample::select(vec![1u16, 2, 4])), 1..60),
            gap in 0u16..40, most in 4u16..125,
        ) {
            let d = dev(serde_json::json!({"ip": "h", "maxgap": gap, "maxregisters": most}));
            let ps: Vec<_> = places.iter().map(|(a, n)| point("holding", *a, *n)).collect();
            let mut answered = vec![0; ps.len()];
            for b in batches(&d, &ps.iter().collect::<Vec<_>>()) {
                prop_assert!(b.count <= most);
                for i in b.points {
                    answered[i] += 1;
                    prop_assert!(ps[i].address >= b.address && ps[i].address + ps[i].count <= b.address + b.count);
                }
            }
            prop_assert!(answered.iter().all(|n| *n == 1));
        }
    }
}
