//! The commands of a chat.

use std::path::PathBuf;

/// What `/help` tells.
pub(super) const HELP: &str = "\
/help          this help
/reset         forget what was said; the instructions stay
/system        show the instructions
/system TEXT   set the instructions, from the next answer on
/save FILE     write the conversation to a file
/load FILE     go on from a conversation in a file
/stats         speeds and sizes of the last answer
/quit          leave, as Ctrl-D does
//TEXT         a message that begins with /
";

/// A line that begins with `/`.
#[derive(Debug, PartialEq)]
pub(super) enum Slash {
    Help,
    Reset,
    System(Option<String>),
    Save(PathBuf),
    Load(PathBuf),
    Stats,
    Quit,
}

/// The message in a line that is no command.
pub(super) fn message(line: &str) -> &str {
    if line.starts_with("//") { &line[1..] } else { line }
}

impl Slash {
    /// The command in a line; `None` where it is a message, an error where there is no such command.
    pub(super) fn parse(line: &str) -> Option<Result<Self, String>> {
        let line = line.trim();
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        if !name.starts_with('/') || name.starts_with("//") {
            return None;
        }
        let file = || match rest {
            "" => Err(format!("{name} needs the name of a file")),
            path => Ok(PathBuf::from(path)),
        };
        Some(match name {
            "/help" | "/?" => Ok(Self::Help),
            "/reset" | "/clear" => Ok(Self::Reset),
            "/system" => Ok(Self::System((!rest.is_empty()).then(|| rest.to_owned()))),
            "/save" => file().map(Self::Save),
            "/load" => file().map(Self::Load),
            "/stats" => Ok(Self::Stats),
            "/quit" | "/exit" | "/bye" => Ok(Self::Quit),
            _ => Err(format!("no command {name}; /help tells them")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_messages_are_told_apart() {
        let parse = |line| Slash::parse(line).map(Result::ok).unwrap_or_else(|| panic!("{line}")).unwrap();
        assert_eq!(parse("/reset"), Slash::Reset);
        assert_eq!(parse(" /system  Be kind. Be brief. "), Slash::System(Some("Be kind. Be brief.".into())));
        assert_eq!(parse("/system"), Slash::System(None));
        assert_eq!(parse("/save a b.json"), Slash::Save("a b.json".into()));
        for line in ["", "hello /reset", "//usr is what?", "1/2"] {
            assert_eq!(Slash::parse(line), None, "{line}");
        }
        assert_eq!((message("//usr"), message("1/2")), ("/usr", "1/2"));
        for wrong in ["/load", "/unknown", "/"] {
            assert!(matches!(Slash::parse(wrong), Some(Err(_))), "{wrong}");
        }
    }

    #[test]
    fn help_tells_every_command() {
        for line in HELP.lines().filter(|line| !line.starts_with("//")) {
            let usage = line.split("  ").next().unwrap_or_default();
            assert!(matches!(Slash::parse(usage), Some(Ok(_))), "{usage}");
        }
    }
}
