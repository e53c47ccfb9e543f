//! Files that the user names: texts to read, and results to write.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use crate::failure::{Failure, OrFail, Outcome};

/// The text of a file, or of standard input for `-`.
pub(crate) fn read_text(path: &Path) -> Outcome<String> {
    let stdin = path == Path::new("-");
    let name = || if stdin { "standard input".to_owned() } else { path.display().to_string() };
    let mut bytes = Vec::new();
    let read = if stdin {
        io::stdin().lock().read_to_end(&mut bytes).map(drop)
    } else {
        fs::read(path).map(|all| bytes = all)
    };
    read.or_fail(|| format!("can't read {}", name()))?;
    String::from_utf8(bytes).map_err(|error| {
        Failure::new(format!("{} is not UTF-8: byte {}", name(), error.utf8_error().valid_up_to()))
    })
}

/// Gives a file its whole new contents, or leaves it as it was.
pub(crate) fn write_whole(path: &Path, contents: &[u8]) -> Outcome {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let written = File::create_new(&part)
        .and_then(|mut file| file.write_all(contents).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&part);
    }
    written.or_fail(|| format!("can't write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_whole() {
        let path = std::env::temp_dir().join(format!("firecrest-files-{}.html", std::process::id()));
        write_whole(&path, b"one").unwrap();
        write_whole(&path, b"two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        fs::remove_file(&path).unwrap();
        assert!(write_whole(Path::new("/nowhere/at/all.html"), b"").is_err());
    }
}
