//! Which file of a Hugging Face repository is meant, and what there is to know of it.

use serde::Deserialize;

use super::cache::{CachedModel, ModelDir, Record};
use super::client::{hub_file_url, shown};
use super::download::{self, Expected, Remote, Retries};
use super::job::Job;
use super::{HubError, HubPick, Sha256Sum, Stage};

/// What a repository's name alone stands for: the first of these that there is. Four bits first, since they lose
/// little and are fastest; then more bits; then fewer; then the originals.
const PREFERENCE: &[&str] = &[
    "Q4_K_M", "Q4_0", "Q8_0", "Q4_K_S", "Q4_1", "IQ4_NL", "IQ4_XS", "MXFP4", "Q5_K_M", "Q5_K_S", "Q5_0",
    "Q5_1", "Q6_K", "Q3_K_M", "Q3_K_L", "Q3_K_S", "TQ2_0", "TQ1_0", "Q2_K", "F16", "BF16", "F32",
];

/// The most pages of a list to read, of a thousand files each.
const MAX_PAGES: usize = 50;

/// A file in the hub's list.
#[derive(Deserialize)]
struct Listed {
    path: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

/// What the hub says of a file kept in large file storage, as all models are.
#[derive(Deserialize)]
struct Lfs {
    /// The SHA-256.
    oid: Option<String>,
    size: Option<u64>,
}

impl Listed {
    fn expected(&self) -> Expected {
        let lfs = self.lfs.as_ref();
        Expected {
            sha256: lfs
                .and_then(|lfs| Sha256Sum::from_hex(lfs.oid.as_deref()?.trim_start_matches("sha256:"))),
            bytes: lfs.and_then(|lfs| lfs.size).or(self.size),
        }
    }
}

/// Downloads the file of a repository that is meant.
pub(super) fn fetch(job: &mut Job<'_>, repo: &str, pick: &HubPick) -> Result<CachedModel, HubError> {
    let dir = ModelDir::hub(repo)?;
    let listed = list(job, repo)?;
    let no_match = |wanted: Option<&str>| HubError::NoMatch {
        repo: repo.to_owned(),
        wanted: wanted.map(str::to_owned),
        available: listed.iter().map(|file| &file.path).filter(|path| is_model(path)).cloned().collect(),
    };
    let first = choose(listed.iter().map(|file| file.path.as_str()), pick).ok_or_else(|| match pick {
        HubPick::Default => no_match(None),
        HubPick::Quant(wanted) | HubPick::File(wanted) => no_match(Some(wanted)),
    })?;
    let options = job.options;
    let remotes = shards(first).unwrap_or_else(|| vec![first.to_owned()]).into_iter().map(|path| {
        let file = listed.iter().find(|file| file.path == path).ok_or_else(|| no_match(Some(&path)))?;
        let url = hub_file_url(&options.endpoint, repo, "main", &path);
        Ok((dir.join(&path)?, Remote { url, expected: file.expected() }))
    });
    let remotes = remotes.collect::<Result<Vec<_>, HubError>>()?;
    let record =
        Record { name: format!("hf:{repo}/{first}"), default: *pick == HubPick::Default, sha256: None };
    job.store(&dir, first, record, |job, target| {
        let files = remotes.iter().map(|(path, remote)| {
            let name = path.file_name().unwrap_or_default();
            download::fetch(job, remote, &target.with_file_name(name))
        });
        let files = files.collect::<Result<_, _>>()?;
        Ok((hub_file_url(&options.endpoint, repo, "main", first), files))
    })
}

/// Asks the hub for all files of a repository.
fn list(job: &mut Job<'_>, repo: &str) -> Result<Vec<Listed>, HubError> {
    let endpoint = job.options.endpoint.trim_end_matches('/');
    let mut next = Some(format!("{endpoint}/api/models/{repo}/tree/main?recursive=true"));
    let mut files = Vec::new();
    for _ in 0..MAX_PAGES {
        let Some(url) = next else { break };
        let mut retries = Retries::default();
        let (page, following) = loop {
            job.report(Stage::Connecting, repo, 0, None)?;
            let reply = job.client.get(&url, &[]);
            let page = reply.and_then(|reply| {
                let following = reply.next_page();
                Ok((reply.read_all()?, following))
            });
            match page {
                Ok(page) => break page,
                Err(error) => retries.pause(job, repo, error)?,
            }
        };
        let page: Vec<Listed> = serde_json::from_slice(&page).map_err(|error| HubError::Protocol {
            url: shown(&url),
            reason: format!("not a list of files: {error}"),
        })?;
        files.extend(page);
        next = following;
    }
    Ok(files)
}

/// Chooses the file that is meant from paths in a repository; of a split model, the first shard.
pub(super) fn choose<'a>(paths: impl Iterator<Item = &'a str>, pick: &HubPick) -> Option<&'a str> {
    if let HubPick::File(file) = pick {
        let first = first_shard(file);
        return { paths }.find(|path| *path == first);
    }
    let models: Vec<_> = paths.filter(|path| is_model(path)).collect();
    // "model-Q4_0" rather than "model-with-additions-Q4_0".
    let plainest = |quant: &str| {
        let fitting = models.iter().copied().filter(|path| has_quant(path, quant));
        fitting.min_by_key(|path| (path.len(), *path))
    };
    match pick {
        HubPick::Quant(quant) => plainest(quant),
        _ => PREFERENCE
            .iter()
            .find_map(|quant| plainest(quant))
            .or_else(|| models.iter().copied().min_by_key(|path| (path.len(), *path))),
    }
}

/// Whether a file is a model, or the first shard of one, rather than something that goes with a model.
fn is_model(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    name.ends_with(".gguf")
        && !["mmproj", "imatrix"].iter().any(|word| name.contains(word))
        && first_shard(path) == path
}

/// Whether a path names a quantization: as a whole word, for Q4_K_M is neither Q4_K nor IQ4_K_M.
fn has_quant(path: &str, quant: &str) -> bool {
    let (path, quant) = (path.to_ascii_lowercase(), quant.to_ascii_lowercase());
    path.match_indices(&quant).any(|(start, _)| {
        let before = path[..start].chars().next_back();
        let after = path[start + quant.len()..].chars().next();
        !before.is_some_and(char::is_alphanumeric)
            && !after.is_some_and(|after| after.is_alphanumeric() || after == '_')
    })
}

/// Returns the paths of all shards if this is the path of one: `NAME-00001-of-00003.gguf` and so on.
pub(super) fn shards(path: &str) -> Option<Vec<String>> {
    let (stem, count) = path.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (name, index) = stem.rsplit_once('-')?;
    let number = |digits: &str| {
        let plain = digits.len() == 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse::<u32>().ok()).flatten()
    };
    let (index, shards) = (number(index)?, number(count)?);
    (1..=shards)
        .contains(&index)
        .then(|| (1..=shards).map(|i| format!("{name}-{i:05}-of-{count}.gguf")).collect())
}

/// Returns the path to open for a file: that of the first shard if it is one of several, or else the path itself.
pub(super) fn first_shard(path: &str) -> String {
    shards(path).and_then(|shards| shards.into_iter().next()).unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick<'a>(paths: &[&'a str], quant: &str) -> Option<&'a str> {
        choose(paths.iter().copied(), &HubPick::Quant(quant.into()))
    }

    fn default<'a>(paths: &[&'a str]) -> Option<&'a str> {
        choose(paths.iter().copied(), &HubPick::Default)
    }

    #[test]
    fn quantizations_are_whole_words_in_any_case() {
        let paths = [
            "README.md",
            "m-Q4_K.gguf",
            "m-q4_k_m.gguf",
            "m-IQ4_XS.gguf",
            "m-Q4_0_4_4.gguf",
            "m.Q4_0.gguf",
            "m_BF16.gguf",
            "m-F16.gguf",
            "mmproj-m-Q8_0.gguf",
            "Q8_0/m-00001-of-00002.gguf",
            "Q8_0/m-00002-of-00002.gguf",
        ];
        for (quant, expected) in [
            ("Q4_K_M", Some("m-q4_k_m.gguf")),
            ("q4_k", Some("m-Q4_K.gguf")),
            ("Q4_0", Some("m.Q4_0.gguf")),
            ("Q4_XS", None),
            ("IQ4_xs", Some("m-IQ4_XS.gguf")),
            ("f16", Some("m-F16.gguf")),
            ("bf16", Some("m_BF16.gguf")),
            ("q8_0", Some("Q8_0/m-00001-of-00002.gguf")),
            ("Q5_K_M", None),
        ] {
            assert_eq!(pick(&paths, quant), expected, "{quant}");
        }
        assert_eq!(
            pick(&["m-UD-Q4_0.gguf", "m-Q4_0.gguf", "a-long-name-Q4_0.gguf"], "Q4_0"),
            Some("m-Q4_0.gguf")
        );
    }

    #[test]
    fn the_default_is_the_best_there_is() {
        assert_eq!(default(&["m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-F16.gguf"]), Some("m-Q4_K_M.gguf"));
        assert_eq!(default(&["m-Q8_0.gguf", "m-Q4_0.gguf"]), Some("m-Q4_0.gguf"));
        assert_eq!(default(&["m-f32.gguf", "m-Q2_K.gguf"]), Some("m-Q2_K.gguf"));
        assert_eq!(default(&["model.gguf", "mmproj.gguf", "imatrix.gguf"]), Some("model.gguf"));
        assert_eq!(default(&["model.safetensors", "mmproj-F16.gguf"]), None);
    }

    #[test]
    fn shards_are_named_and_begin_with_the_first() {
        assert_eq!(
            shards("d/m-00002-of-00003.gguf").unwrap(),
            ["d/m-00001-of-00003.gguf", "d/m-00002-of-00003.gguf", "d/m-00003-of-00003.gguf",]
        );
        for single in [
            "m.gguf",
            "m-00004-of-00003.gguf",
            "m-00000-of-00003.gguf",
            "m-1-of-3.gguf",
            "m-00001-of-00003.bin",
            "m-+0001-of-00003.gguf",
            "-of-.gguf",
        ] {
            assert_eq!((shards(single), first_shard(single)), (None, single.to_owned()));
        }
        assert_eq!(first_shard("m-00003-of-00003.gguf"), "m-00001-of-00003.gguf");
        let file = HubPick::File("m-00002-of-00002.gguf".into());
        let paths = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"];
        assert_eq!(choose(paths.into_iter(), &file), Some("m-00001-of-00002.gguf"));
    }
}
