//! Text to tokens: the one place where what was said is cut into words.
//!
//! Lower case, Latin accents folded, full-width forms folded, combining and zero-width
//! characters dropped, everything that is neither a letter nor a digit a boundary. Each
//! token remembers where it stood in the raw text, so that the redactor and the features
//! see the same words. Training and serving both go through here; a change needs a new
//! [`crate::features::FEATURE_SPEC`].
//!
//! Full NFKC was rejected: it needs tables of its own, and what differs for a telephone's
//! transcripts in three Latin languages is the handful of cases below.

/// A word in [`Tokens::folded`], and where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// Start in the folded text, in bytes.
    pub(crate) start: u32,
    /// End in the folded text, in bytes.
    pub(crate) end: u32,
    /// Start in the raw text, in bytes.
    pub(crate) raw_start: u32,
    /// End in the raw text, in bytes.
    pub(crate) raw_end: u32,
}

/// The words of one text; reused from text to text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens {
    /// The words, each followed by one space.
    pub(crate) folded: String,
    /// Where each one is.
    pub(crate) list: Vec<Token>,
}

impl Tokens {
    /// Cuts `text`, which must be shorter than 4 GiB (callers bound it far below).
    pub(crate) fn read(&mut self, text: &str) {
        self.folded.clear();
        self.list.clear();
        let mut open: Option<(u32, u32)> = None;
        for (at, character) in text.char_indices() {
            let at = offset(at);
            let before = offset(self.folded.len());
            if !fold(character, &mut self.folded) {
                self.close(&mut open, at);
                continue;
            }
            if open.is_none() && offset(self.folded.len()) > before {
                open = Some((before, at));
            }
        }
        self.close(&mut open, offset(text.len()));
    }

    fn close(&mut self, open: &mut Option<(u32, u32)>, raw_end: u32) {
        if let Some((start, raw_start)) = open.take() {
            self.list.push(Token {
                start,
                end: offset(self.folded.len()),
                raw_start,
                raw_end,
            });
            self.folded.push(' ');
        }
    }

    /// The words of a token.
    pub(crate) fn text(&self, token: Token) -> &str {
        &self.folded[token.start as usize..token.end as usize]
    }

    /// The word at an index; empty past the end.
    pub(crate) fn word(&self, index: usize) -> &str {
        self.list.get(index).map_or("", |token| self.text(*token))
    }
}

/// The folded words of a text, separated by single spaces: for tests, duplicates and
/// hashes.
#[must_use]
pub fn normalised(text: &str) -> String {
    let mut tokens = Tokens::default();
    tokens.read(text);
    tokens.folded.trim_end().to_owned()
}

fn offset(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Appends what `character` folds to. False: a boundary. Characters that fold to nothing
/// (combining marks, zero-width) join what stands around them.
fn fold(character: char, out: &mut String) -> bool {
    if character.is_ascii() {
        if character.is_ascii_alphanumeric() {
            out.push(character.to_ascii_lowercase());
            return true;
        }
        return false;
    }
    match character {
        '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200f}' | '\u{feff}' | '\u{ad}' => return true,
        // Full-width forms.
        '\u{ff01}'..='\u{ff5e}' => {
            let narrow = char::from_u32(u32::from(character) - 0xfee0).unwrap_or(' ');
            return fold(narrow, out);
        }
        _ => {}
    }
    if let Some(folded) = latin(character) {
        out.push_str(folded);
        return true;
    }
    if character.is_alphanumeric() {
        out.extend(character.to_lowercase());
        return true;
    }
    false
}

fn latin(character: char) -> Option<&'static str> {
    Some(match character {
        'à'..='å' | 'À'..='Å' | 'ā' | 'Ā' | 'ª' => "a",
        'è'..='ë' | 'È'..='Ë' | 'ē' | 'Ē' => "e",
        'ì'..='ï' | 'Ì'..='Ï' | 'ī' | 'Ī' => "i",
        'ò'..='ö' | 'Ò'..='Ö' | 'ø' | 'Ø' | 'ō' | 'Ō' | 'º' => "o",
        'ù'..='ü' | 'Ù'..='Ü' | 'ū' | 'Ū' => "u",
        'ý' | 'ÿ' | 'Ý' | 'Ÿ' => "y",
        'ñ' | 'Ñ' => "n",
        'ç' | 'Ç' => "c",
        'œ' | 'Œ' => "oe",
        'æ' | 'Æ' => "ae",
        'ß' | 'ẞ' => "ss",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accents_case_width_and_apostrophes_fold() {
        assert_eq!(normalised("J’ai reçu l'ŒUVRE"), "j ai recu l oeuvre");
        assert_eq!(normalised("ＣＰ１４ ¿qué?"), "cp14 que");
        assert_eq!(normalised("cafe\u{301}"), "cafe");
        assert_eq!(normalised("re\u{200b}fund"), "refund");
        assert_eq!(normalised("ID.me W-2"), "id me w 2");
    }

    #[test]
    fn text_without_words_has_no_tokens() {
        for text in ["", "   ", "\u{0}\u{1}\n", "🙂🙂", "¿?!…", "\u{301}\u{200b}"] {
            let mut tokens = Tokens::default();
            tokens.read(text);
            assert!(tokens.list.is_empty(), "{text:?}");
        }
    }

    #[test]
    fn raw_spans_cover_the_words_they_came_from() {
        let text = "Año ¿2023? – Ôté";
        let mut tokens = Tokens::default();
        tokens.read(text);
        let raw: Vec<&str> = tokens
            .list
            .iter()
            .map(|token| &text[token.raw_start as usize..token.raw_end as usize])
            .collect();
        assert_eq!(raw, ["Año", "2023", "Ôté"]);
        assert_eq!(tokens.word(2), "ote");
        assert_eq!(tokens.word(9), "");
    }
}
