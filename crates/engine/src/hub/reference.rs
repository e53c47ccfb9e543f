use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ureq::http::Uri;

use super::catalogue::{CATALOGUE, Entry};

/// What a user may call a model.
///
/// [`ModelRef::parse`] reads these forms, and `Display` writes them:
///
/// | form | is |
/// |---|---|
/// | `smollm2-135m` | an [`Entry`] of the [`CATALOGUE`] |
/// | `hf:owner/repo` | the best file of a Hugging Face repository for most uses: Q4_K_M if there is one |
/// | `hf:owner/repo:Q8_0` | the file of that quantization |
/// | `hf:owner/repo/file.gguf` | that file |
/// | `https://host/file.gguf` | the file at that URL |
/// | `path/to/file.gguf`, `./file` | a file of the user's |
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ModelRef {
    /// A file on this machine. Whether it exists is not checked before it is used.
    Path(PathBuf),
    /// A model that Firecrest knows.
    Catalogue(&'static Entry),
    /// A file of a repository on the Hugging Face hub.
    Hub {
        /// The repository, `owner/name`.
        repo: String,
        /// Which of its files.
        pick: HubPick,
    },
    /// A file on a web server, by `http` or `https`.
    Url(String),
}

/// Which file of a repository is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HubPick {
    /// The first quantization there is of a list that starts with Q4_K_M, Q4_0, Q8_0.
    Default,
    /// The file of this quantization, in any case, such as `Q4_K_M`.
    Quant(String),
    /// The file at this path.
    File(String),
}

impl ModelRef {
    /// Reads a model's name, path, `hf:` reference or URL.
    ///
    /// A word that is no catalogue name counts as a path if it ends in `.gguf`, contains a separator, or a file of
    /// that name exists. Write `./name` for a file that is named like a catalogue entry.
    pub fn parse(text: &str) -> Result<Self, RefError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(RefError::Empty);
        }
        if let Some(reference) = text.strip_prefix("hf:") {
            return parse_hub(reference).ok_or_else(|| RefError::Hub { text: text.to_owned() });
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return parse_url(scheme, text);
        }
        if let Some(entry) = CATALOGUE.iter().find(|entry| entry.name.eq_ignore_ascii_case(text)) {
            return Ok(Self::Catalogue(entry));
        }
        let path = Path::new(text);
        let looks_like_path = text.contains(['/', '\\'])
            || path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
        if looks_like_path || path.exists() {
            return Ok(Self::Path(path.to_owned()));
        }
        let known: Vec<_> = CATALOGUE.iter().map(|entry| entry.name).collect();
        let near = known.iter().copied().filter(|name| is_near(text, name)).collect();
        Err(RefError::UnknownName { name: text.to_owned(), near, known })
    }
}

fn parse_hub(reference: &str) -> Option<ModelRef> {
    let (location, quant) = match reference.split_once(':') {
        Some((location, quant)) => (location, Some(quant)),
        None => (reference, None),
    };
    let mut parts = location.splitn(3, '/');
    let (owner, name, file) = (parts.next()?, parts.next()?, parts.next());
    if !is_repository_part(owner) || !is_repository_part(name) {
        return None;
    }
    let pick = match (file, quant) {
        (None, None) => HubPick::Default,
        (None, Some(quant)) if is_repository_part(quant) => HubPick::Quant(quant.to_owned()),
        (Some(file), None) if file.to_ascii_lowercase().ends_with(".gguf") => HubPick::File(file.to_owned()),
        _ => return None,
    };
    Some(ModelRef::Hub { repo: format!("{owner}/{name}"), pick })
}

/// Whether the hub allows this name for an owner or a repository; such names are harmless as parts of paths too.
fn is_repository_part(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn parse_url(scheme: &str, url: &str) -> Result<ModelRef, RefError> {
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(RefError::Scheme { scheme: scheme.to_owned() });
    }
    // A fragment is for the reader of a page: it is not sent.
    let url = url.split('#').next().unwrap_or(url);
    let uri: Uri = url.parse().map_err(|_| RefError::Url { url: url.to_owned() })?;
    match uri.authority() {
        Some(authority) if authority.as_str().contains('@') => Err(RefError::Credentials),
        Some(authority) if !authority.host().is_empty() => Ok(ModelRef::Url(url.to_owned())),
        _ => Err(RefError::Url { url: url.to_owned() }),
    }
}

/// Whether a user who typed `name` may have meant `known`: a part of it, or up to a third of the letters wrong.
fn is_near(name: &str, known: &str) -> bool {
    let name = name.to_ascii_lowercase();
    (name.len() >= 3 && known.contains(&name)) || edit_distance(&name, known) <= known.len() / 3
}

/// The number of letters to insert, delete or replace to get from one word to the other (Levenshtein).
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    // row[j] is the distance from what was read of `a` to the first j letters of `b`.
    let mut row: Vec<usize> = (0..=b.len()).collect();
    // A name far longer than all known ones is near none of them.
    for (i, letter) in a.chars().take(4 * b.len()).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for j in 0..b.len() {
            let replaced = diagonal + usize::from(letter != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl FromStr for ModelRef {
    type Err = RefError;

    fn from_str(text: &str) -> Result<Self, RefError> {
        Self::parse(text)
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Catalogue(entry) => f.write_str(entry.name),
            Self::Hub { repo, pick: HubPick::Default } => write!(f, "hf:{repo}"),
            Self::Hub { repo, pick: HubPick::Quant(quant) } => write!(f, "hf:{repo}:{quant}"),
            Self::Hub { repo, pick: HubPick::File(file) } => write!(f, "hf:{repo}/{file}"),
            Self::Url(url) => f.write_str(url),
        }
    }
}

/// Why a text names no model.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefError {
    /// There was no text.
    Empty,
    /// The catalogue has no model of this name.
    UnknownName {
        /// What was asked for.
        name: String,
        /// The names that resemble it.
        near: Vec<&'static str>,
        /// All names of the catalogue.
        known: Vec<&'static str>,
    },
    /// The text after `hf:` is not `owner/repo`, `owner/repo:quant` or `owner/repo/file.gguf`.
    Hub {
        /// The whole reference.
        text: String,
    },
    /// The URL is neither `http` nor `https`.
    Scheme {
        /// What comes before `://`.
        scheme: String,
    },
    /// The URL is malformed.
    Url {
        /// The URL.
        url: String,
    },
    /// The URL contains a user name or password, which would end up in the cache's records.
    Credentials,
}

impl fmt::Display for RefError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the name of the model is empty"),
            Self::UnknownName { name, near, known } => {
                write!(f, "there is no model called {name:?}")?;
                if !near.is_empty() {
                    write!(f, "; did you mean {}?", near.join(" or "))?;
                }
                write!(
                    f,
                    " (the catalogue has {}; a model can also be a path, hf:owner/repo[:quant] or a URL)",
                    known.join(", ")
                )
            }
            Self::Hub { text } => write!(
                f,
                "{text:?} is not of the form hf:owner/repo, hf:owner/repo:quant or hf:owner/repo/file.gguf"
            ),
            Self::Scheme { scheme } => write!(f, "{scheme}:// is not supported; use http:// or https://"),
            Self::Url { url } => write!(f, "{url:?} is not a valid URL"),
            Self::Credentials => f.write_str("a URL with a user name or password is not accepted"),
        }
    }
}

impl Error for RefError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ModelRef {
        ModelRef::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn hub(repo: &str, pick: HubPick) -> ModelRef {
        ModelRef::Hub { repo: repo.into(), pick }
    }

    #[test]
    fn every_form_is_read_and_written_back() {
        for (text, expected) in [
            ("smollm2-135m", ModelRef::Catalogue(&CATALOGUE[0])),
            ("hf:o/r", hub("o/r", HubPick::Default)),
            ("hf:o.k/r-1_x:q4_k_m", hub("o.k/r-1_x", HubPick::Quant("q4_k_m".into()))),
            ("hf:o/r/m.gguf", hub("o/r", HubPick::File("m.gguf".into()))),
            ("hf:o/r/sub dir/M.GGUF", hub("o/r", HubPick::File("sub dir/M.GGUF".into()))),
            ("https://h/m.gguf?x=1", ModelRef::Url("https://h/m.gguf?x=1".into())),
            ("http://127.0.0.1:80/m", ModelRef::Url("http://127.0.0.1:80/m".into())),
            ("m.gguf", ModelRef::Path("m.gguf".into())),
            ("./smollm2-135m", ModelRef::Path("./smollm2-135m".into())),
            ("C:\\models\\m.gguf", ModelRef::Path("C:\\models\\m.gguf".into())),
            ("src", ModelRef::Path("src".into())),
        ] {
            assert_eq!(parse(text), expected);
            assert_eq!(parse(text).to_string(), text);
        }
        assert_eq!(parse(" SmolLM2-135M "), parse("smollm2-135m"));
        assert_eq!(parse("https://h/m.gguf#part"), parse("https://h/m.gguf"));
    }

    #[test]
    fn malformed_references_say_what_is_wrong() {
        for text in [
            "hf:",
            "hf:o",
            "hf:o/",
            "hf:/r",
            "hf:o/r:",
            "hf:o/r:a/b",
            "hf:o/r/",
            "hf:o/r/x.bin",
            "hf:o/r/x.gguf:Q4_0",
            "hf:../r",
            "hf:o/..",
            "hf:o o/r",
            "hf:o/r:../x",
            "hf://o/r",
        ] {
            assert_eq!(ModelRef::parse(text), Err(RefError::Hub { text: text.into() }));
        }
        assert_eq!(ModelRef::parse("ftp://h/x"), Err(RefError::Scheme { scheme: "ftp".into() }));
        assert_eq!(ModelRef::parse("https://u:p@h/x"), Err(RefError::Credentials));
        for text in ["https://", "https:///x", "http://h/a b"] {
            assert_eq!(ModelRef::parse(text), Err(RefError::Url { url: text.into() }));
        }
        assert_eq!(ModelRef::parse(" "), Err(RefError::Empty));
    }

    #[test]
    fn unknown_names_bring_up_near_ones() {
        for (name, expected) in
            [("smollm2", true), ("smolm2-135m", true), ("SmolLM-135M", true), ("gpt-4", false), ("s", false)]
        {
            let Err(RefError::UnknownName { near, known, .. }) = ModelRef::parse(name) else {
                panic!("{name} was accepted")
            };
            assert_eq!(near.contains(&"smollm2-135m"), expected, "{name}");
            assert!(known.contains(&"smollm2-135m"));
        }
        let message = ModelRef::parse("smolm2").map_err(|error| error.to_string());
        assert_eq!(
            message,
            Err(
                "there is no model called \"smolm2\" (the catalogue has smollm2-135m, all-minilm-l6-v2; a model can \
                 also be a path, hf:owner/repo[:quant] or a URL)"
                    .into()
            )
        );
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert!(edit_distance(&"x".repeat(1 << 20), "smollm2") > 7);
    }
}
