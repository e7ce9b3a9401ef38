//! Story D: processes are killed and paused at random under load; nothing acknowledged is lost, the
//! rest keeps working, all is back by itself. `soak --kills N` does the same at length.

use edgebus_tests::soak::{Spec, run};

#[test]
fn processes_die_at_random_and_nothing_acknowledged_is_lost() {
    let summary = run(
        Spec {
            kills: 20,
            seed: 20_260_801,
        },
        &mut |line| println!("{line}"),
    );
    println!("{summary}");
    assert!(summary.violations.is_empty(), "{:#?}", summary.violations);
    assert!(summary.kills >= 20 && summary.checks >= 100, "{summary}");
}
