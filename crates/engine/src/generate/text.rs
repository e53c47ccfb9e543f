/// Turns the bytes of tokens into text that can be shown: whole characters only, and nothing that could still become part
/// of a stop string.
///
/// However the bytes are cut, the texts together are the lossily decoded bytes up to the stop string that is completed
/// first (of those completed together, the one that starts first).
#[derive(Clone, Debug)]
pub(super) struct TextStream {
    stops: Vec<String>,
    /// The start of a character whose end has not come yet.
    partial: Vec<u8>,
    /// The start of what could become a stop string.
    held: String,
}

/// Text that may be shown, and whether a stop string ended it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) text: String,
    pub(super) stopped: bool,
}

impl TextStream {
    pub(super) fn new(stops: &[String]) -> Self {
        Self { stops: stops.to_vec(), partial: Vec::new(), held: String::new() }
    }

    /// Takes the bytes of the next token.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Shown {
        self.partial.extend_from_slice(bytes);
        let mut rest = 0;
        for chunk in self.partial.utf8_chunks() {
            self.held.push_str(chunk.valid());
            rest += chunk.valid().len();
            // Only at the end can an invalid sequence be the start of a valid one.
            let unfinished = rest + chunk.invalid().len() == self.partial.len()
                && std::str::from_utf8(chunk.invalid()).is_err_and(|error| error.error_len().is_none());
            if !chunk.invalid().is_empty() && !unfinished {
                self.held.push(char::REPLACEMENT_CHARACTER);
                rest += chunk.invalid().len();
            }
        }
        self.partial.drain(..rest);
        self.show(false)
    }

    /// Ends the text: shows what was held back, an unfinished character as U+FFFD.
    pub(super) fn finish(&mut self) -> Shown {
        if !self.partial.is_empty() {
            self.partial.clear();
            self.held.push(char::REPLACEMENT_CHARACTER);
        }
        self.show(true)
    }

    fn show(&mut self, all: bool) -> Shown {
        let first = self.stops.iter().filter_map(|stop| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start))
        });
        if let Some((_, start)) = first.min() {
            self.held.truncate(start);
            return Shown { text: std::mem::take(&mut self.held), stopped: true };
        }
        let shown = self.held.len() - if all { 0 } else { self.possible_stop() };
        let rest = self.held.split_off(shown);
        Shown { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    /// Length of the longest end of the text that starts a stop string.
    fn possible_stop(&self) -> usize {
        let text = self.held.as_bytes();
        let longest = |stop: &String| {
            let stop = stop.as_bytes();
            (1..stop.len().min(text.len() + 1)).rev().find(|&n| text.ends_with(&stop[..n]))
        };
        self.stops.iter().filter_map(longest).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The texts shown one by one, and whether a stop string ended them.
    fn run(stops: &[&str], parts: &[&[u8]]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| stop.to_string()).collect();
        let mut stream = TextStream::new(&stops);
        let mut texts = Vec::new();
        for part in parts {
            let shown = stream.push(part);
            texts.push(shown.text);
            if shown.stopped {
                return (texts, true);
            }
        }
        let shown = stream.finish();
        texts.push(shown.text);
        (texts, shown.stopped)
    }

    #[test]
    fn characters_come_whole() {
        let (texts, _) = run(&[], &[b"a\xe2", b"\x82", b"\xac!", b"\xff\xf0\x9f"]);
        assert_eq!(texts, ["a", "", "€!", "\u{fffd}", "\u{fffd}"]);
    }

    #[test]
    fn a_possible_stop_is_held_back_and_released() {
        assert_eq!(
            run(&["END"], &[b"xE", b"N", b"Z"]),
            (vec!["x".into(), "".into(), "ENZ".into(), "".into()], false)
        );
        assert_eq!(run(&["END"], &[b"xE", b"ND and"]), (vec!["x".into(), "".into()], true));
        assert_eq!(run(&["END"], &[b"xEN"]), (vec!["x".into(), "EN".into()], false));
    }

    #[test]
    fn the_stop_completed_first_counts() {
        assert_eq!(run(&["abcd", "bc"], &[b"xabcd"]).0, ["xa"]);
        assert_eq!(run(&["abcd", "bc"], &[b"xa", b"bc", b"d"]).0, ["x", "a"]);
        assert_eq!(
            run(&["aab"], &[b"a", b"a", b"a", b"b"]),
            (vec!["".into(), "".into(), "a".into(), "".into()], true)
        );
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            4 => "[ab]{0,4}".prop_map(String::into_bytes),
            1 => Just("é€".as_bytes().to_vec()),
            1 => proptest::collection::vec(any::<u8>(), 0..4),
        ];
        proptest::collection::vec(part, 0..20).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn the_cut_into_tokens_does_not_matter(
            bytes in text(),
            cuts in proptest::collection::vec(1usize..5, 1..10),
            stops in proptest::collection::vec("[ab€é]{1,4}", 0..3),
        ) {
            let mut parts = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (part, tail) = rest.split_at((*cut).min(rest.len()));
                parts.push(part);
                rest = tail;
            }
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let (texts, stopped) = run(&stops, &parts);
            let text = texts.concat();

            let whole = String::from_utf8_lossy(&bytes);
            let first = stops.iter().filter_map(|stop| whole.find(stop).map(|at| (at + stop.len(), at))).min();
            prop_assert_eq!(stopped, first.is_some());
            prop_assert_eq!(&text, &whole[..first.map_or(whole.len(), |(_, start)| start)]);
            prop_assert!(stops.iter().all(|stop| !text.contains(stop)));
        }
    }
}
