//! `soak --kills N --seed S`: story D at length. Needs EDGEBUS_BIN, or the executable beside its own.

use edgebus_tests::soak::{Spec, run};
use std::process::ExitCode;

fn spec() -> Result<Spec, String> {
    let clock = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |d| d.as_secs());
    let mut spec = Spec {
        kills: 40,
        seed: clock,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
        let number: u64 = value
            .parse()
            .map_err(|_| format!("{arg} {value}: not a number"))?;
        match arg.as_str() {
            "--seed" => spec.seed = number,
            "--kills" => match u32::try_from(number) {
                Ok(kills) if kills <= Spec::MOST => spec.kills = kills,
                _ => return Err(format!("--kills {number}: at most {}", Spec::MOST)),
            },
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok(spec)
}

fn main() -> ExitCode {
    let spec = match spec() {
        Ok(spec) => spec,
        Err(why) => {
            eprintln!("soak: {why}\nusage: soak [--kills N] [--seed S]");
            return ExitCode::from(64);
        }
    };
    println!("soak: {} kills, seed {}", spec.kills, spec.seed);
    let summary = run(spec, &mut |line| println!("{line}"));
    println!("{summary}");
    if summary.violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
