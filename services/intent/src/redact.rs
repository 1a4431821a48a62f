//! What must not be kept, found in what was said.
//!
//! Taxpayer, card, telephone and account numbers (as digits or as spoken words), e-mail
//! addresses and dates are replaced by tags, both in the text that may leave this crate
//! ([`redact`]) and in what the features see: the model cannot learn a number it is never
//! shown. Years and form numbers stay: "2023", "1040", "CP 2000" say what the caller
//! needs.
//!
//! The rule is deliberately greedy: any six digits in one piece or spoken in one breath,
//! or any run of seven that is not made of years and known forms, goes, whatever it was. Names are not found (that
//! takes a model of its own), so redacted text is still not free text to be logged.

use crate::number::{Run, run_at};
use crate::token::Tokens;

/// What a masked number was taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Masked {
    /// Nine digits: SSN, ITIN or EIN.
    Tin,
    /// 13 to 19 digits.
    Card,
    /// Seven, ten or eleven digits.
    Phone,
    /// Any other long number: an account, a PIN, a control number.
    Number,
    /// A day of a month, or a full date.
    Date,
    /// An e-mail address.
    Email,
}

impl Masked {
    /// What stands in its place.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Tin => "[tin]",
            Self::Card => "[card]",
            Self::Phone => "[phone]",
            Self::Number => "[number]",
            Self::Date => "[date]",
            Self::Email => "[email]",
        }
    }
}

/// Tokens that must not be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mask {
    /// First token.
    pub(crate) first: usize,
    /// One past the last.
    pub(crate) end: usize,
    /// What it is.
    pub(crate) kind: Masked,
}

/// A number that may be kept, read as digits: a form, a notice, an amount, a year.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// First token.
    pub(crate) first: usize,
    /// One past the last.
    pub(crate) end: usize,
    /// Its digits.
    pub(crate) digits: String,
}

/// What is to be masked and which numbers stay; reused from text to text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    /// In order, not overlapping.
    pub(crate) masks: Vec<Mask>,
    /// In order, never inside a mask.
    pub(crate) kept: Vec<Kept>,
}

impl Findings {
    /// Looks through `tokens`, which were read from `raw`.
    pub(crate) fn read(&mut self, tokens: &Tokens, raw: &str) {
        self.masks.clear();
        self.kept.clear();
        let mut at = 0;
        while at < tokens.list.len() {
            if let Some(mask) = email_at(tokens, raw, at).or_else(|| date_at(tokens, raw, at)) {
                at = mask.end;
                self.masks.push(mask);
            } else if let Some(run) = run_at(tokens, at) {
                at = run.end;
                self.number(tokens, run);
            } else {
                at = self.mixed(tokens, at);
            }
        }
    }

    fn number(&mut self, tokens: &Tokens, run: Run) {
        if let Some(kind) = sensitive(tokens, &run) {
            self.masks.push(Mask {
                first: run.first,
                end: run.end,
                kind,
            });
        } else if !run.digits.is_empty() {
            self.kept.push(Kept {
                first: run.first,
                end: run.end,
                digits: run.digits,
            });
        }
    }

    /// A token that mixes letters and digits: "5071c", or "ab12345678".
    fn mixed(&mut self, tokens: &Tokens, at: usize) -> usize {
        let digits = tokens.word(at).bytes().filter(u8::is_ascii_digit).count();
        if digits >= 6 {
            self.masks.push(Mask {
                first: at,
                end: at + 1,
                kind: by_length(digits),
            });
        }
        at + 1
    }
}

/// The text with everything that must not be kept replaced by its tag.
#[must_use]
pub fn redact(text: &str) -> String {
    let mut tokens = Tokens::default();
    let mut findings = Findings::default();
    tokens.read(text);
    findings.read(&tokens, text);
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for mask in &findings.masks {
        let start = tokens.list[mask.first].raw_start as usize;
        let end = tokens.list[mask.end - 1].raw_end as usize;
        out.push_str(&text[copied..start]);
        out.push_str(mask.kind.tag());
        copied = end;
    }
    out.push_str(&text[copied..]);
    out
}

const fn by_length(digits: usize) -> Masked {
    match digits {
        9 => Masked::Tin,
        13..=19 => Masked::Card,
        7 | 10 | 11 => Masked::Phone,
        _ => Masked::Number,
    }
}

fn sensitive(tokens: &Tokens, run: &Run) -> Option<Masked> {
    let longest = (run.first..run.end)
        .map(|at| tokens.word(at))
        .filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()))
        .map(str::len)
        .max()
        .unwrap_or(0);
    let total = run.digits.len();
    if longest >= 6 {
        return Some(by_length(total));
    }
    if total < if run.spoken { 6 } else { 7 } {
        return None;
    }
    let known = !run.spoken && (run.first..run.end).all(|at| year_or_form(tokens.word(at)));
    (!known).then_some(by_length(total))
}

/// Years 1900 to 2099, and numbers of forms and notices that callers read out together.
fn year_or_form(word: &str) -> bool {
    let year = word.len() == 4 && (word.starts_with("19") || word.starts_with("20"));
    year || matches!(
        word,
        "1040"
            | "1095"
            | "1098"
            | "1099"
            | "1065"
            | "1120"
            | "1023"
            | "1024"
            | "2000"
            | "2290"
            | "2848"
            | "4506"
            | "4868"
            | "4883"
            | "5071"
            | "5747"
            | "8821"
            | "8822"
            | "8962"
            | "8863"
            | "9465"
            | "3949"
            | "14039"
            | "14157"
            | "433"
            | "656"
            | "706"
            | "709"
            | "720"
            | "940"
            | "941"
            | "944"
            | "990"
            | "911"
    )
}

fn email_at(tokens: &Tokens, raw: &str, first: usize) -> Option<Mask> {
    let mut end = first;
    let mut at_sign = false;
    while let (Some(token), Some(next)) = (tokens.list.get(end), tokens.list.get(end + 1)) {
        match &raw[token.raw_end as usize..next.raw_start as usize] {
            "@" => at_sign = true,
            "." | "-" | "_" | "+" => {}
            _ => break,
        }
        end += 1;
    }
    at_sign.then_some(Mask {
        first,
        end: end + 1,
        kind: Masked::Email,
    })
}

fn date_at(tokens: &Tokens, raw: &str, first: usize) -> Option<Mask> {
    written_date(tokens, raw, first).or_else(|| named_date(tokens, first))
}

/// "3/14/1985", "14-03-85", "1985-03-14".
fn written_date(tokens: &Tokens, raw: &str, first: usize) -> Option<Mask> {
    let lengths = [0, 1, 2].map(|step| {
        let word = tokens.word(first + step);
        if word.bytes().all(|byte| byte.is_ascii_digit()) {
            word.len()
        } else {
            0
        }
    });
    let shape = matches!(lengths, [1..=2, 1..=2, 2 | 4] | [4, 1..=2, 1..=2]);
    let between = |step: usize| {
        let (left, right) = (tokens.list[first + step], tokens.list[first + step + 1]);
        &raw[left.raw_end as usize..right.raw_start as usize]
    };
    let separated = shape && matches!(between(0), "/" | "-" | ".") && between(0) == between(1);
    separated.then_some(Mask {
        first,
        end: first + 3,
        kind: Masked::Date,
    })
}

/// "March 14", "14 de marzo de 1985", "le 3 mars". A month alone stays.
fn named_date(tokens: &Tokens, first: usize) -> Option<Mask> {
    if month(tokens.word(first)) {
        let day = run_at(tokens, first + 1).filter(|run| day_and_year(&run.digits))?;
        return Some(Mask {
            first,
            end: day.end,
            kind: Masked::Date,
        });
    }
    let day = run_at(tokens, first).filter(|run| run.digits.len() <= 2)?;
    let mut at = day.end;
    if matches!(tokens.word(at), "of" | "de") {
        at += 1;
    }
    if !month(tokens.word(at)) {
        return None;
    }
    let mut year = at + 1;
    if matches!(tokens.word(year), "of" | "de" | "del") {
        year += 1;
    }
    let end = run_at(tokens, year)
        .filter(|run| run.digits.len() <= 4)
        .map_or(at + 1, |run| run.end);
    Some(Mask {
        first,
        end,
        kind: Masked::Date,
    })
}

/// What follows a month: a day, or a day and a year. "March 2023" is no date of a person.
fn day_and_year(digits: &str) -> bool {
    match digits.len() {
        1 | 2 => digits
            .parse::<u32>()
            .is_ok_and(|day| (1..=31).contains(&day)),
        5 | 6 => true,
        _ => false,
    }
}

fn month(word: &str) -> bool {
    matches!(
        word,
        "january"
            | "february"
            | "march"
            | "april"
            | "june"
            | "july"
            | "august"
            | "september"
            | "october"
            | "november"
            | "december"
            | "enero"
            | "febrero"
            | "marzo"
            | "abril"
            | "mayo"
            | "junio"
            | "julio"
            | "agosto"
            | "septiembre"
            | "octubre"
            | "noviembre"
            | "diciembre"
            | "janvier"
            | "fevrier"
            | "mars"
            | "avril"
            | "juin"
            | "juillet"
            | "aout"
            | "septembre"
            | "octobre"
            | "novembre"
            | "decembre"
    ) || word == "may"
        || word == "mai"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn personal_numbers_are_replaced_however_they_are_said() {
        for (text, wanted) in [
            ("my social is 123-45-6789 ok", "my social is [tin] ok"),
            ("it's 123456789.", "it's [tin]."),
            (
                "one two three, four five, six seven eight nine please",
                "[tin] please",
            ),
            (
                "mi número es uno dos tres cuatro cinco seis siete ocho nueve",
                "mi número es [tin]",
            ),
            (
                "c'est le un deux trois quatre cinq six sept huit neuf",
                "c'est le [tin]",
            ),
            ("card 4111 1111 1111 1111 exp", "card [card] exp"),
            ("call me at (202) 555-0143", "call me at ([phone]"),
            ("555-0143", "[phone]"),
            ("pin 482913", "pin [number]"),
            ("account AB12345678", "account [number]"),
            ("born 3/14/1985 in Texas", "born [date] in Texas"),
            ("born March 14, 1985", "born [date]"),
            ("nací el 14 de marzo de 1985", "nací el [date]"),
            ("né le 3 mars 1985", "né le [date]"),
            (
                "write to ana.p-9@mail.example.org now",
                "write to [email] now",
            ),
        ] {
            assert_eq!(redact(text), wanted, "{text}");
        }
    }

    #[test]
    fn years_forms_notices_and_amounts_stay() {
        for text in [
            "my 1040 for 2023 and the 1099",
            "1040 2023 1099",
            "CP 2000 notice",
            "letter 5071C",
            "I owe $4,200",
            "the ten forty X from March 2023",
            "in May I paid",
            "W-2",
            "LT11",
        ] {
            assert_eq!(redact(text), text);
        }
    }

    #[test]
    fn no_run_of_six_digits_survives_any_mixture() {
        let pieces = [
            "12", "345", "6789", " ", "-", "one ", "huit ", "x", "@", "/", "May ", "é", "🙂",
            "1040 ", ".",
        ];
        let mut state = 7_u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..12 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
            }
            let redacted = redact(&text);
            let mut run = 0;
            for character in redacted.chars() {
                run = if character.is_ascii_digit() {
                    run + 1
                } else {
                    0
                };
                assert!(run < 6, "{text:?} became {redacted:?}");
            }
            assert_eq!(
                redact(&redacted),
                redacted,
                "redacting twice changes nothing: {text:?}"
            );
        }
    }
}
