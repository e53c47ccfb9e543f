use std::env;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::HubError;

/// Where models are kept and how they are fetched.
#[derive(Clone)]
#[non_exhaustive]
pub struct HubOptions {
    /// The directory that holds the downloaded models.
    pub cache_dir: PathBuf,
    /// The Hugging Face hub or a mirror of it, such as `https://huggingface.co`.
    pub endpoint: String,
    /// The access token for private and gated repositories. It is sent to the endpoint's host alone.
    pub token: Option<String>,
    /// Whether to use nothing but what the cache holds.
    pub offline: bool,
    /// The longest time to wait for a connection.
    pub connect_timeout: Duration,
    /// The longest time to wait for the next bytes of a reply.
    pub idle_timeout: Duration,
    /// How often a download that breaks off is taken up again without getting any further.
    pub retries: u32,
    /// The pause before the first of these attempts; it doubles for each further one.
    pub backoff: Duration,
    /// The proxies to connect through.
    pub proxy: ProxyOptions,
    /// Commands that may run pip, tried in this order: each is a program and its first arguments.
    pub pip: Vec<Vec<String>>,
}

/// The proxies to connect through, in the syntax of the usual environment variables.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyOptions {
    /// The proxy for `http:` URLs, `[http://][user:password@]host[:port]`. It is asked to `CONNECT`.
    pub http: Option<String>,
    /// The proxy for `https:` URLs, written likewise.
    pub https: Option<String>,
    /// Hosts to connect to directly, separated by commas: `example.com` stands for that host and its subdomains,
    /// `*` for every host.
    pub exempt: String,
}

impl HubOptions {
    /// Returns options with a cache in `cache_dir` and every other value at its default, whatever the environment
    /// says.
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        let pip = [&["pip"][..], &["python3", "-m", "pip"], &["pip3"]];
        let windows = [&["py", "-m", "pip"][..]];
        let pip = pip.iter().chain(if cfg!(windows) { &windows[..] } else { &[] });
        Self {
            cache_dir: cache_dir.into(),
            endpoint: "https://huggingface.co".to_owned(),
            token: None,
            offline: false,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            retries: 5,
            backoff: Duration::from_millis(500),
            proxy: ProxyOptions::default(),
            pip: pip.map(|command| command.iter().map(|&word| word.to_owned()).collect()).collect(),
        }
    }

    /// Returns options as the environment sets them.
    ///
    /// `FIRECREST_CACHE` is the cache directory (default: `firecrest` in the user's cache directory), `HF_ENDPOINT`
    /// the hub, `HF_TOKEN` the access token, `HF_HUB_OFFLINE=1` forbids the network, and `HTTP_PROXY`,
    /// `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, in upper or lower case, are the proxies. Fails where no home
    /// directory is known and `FIRECREST_CACHE` is not set.
    pub fn from_env() -> Result<Self, HubError> {
        let cache_dir = env::var_os("FIRECREST_CACHE")
            .filter(|dir| !dir.is_empty())
            .map(PathBuf::from)
            .or_else(|| user_cache_dir().map(|dir| dir.join("firecrest")))
            .ok_or(HubError::NoCacheDirectory)?;
        let mut options = Self::new(cache_dir);
        if let Some(endpoint) = variable(&["HF_ENDPOINT"]) {
            options.endpoint = endpoint;
        }
        options.token = variable(&["HF_TOKEN"]);
        options.offline = variable(&["HF_HUB_OFFLINE"])
            .is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str()));
        options.proxy = ProxyOptions {
            http: variable(&["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]),
            https: variable(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
            exempt: variable(&["no_proxy", "NO_PROXY"]).unwrap_or_default(),
        };
        Ok(options)
    }
}

impl ProxyOptions {
    /// Returns the proxy for a host, `port` being that of the URL.
    pub(super) fn select(&self, https: bool, host: &str, port: u16) -> Option<&str> {
        let proxy = if https { &self.https } else { &self.http };
        proxy.as_deref().filter(|_| !self.exempts(host, port))
    }

    fn exempts(&self, host: &str, port: u16) -> bool {
        let host = host.trim_matches(['[', ']']);
        self.exempt.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
            if entry == "*" {
                return true;
            }
            let entry = match entry.rsplit_once(':') {
                Some((name, digits)) if !name.contains(':') => {
                    if digits.parse() != Ok(port) {
                        return false;
                    }
                    name
                }
                _ => entry,
            };
            let name = entry.trim_start_matches('*').trim_start_matches('.');
            let Some(start) = host.len().checked_sub(name.len()) else { return false };
            host.get(start..).is_some_and(|end| end.eq_ignore_ascii_case(name))
                && (start == 0 || host.as_bytes()[start - 1] == b'.')
        })
    }
}

// Neither a token nor the password of a proxy belongs in a log.
impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("cache_dir", &self.cache_dir)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .field("proxy", &self.proxy)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ProxyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyOptions")
            .field("http", &self.http.is_some())
            .field("https", &self.https.is_some())
            .field("exempt", &self.exempt)
            .finish()
    }
}

/// Returns the first of these environment variables that is set to something.
fn variable(names: &[&str]) -> Option<String> {
    names
        .iter()
        .filter_map(|name| env::var(name).ok())
        .map(|value| value.trim().to_owned())
        .find(|value| !value.is_empty())
}

/// Returns the directory where this user's programs keep what can be fetched again.
fn user_cache_dir() -> Option<PathBuf> {
    if cfg!(windows) {
        return env::var_os("LOCALAPPDATA").map(PathBuf::from);
    }
    let home = || env::home_dir().filter(|home| home.is_absolute());
    if cfg!(target_os = "macos") {
        return home().map(|home| home.join("Library/Caches"));
    }
    // The XDG base directory specification has relative paths ignored.
    env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute())
        .or_else(|| home().map(|home| home.join(".cache")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let mut options = HubOptions::new("cache");
        options.token = Some("hf_secret".into());
        options.proxy.https = Some("http://user:secret@proxy".into());
        assert!(!format!("{options:?}").contains("secret"));
    }

    #[test]
    fn exempt_hosts_are_reached_without_the_proxy() {
        let proxy = ProxyOptions {
            http: Some("one".into()),
            https: Some("two".into()),
            exempt: "localhost, .example.com,*.example.org,10.0.0.1,host:8080".into(),
        };
        assert_eq!(proxy.select(false, "huggingface.co", 80), Some("one"));
        assert_eq!(proxy.select(true, "huggingface.co", 443), Some("two"));
        for exempt in
            ["localhost", "LOCALHOST", "example.com", "a.b.example.com", "x.example.org", "10.0.0.1"]
        {
            assert_eq!(proxy.select(true, exempt, 443), None, "{exempt}");
        }
        assert_eq!(proxy.select(true, "badexample.com", 443), Some("two"));
        assert_eq!(proxy.select(true, "host", 443), Some("two"));
        assert_eq!(proxy.select(true, "host", 8080), None);
        let all = ProxyOptions { exempt: "*".into(), ..proxy };
        assert_eq!(all.select(true, "huggingface.co", 443), None);
    }
}
