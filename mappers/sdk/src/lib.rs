//! The life of a mapper: it says hello, takes the devices that are assigned to it, polls them,
//! reports what changed, writes each desired generation once and reads it back.
//!
//! A mapper author writes a [`Protocol`]: how to open a line, read points and write one. All else
//! is here: schedules, deadlines, reconnects, dead bands, quality, what is owed after a crash.
//!
//! ```text
//!             bus (own topics only)                     field
//!  dev/m/…/config, want ──► assign ──► line task ──► Protocol::open/read/write
//!  dev/m/…/report, state ◄── outbox ◄──────┘  one per line, strictly one question at a time
//! ```

mod assign;
mod device;
mod line;
mod outbox;
mod protocol;
mod value;

pub use assign::run;
pub use device::{Due, Settings};
pub use protocol::{LineError, PointError, Protocol, lower_keys};
pub use value::{RangeError, coerce, same};

use edgebus_bus::unit::Describe;
use std::process::ExitCode;

/// `main` of a mapper: `describe`, or the life on the bus until its parent ends it. `args` are
/// without the program's name.
pub fn main<P: Protocol>(protocol: P, args: &[String]) -> ExitCode {
    match args {
        [one] if one == "describe" => {
            println!("{}", serde_json::json!(describe::<P>()));
            return ExitCode::SUCCESS;
        }
        [one] if one == "--help" || one == "-h" || one == "help" => {
            println!(
                "The {} mapper of edgebus. `edgebus node` starts it when it finds it in mappers.d/ and gives it its \
                 welcome on standard input.\n\n  describe    say what it is, as one JSON object\n\nBy hand: --name NAME \
                 --socket PATH (or --tcp HOST:PORT) --token-file FILE --node NODE --data-dir FOLDER",
                P::NAME
            );
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(edgebus_client::unit::main(
        args,
        move |_welcome, bus, stop| run(protocol, bus, stop),
    ))
}

/// What the mapper of `P` says of itself.
pub fn describe<P: Protocol>() -> Describe {
    Describe {
        protocol: P::NAME.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: 1,
        heartbeat: None,
    }
}
