//! Splits text into words before byte-pair encoding.
//!
//! Models define their words with regular expressions, one or several in a row: what the first one matches, and what
//! is left between its matches, is split further by the second. The expressions look ahead in one way only, `(?!\S)`
//! at the end of an alternative. That is rewritten here, so that a finite automaton runs them: in linear time, with no
//! limit on backtracking to run into.

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use regex_automata::hybrid::dfa::DFA;
use regex_automata::hybrid::regex::{Cache, Regex as Automaton};
use regex_automata::util::pool::Pool;
use regex_automata::{Anchored, Input, Match};

/// One step of splitting.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// A regular expression, given by its alternatives in order of preference. Gaps between matches are words too.
    Match(&'static [&'static str]),
    /// As `Match`, but a word of `\s+(?!\S)` is cut further: into 512 characters as often as possible, then at most one
    /// of 256, of 128 and so on.
    MatchHalvingSpaces(&'static [&'static str]),
    /// Cuts before every digit that has a multiple of three digits from it to the end of its run, as in 1 234 567.
    BeforeThousands,
    /// Cuts runs of `\p{N}` out, and each into groups of three counted from its end.
    Thousands,
    /// As `Thousands`, for runs of `\d` that are not followed by a letter or another part of a word.
    ThousandsOfWholeNumbers,
}

/// Steps made ready to run.
pub(super) struct PreTokenizer {
    steps: Vec<Compiled>,
}

enum Compiled {
    Match(Matcher),
    Digits(Digits),
}

struct Matcher {
    regex: Regex,
    /// What to do with a match, by the number of the pattern.
    endings: Vec<Ending>,
    /// Whether the expression matches everywhere, so that it need not be searched for.
    covers: bool,
    halve_spaces: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Ending {
    Whole,
    /// It came from `x(?!\S)`, here `x\z`.
    AtEnd,
    /// It came from `x(?!\S)`, here `x\s`, whose last character is not part of the match.
    BeforeSpace,
}

struct Digits {
    /// Its last pattern matches a run of digits, those before it what is to be left alone.
    regex: Regex,
    /// Whether the run itself is cut out too.
    cut_out: bool,
}

/// The last alternative of an expression that matches everywhere.
pub(super) const SPACES: &str = r"\s+";

impl PreTokenizer {
    pub(super) fn new(steps: &[Step]) -> PreTokenizer {
        let digits =
            |patterns: &[&str], cut_out| Compiled::Digits(Digits { regex: compile(patterns), cut_out });
        let steps = steps.iter().map(|step| match *step {
            Step::Match(alternatives) => Compiled::Match(Matcher::new(alternatives, false)),
            Step::MatchHalvingSpaces(alternatives) => Compiled::Match(Matcher::new(alternatives, true)),
            Step::BeforeThousands => digits(&[r"\d+"], false),
            Step::Thousands => digits(&[r"\p{N}+"], true),
            Step::ThousandsOfWholeNumbers => digits(&[r"\d+[\w\p{N}--\d]", r"\d+"], true),
        });
        PreTokenizer { steps: steps.collect() }
    }

    /// Calls `word` with the words of `text`, which are not empty and make up the text.
    pub(super) fn split<'t>(&self, text: &'t str, word: &mut dyn FnMut(&'t str)) {
        if !text.is_empty() {
            split(&self.steps, text, word);
        }
    }
}

fn split<'t>(steps: &[Compiled], text: &'t str, word: &mut dyn FnMut(&'t str)) {
    let Some((step, rest)) = steps.split_first() else {
        return word(text);
    };
    let mut each = |piece| split(rest, piece, word);
    match step {
        Compiled::Match(matcher) => matcher.split(text, &mut each),
        Compiled::Digits(digits) => digits.split(text, &mut each),
    }
}

type NewCache = Box<dyn Fn() -> Cache + Send + Sync + UnwindSafe + RefUnwindSafe>;

/// A list of patterns, of which the first that matches at a place counts: a finite automaton whose states are made as
/// texts need them.
struct Regex {
    automaton: Arc<Automaton>,
    caches: Pool<Cache, NewCache>,
}

impl Regex {
    /// The first match in `input`.
    fn search(&self, input: &Input<'_>) -> Option<Match> {
        // The automaton gives up on nothing: it is told neither to stop at some bytes nor after some time.
        self.automaton
            .try_search(&mut self.caches.get(), input)
            .unwrap_or_else(|error| unreachable!("{error}"))
    }

    /// Whether this is the last pattern.
    fn is_last(&self, found: &Match) -> bool {
        found.pattern().as_usize() + 1 == self.automaton.pattern_len()
    }
}

/// A contraction in letters of any case; the long `ſ` is one of `s`.
const CONTRACTION: &str = "(?:'(?:[sSſtTmMdD]|[rR][eE]|[vV][eE]|[lL][lL]))";

/// What expressions of models say that takes Unicode's tables of cases and scripts, 50 KB of a module for browsers, and
/// the same without them. Version of Unicode: 16.
const SPELLED_OUT: [(&str, &str); 3] = [
    ("(?i:'s|'t|'re|'ve|'m|'ll|'d)", CONTRACTION),
    ("'(?i:[sdmt]|ll|ve|re)", CONTRACTION),
    (
        r"\p{Han}",
        concat!(
            r"[\x{2E80}-\x{2E99}\x{2E9B}-\x{2EF3}\x{2F00}-\x{2FD5}\x{3005}\x{3007}\x{3021}-\x{3029}\x{3038}-\x{303B}",
            r"\x{3400}-\x{4DBF}\x{4E00}-\x{9FFF}\x{F900}-\x{FA6D}\x{FA70}-\x{FAD9}\x{16FE2}-\x{16FE3}",
            r"\x{16FF0}-\x{16FF1}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B739}\x{2B740}-\x{2B81D}\x{2B820}-\x{2CEA1}",
            r"\x{2CEB0}-\x{2EBE0}\x{2EBF0}-\x{2EE5D}\x{2F800}-\x{2FA1D}\x{30000}-\x{3134A}\x{31350}-\x{323AF}]",
        ),
    ),
];

/// Compiles a list of patterns, constants of this crate that a test compiles too.
fn compile(patterns: &[impl AsRef<str>]) -> Regex {
    let spelled_out = |pattern: &str| {
        SPELLED_OUT.iter().fold(pattern.to_owned(), |pattern, (short, long)| pattern.replace(short, long))
    };
    let patterns: Vec<_> = patterns.iter().map(|pattern| spelled_out(pattern.as_ref())).collect();
    let automaton = Automaton::builder()
        // What the classes of Unicode take at least, where that is more than by default.
        .dfa(DFA::config().skip_cache_capacity_check(true))
        .build_many(&patterns)
        .unwrap_or_else(|error| unreachable!("{error}"));
    let automaton = Arc::new(automaton);
    let shared = Arc::clone(&automaton);
    Regex { automaton, caches: Pool::new(Box::new(move || shared.create_cache())) }
}

impl Matcher {
    fn new(alternatives: &[&str], halve_spaces: bool) -> Matcher {
        let mut patterns = Vec::new();
        let mut endings = Vec::new();
        for &alternative in alternatives {
            if let Some(spaces) = alternative.strip_suffix(r"(?!\S)") {
                // Of all x before a space or the end the longest is preferred: that at the end, if there is one.
                patterns.extend([format!(r"(?:{spaces})\z"), format!(r"(?:{spaces})\s")]);
                endings.extend([Ending::AtEnd, Ending::BeforeSpace]);
            } else {
                patterns.push(alternative.to_owned());
                endings.push(Ending::Whole);
            }
        }
        let covers = alternatives.last() == Some(&SPACES);
        Matcher { regex: compile(&patterns), endings, covers, halve_spaces }
    }

    fn split<'t>(&self, text: &'t str, word: &mut dyn FnMut(&'t str)) {
        let (mut start, mut at) = (0, 0);
        while at < text.len() {
            let input = Input::new(text).span(at..text.len());
            let anchored = || self.regex.search(&input.clone().anchored(Anchored::Yes));
            let found = if self.covers { anchored() } else { None };
            let Some(found) = found.or_else(|| self.regex.search(&input)) else { break };
            let ending = self.endings[found.pattern()];
            let mut end = found.end();
            if ending == Ending::BeforeSpace {
                end -= text[..end].chars().next_back().map_or(0, char::len_utf8);
            }
            if found.start() > start {
                word(&text[start..found.start()]);
            }
            let matched = &text[found.start()..end];
            if self.halve_spaces && ending != Ending::Whole {
                halve(matched, word);
            } else {
                word(matched);
            }
            (start, at) = (end, end);
        }
        if start < text.len() {
            word(&text[start..]);
        }
    }
}

impl Digits {
    fn split<'t>(&self, text: &'t str, word: &mut dyn FnMut(&'t str)) {
        let mut start = 0;
        let mut cut = |at: usize| {
            if at > start {
                word(&text[start..at]);
                start = at;
            }
        };
        let mut at = 0;
        while let Some(run) = self.regex.search(&Input::new(text).range(at..)) {
            at = run.end();
            if !self.regex.is_last(&run) {
                continue;
            }
            let digits = &text[run.range()];
            let count = digits.chars().count();
            for (i, (at, _)) in digits.char_indices().enumerate() {
                if (count - i).is_multiple_of(3) || (i == 0 && self.cut_out) {
                    cut(run.start() + at);
                }
            }
            if self.cut_out {
                cut(run.end());
            }
        }
        cut(text.len());
    }
}

/// Cuts `text` into as many pieces of 512 characters as there are, then one of 256 if there is, and so on.
fn halve<'t>(mut text: &'t str, word: &mut dyn FnMut(&'t str)) {
    let mut size = 512;
    while !text.is_empty() {
        match text.char_indices().nth(size - 1) {
            Some((at, last)) => {
                let (piece, rest) = text.split_at(at + last.len_utf8());
                word(piece);
                text = rest;
            }
            None => size /= 2,
        }
    }
}
