//! Ready-made settings for mosquitto's command-line clients: they read options from a file in
//! `$XDG_CONFIG_HOME`, so that a token is never an argument that `ps` shows.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Makes `dir`, which only we enter, with the settings of this user in it.
pub(crate) fn write(dir: &Path, tcp: &str, name: &str, token: &str) -> io::Result<()> {
    private_dir(dir)?;
    let (host, port) = tcp.rsplit_once(':').unwrap_or((tcp, "1883"));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // MQTT 5, or a refusal would have no words; the client id prefix is what belongs to the name.
    let options = format!("-h {host}\n-p {port}\n-V 5\n-I {name}.\n-u {name}\n-P {token}\n");
    for client in ["mosquitto_sub", "mosquitto_pub", "mosquitto_rr"] {
        private_file(&dir.join(client), options.as_bytes())?;
    }
    Ok(())
}

/// A folder that only we enter.
pub(crate) fn private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

/// A file that only we read, replaced whole.
fn private_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(bytes)?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_in_a_file_that_only_we_read() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("viewer");
        write(&dir, "127.0.0.1:1884", "viewer", "secret").unwrap();
        write(&dir, "[::1]:1885", "viewer", "secret").unwrap();
        let file = dir.join("mosquitto_sub");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("-h ::1\n-p 1885\n"), "{text}");
        assert!(text.contains("-P secret\n"), "{text}");
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(&dir)), (0o600, 0o700));
    }
}
