//! Numbers as people say them: "ten forty", "mil cuarenta", "quatre-vingt-dix-neuf".
//!
//! Notice and form numbers are the best features there are, and recognisers write them
//! either as digits or as words. A run of number words (of the three languages at once:
//! one table, no language needed) or of digit groups is read as the digits that a person
//! would write down. The same reading finds numbers that must not be kept: nine digits
//! are a taxpayer's number whether they were transcribed as digits or as words.

use crate::token::Tokens;

/// A run of number tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Run {
    /// First token.
    pub(crate) first: usize,
    /// One past the last token.
    pub(crate) end: usize,
    /// The digits that would be written down.
    pub(crate) digits: String,
    /// Some of it was spoken as words.
    pub(crate) spoken: bool,
}

/// What one token is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// 0 to 9.
    Unit(u32),
    /// 10 to 19.
    Teen(u32),
    /// 20 to 90, and the fused Spanish 21 to 29.
    Tens(u32),
    /// French "dix": 10, and the first half of 17 to 19.
    Dix,
    /// French "vingt": 20, and the second half of 80.
    Vingt,
    /// "hundred": multiplies what stands before it.
    Hundred,
    /// Spanish 200 to 900.
    Hundreds(u32),
    /// Multiplies what stands before it.
    Thousand,
    /// Written digits.
    Digits,
}

impl Part {
    /// Can follow an "and" inside one number.
    fn small(self) -> bool {
        matches!(
            self,
            Self::Unit(_) | Self::Teen(_) | Self::Tens(_) | Self::Dix | Self::Vingt
        )
    }
}

fn part(word: &str) -> Option<Part> {
    use Part::{Digits, Dix, Hundred, Hundreds, Teen, Tens, Thousand, Unit, Vingt};
    if word.bytes().all(|byte| byte.is_ascii_digit()) {
        return (!word.is_empty()).then_some(Digits);
    }
    Some(match word {
        "zero" | "cero" => Unit(0),
        "one" | "uno" | "un" | "une" => Unit(1),
        "two" | "dos" | "deux" => Unit(2),
        "three" | "tres" | "trois" => Unit(3),
        "four" | "cuatro" | "quatre" => Unit(4),
        "five" | "cinco" | "cinq" => Unit(5),
        "six" | "seis" => Unit(6),
        "seven" | "siete" | "sept" => Unit(7),
        "eight" | "ocho" | "huit" => Unit(8),
        "nine" | "nueve" | "neuf" => Unit(9),
        "ten" | "diez" => Teen(10),
        "dix" => Dix,
        "eleven" | "once" | "onze" => Teen(11),
        "twelve" | "doce" | "douze" => Teen(12),
        "thirteen" | "trece" | "treize" => Teen(13),
        "fourteen" | "catorce" | "quatorze" => Teen(14),
        "fifteen" | "quince" | "quinze" => Teen(15),
        "sixteen" | "dieciseis" | "seize" => Teen(16),
        "seventeen" | "diecisiete" => Teen(17),
        "eighteen" | "dieciocho" => Teen(18),
        "nineteen" | "diecinueve" => Teen(19),
        "twenty" | "veinte" => Tens(20),
        "vingt" | "vingts" => Vingt,
        "veintiuno" | "veintiun" => Tens(21),
        "veintidos" => Tens(22),
        "veintitres" => Tens(23),
        "veinticuatro" => Tens(24),
        "veinticinco" => Tens(25),
        "veintiseis" => Tens(26),
        "veintisiete" => Tens(27),
        "veintiocho" => Tens(28),
        "veintinueve" => Tens(29),
        "thirty" | "treinta" | "trente" => Tens(30),
        "forty" | "cuarenta" | "quarante" => Tens(40),
        "fifty" | "cincuenta" | "cinquante" => Tens(50),
        "sixty" | "sesenta" | "soixante" => Tens(60),
        "seventy" | "setenta" | "septante" => Tens(70),
        "eighty" | "ochenta" | "huitante" => Tens(80),
        "ninety" | "noventa" | "nonante" => Tens(90),
        "hundred" | "cent" | "cents" | "cien" | "ciento" => Hundred,
        "doscientos" => Hundreds(200),
        "trescientos" => Hundreds(300),
        "cuatrocientos" => Hundreds(400),
        "quinientos" => Hundreds(500),
        "seiscientos" => Hundreds(600),
        "setecientos" => Hundreds(700),
        "ochocientos" => Hundreds(800),
        "novecientos" => Hundreds(900),
        "thousand" | "mil" | "mille" => Thousand,
        _ => return None,
    })
}

/// Words that may stand inside a spoken number, between two parts of it.
fn joins(word: &str) -> bool {
    matches!(word, "and" | "y" | "et")
}

/// The run that starts at token `first`, if there is one.
pub(crate) fn run_at(tokens: &Tokens, first: usize) -> Option<Run> {
    part(tokens.word(first))?;
    let mut writer = Writer::default();
    let mut run = Run {
        first,
        end: first,
        ..Run::default()
    };
    let mut at = first;
    loop {
        let word = tokens.word(at);
        match part(word) {
            Some(Part::Digits) => writer.digits(word),
            Some(part) => {
                run.spoken = true;
                writer.take(part);
            }
            // "four oh one k": a zero.
            None if matches!(word, "oh" | "o") && part(tokens.word(at + 1)).is_some() => {
                writer.take(Part::Unit(0));
            }
            // "setenta y uno", "hundred and five"; not "1040 and 1099".
            None if joins(word)
                && writer.open()
                && part(tokens.word(at + 1)).is_some_and(Part::small) => {}
            None => break,
        }
        at += 1;
    }
    run.end = at;
    run.digits = writer.finish();
    Some(run)
}

/// Puts groups together: "twenty" "two" is 22, "ten" "forty" is 10 40.
#[derive(Default)]
struct Writer {
    written: String,
    group: Option<u32>,
    /// The last part was "dix".
    dix: bool,
}

impl Writer {
    fn flush(&mut self) {
        if let Some(group) = self.group.take() {
            self.written.push_str(&group.to_string());
        }
    }

    fn digits(&mut self, word: &str) {
        self.flush();
        self.written.push_str(word);
    }

    fn start(&mut self, value: u32) {
        self.flush();
        self.group = Some(value);
    }

    /// The group waits for what is smaller than a hundred.
    fn round(&self) -> bool {
        self.group
            .is_some_and(|group| group >= 100 && group % 100 == 0)
    }

    /// Waits for what may follow an "and".
    fn open(&self) -> bool {
        self.round()
            || self
                .group
                .is_some_and(|group| group % 100 >= 20 && group % 10 == 0)
    }

    fn add(&mut self, value: u32) {
        self.group = self.group.map(|group| group + value);
    }

    fn take(&mut self, part: Part) {
        let group = self.group.unwrap_or(0);
        let last_two = group % 100;
        match part {
            Part::Unit(0) => {
                self.flush();
                self.written.push('0');
            }
            Part::Unit(value)
                if self.round() || (last_two >= 20 && last_two.is_multiple_of(10)) =>
            {
                self.add(value)
            }
            // "dix-sept".
            Part::Unit(value @ 7..=9) if last_two == 10 && self.dix => self.add(value),
            Part::Vingt if last_two == 4 => self.add(76),
            Part::Vingt => self.take(Part::Tens(20)),
            // "soixante-dix", "quatre-vingt-onze".
            Part::Dix => {
                if last_two == 60 || last_two == 80 {
                    self.add(10)
                } else {
                    self.take(Part::Teen(10))
                }
                self.dix = true;
                return;
            }
            Part::Teen(value) if self.round() || last_two == 60 || last_two == 80 => {
                self.add(value)
            }
            Part::Tens(value) if self.round() => self.add(value),
            Part::Hundred if (1..100).contains(&last_two) && group < 1_000_000 => {
                self.group = Some(group - last_two + last_two * 100);
            }
            Part::Hundred if group >= 1_000 && group.is_multiple_of(1_000) => self.add(100),
            Part::Hundreds(value) if group >= 1_000 && group.is_multiple_of(1_000) => {
                self.add(value)
            }
            Part::Thousand if (1..1_000).contains(&group) => self.group = Some(group * 1_000),
            Part::Unit(value) | Part::Teen(value) | Part::Tens(value) | Part::Hundreds(value) => {
                self.start(value)
            }
            Part::Hundred => self.start(100),
            Part::Thousand => self.start(1_000),
            Part::Digits => {}
        }
        self.dix = false;
    }

    fn finish(mut self) -> String {
        self.flush();
        self.written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<String> {
        let mut tokens = Tokens::default();
        tokens.read(text);
        let mut found = Vec::new();
        let mut at = 0;
        while at < tokens.list.len() {
            match run_at(&tokens, at) {
                Some(run) => {
                    at = run.end;
                    found.push(run.digits);
                }
                None => at += 1,
            }
        }
        found
    }

    #[test]
    fn form_numbers_are_read_as_people_say_them() {
        for (text, digits) in [
            ("a ten forty X", "1040"),
            ("form ten ninety nine", "1099"),
            ("a fifty seventy one C letter", "5071"),
            ("it's a CP two thousand", "2000"),
            ("the twenty two ninety", "2290"),
            ("form nine eleven", "911"),
            ("my four oh one k", "401"),
            ("eighty nine sixty two", "8962"),
            ("carta cincuenta setenta y uno C", "5071"),
            ("la forma novecientos once", "911"),
            ("CP catorce", "14"),
            ("la mil cuarenta", "1040"),
            ("formulario mil noventa y nueve", "1099"),
            ("formulaire mille quarante", "1040"),
            ("mille quatre-vingt-dix-neuf", "1099"),
            ("soixante et onze", "71"),
            ("cinquante soixante et onze", "5071"),
            ("two hundred", "200"),
            ("dix-sept", "17"),
            ("six hundred fifty six", "656"),
        ] {
            assert_eq!(read(text), [digits], "{text}");
        }
    }

    #[test]
    fn spelled_out_digits_are_one_run() {
        assert_eq!(
            read("my social is one two three four five six seven eight nine"),
            ["123456789"]
        );
        assert_eq!(read("cero uno dos tres, cuatro"), ["01234"]);
        assert_eq!(read("123-45-6789 ok"), ["123456789"]);
        assert_eq!(read("ten ninety six and ten ninety nine"), ["1096", "1099"]);
        assert_eq!(read("setenta y uno"), ["71"]);
    }

    #[test]
    fn huge_spoken_numbers_do_not_overflow() {
        let text =
            "nine thousand hundred ".repeat(60) + &"mil cien ".repeat(60) + &"thousand ".repeat(90);
        assert!(!read(&text).is_empty());
    }
}
