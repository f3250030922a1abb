//! Names of files that come from elsewhere.

use std::path::Path;

/// The longest name, in bytes: what common file systems take.
pub(crate) const MAX_NAME_BYTES: usize = 255;

/// A file name that names a visible file in the folder it is put into and nothing else: no separator, no control or
/// direction character, no leading dot, 1 to [`MAX_NAME_BYTES`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PlainName(String);

impl PlainName {
    /// Takes a name that somebody else chose.
    ///
    /// # Errors
    /// A sentence's end that says what is wrong with the name.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        if name.is_empty() {
            return Err("the file name is empty".into());
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(format!(
                "the file name has {} bytes where at most {MAX_NAME_BYTES} are taken",
                name.len()
            ));
        }
        if name.starts_with('.') {
            return Err(format!("the file name {name:?} starts with a dot"));
        }
        match name.chars().find(|&char| !is_plain(char)) {
            Some(bad) => Err(format!("the file name {name:?} has {bad:?} in it")),
            None => Ok(Self(name.to_owned())),
        }
    }

    /// The name under which a file of ours is offered: its own, made plain where it is not.
    pub(crate) fn of_path(path: &Path) -> Self {
        let own = path.file_name().unwrap_or_default().to_string_lossy();
        let plain: String =
            own.trim_start_matches('.').chars().map(|char| if is_plain(char) { char } else { '_' }).collect();
        match cut(&plain, MAX_NAME_BYTES) {
            "" => Self("file".into()),
            plain => Self(plain.to_owned()),
        }
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The `n`th name to try when others are taken: the name itself, then `name (1).ext`, `name (2).ext` and so on.
    pub(crate) fn numbered(&self, n: u32) -> Self {
        if n == 0 {
            return self.clone();
        }
        let (stem, extension) = match self.0.rfind('.') {
            Some(dot) if self.0.len() - dot <= MAX_EXTENSION_BYTES => self.0.split_at(dot),
            _ => (self.0.as_str(), ""),
        };
        let number = format!(" ({n})");
        let stem = cut(stem, MAX_NAME_BYTES - number.len() - extension.len());
        Self(format!("{stem}{number}{extension}"))
    }
}

/// At most `most` bytes of `text`, cut between characters.
pub(super) fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// What follows the last dot counts as an extension up to this length, the dot included.
const MAX_EXTENSION_BYTES: usize = 32;

fn is_plain(char: char) -> bool {
    let separates = matches!(char, '/' | '\\');
    // Characters that are not seen but turn what is seen around: they make `exe.txt` of `txt.exe`.
    let turns = matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !(separates || turns || char.is_control() || matches!(char, '\u{2028}' | '\u{2029}' | '\u{feff}'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_lead_elsewhere_hide_or_deceive_are_refused() {
        let long = "x".repeat(256);
        for evil in [
            "",
            ".",
            "..",
            ".ssh",
            "../x",
            "/etc/passwd",
            "a/b",
            "a\\b",
            "a\0b",
            "a\nb",
            "a\u{1b}[2Jb",
            "a\u{202e}txt",
            long.as_str(),
        ] {
            assert!(PlainName::parse(evil).is_err(), "{evil:?}");
        }
        for good in ["a", "a.b", "a b (1).tar.gz", "Grüße.txt", "名前", "-rf", "~"] {
            assert_eq!(PlainName::parse(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn numbers_stand_before_the_extension_and_names_stay_within_the_bound() {
        let name = PlainName::parse("notes.tar.gz").unwrap();
        assert_eq!(name.numbered(0).as_str(), "notes.tar.gz");
        assert_eq!(name.numbered(2).as_str(), "notes.tar (2).gz");
        assert_eq!(PlainName::parse("notes").unwrap().numbered(1).as_str(), "notes (1)");
        let long = PlainName::parse(&"ü".repeat(127)).unwrap();
        assert!(long.numbered(99).as_str().len() <= MAX_NAME_BYTES);
    }

    proptest! {
        #[test]
        fn every_path_has_a_plain_name_and_so_has_each_number_of_it(path: String, n in 0u32..1000) {
            let name = PlainName::of_path(Path::new(&path)).numbered(n);
            let parsed = PlainName::parse(name.as_str());
            prop_assert_eq!(parsed, Ok(name));
        }
    }
}
