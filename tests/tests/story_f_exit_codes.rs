//! What `edgebus --help` says of exit codes, with the real executable: scripts and service managers go by them.

use edgebus_tests::run::edgebus;
use std::io::Write;
use std::process::{Command, Stdio};

/// Exit code and everything said.
fn run(dir: &std::path::Path, args: &[&str], input: &str) -> (Option<i32>, String) {
    let mut child = Command::new(edgebus())
        .args(args)
        .env("EDGEBUS_RUN_DIR", dir.join("run"))
        .env("EDGEBUS_DATA_DIR", dir.join("data"))
        .env_remove("KUBECONFIG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Whoever does not read it has ended: that is what the code says then.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let out = child.wait_with_output().unwrap();
    let said = [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
    (out.status.code(), said.concat())
}

#[test]
fn the_help_names_the_codes_and_they_are_so() {
    let dir = tempfile::tempdir().unwrap();
    let (code, help) = run(dir.path(), &["--help"], "");
    assert_eq!(code, Some(0), "{help}");
    for line in ["0 done", "1 it failed", "64 wrong usage"] {
        assert!(help.contains(line), "{help}");
    }
    let token = format!("edgebus1.{}.abcd.0123456789abcdef", "0".repeat(64));
    let cases: &[(&[&str], &str, i32, &str)] = &[
        // Done.
        (&["--version"], "", 0, "edgebus"),
        (&["explain"], "", 0, "| topic |"),
        (
            &["explain", "edge/v1/twin/default/pump/set"],
            "",
            0,
            "for example\n    {",
        ),
        (&["completion", "bash"], "", 0, "edgebus"),
        (
            &["mapper-modbus", "describe"],
            "",
            0,
            "\"protocol\":\"modbus\"",
        ),
        (&["reset", "--yes"], "", 0, "had not joined"),
        // Failed: nobody is there, now.
        (&["get", "devices"], "", 1, "run"),
        (&["sub", "edge/v1/#"], "", 1, "run"),
        (&["pub", "app/x", "1"], "", 1, "run"),
        (
            &[
                "join",
                "--server",
                "127.0.0.1:1",
                "--token-file",
                "/nowhere/token",
            ],
            "",
            1,
            "/nowhere/token",
        ),
        // Wrong, today and tomorrow.
        (&["no-such-command"], "", 64, "no-such-command"),
        (&["get", "--output", "xml"], "", 64, "xml"),
        (&["explain", "no such thing"], "", 64, "no such thing"),
        (
            &["sub", "a/#/b"],
            "",
            64,
            "'#' must be the whole last level",
        ),
        (&["reset"], "", 64, "--yes"),
        (
            &["join", "--server", "127.0.0.1:1"],
            "nonsense",
            64,
            "token",
        ),
        (&["node", "--node", "Not A Name"], "", 64, "Not A Name"),
        (&["devicetwin"], "", 64, "`edgebus node` starts its units"),
        (&["link"], "{broken", 64, "is no welcome"),
        (&["edged", "--colour", "red"], "", 64, "--colour"),
        (
            &["mapper-virtual"],
            "",
            64,
            "`edgebus node` starts its units",
        ),
    ];
    for (args, input, code, says) in cases {
        let (got, said) = run(dir.path(), args, input);
        assert_eq!(got, Some(*code), "{args:?}: {said}");
        assert!(
            said.contains(says),
            "{args:?} does not say {says:?}: {said}"
        );
        assert!(!said.contains("panicked"), "{args:?}: {said}");
    }
    // A token in its right form, and nobody at that address: worth another try.
    let (got, said) = run(dir.path(), &["join", "--server", "127.0.0.1:1"], &token);
    assert_eq!(got, Some(1), "{said}");
}
