//! "A person, please": said in so many words, always honoured.
//!
//! Two rules on the folded words, in all three languages at once, before any model:
//! everything said is a word for a person and the words around such a request ("can I
//! please talk to a real person"); or, inside a longer sentence, a verb of speaking or
//! passing on leads straight to such a word ("talk to a representative about my refund").
//! Rules rather than the model alone because a promise must not depend on training. What
//! they leave over ("nobody here can help me, is anyone alive") the model learns.
//!
//! "In person" is an appointment, not an operator: "in", "en" and "my" never lead here.

use std::collections::HashSet;
use std::sync::LazyLock;

use crate::token::Tokens;

type Words = LazyLock<HashSet<&'static str>>;

fn words(list: &'static str) -> HashSet<&'static str> {
    list.split(' ').collect()
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The word for the key.
    Zero,
    /// The words for a person.
    Phrase,
}

/// Looks for a request in the words of a text.
pub(crate) fn asked(tokens: &Tokens) -> Option<Asked> {
    let said = || tokens.list.iter().map(|token| tokens.text(*token));
    if said().any(zero) && said().all(|word| zero(word) || KEY_WORDS.contains(word)) {
        return Some(Asked::Zero);
    }
    let mut named = false;
    let only = said().all(|word| {
        let noun = STRONG.contains(word) || WEAK.contains(word);
        named |= noun;
        noun || AROUND.contains(word)
    });
    if only && named {
        return Some(Asked::Phrase);
    }
    (0..tokens.list.len())
        .any(|at| leads_to_person(tokens, at))
        .then_some(Asked::Phrase)
}

/// A verb at `at`, then only linking words, then a word for a person.
fn leads_to_person(tokens: &Tokens, at: usize) -> bool {
    if !VERBS.contains(tokens.word(at)) {
        return false;
    }
    (at + 1..=at + 6)
        .map(|next| tokens.word(next))
        .find(|word| !LINKS.contains(*word))
        .is_some_and(|word| STRONG.contains(word))
}

fn zero(word: &str) -> bool {
    matches!(word, "zero" | "cero") || (!word.is_empty() && word.bytes().all(|byte| byte == b'0'))
}

static KEY_WORDS: Words = LazyLock::new(|| {
    words(
        "press pressing pressed i key the number please oprimo oprimi marco marque el la numero \
     tecla por favor touche appuie sur le j s il vous plait um uh euh eh",
    )
});

/// Words for a person who answers a telephone.
static STRONG: Words = LazyLock::new(|| {
    words(
        "operator operators representative representatives representitive rep agent agents person \
     human humans being supervisor manager operador operadora agente agentes representante \
     representantes persona humano humana asesor asesora ejecutivo ejecutiva telefonista \
     recepcionista conseiller conseillere conseillers operateur operatrice humain personne \
     representant standardiste teleconseiller interlocuteur",
    )
});

/// Words that mean a person only when nothing else is said.
static WEAK: Words = LazyLock::new(|| {
    words(
        "someone somebody anyone anybody alguien quelqu gente service servicio cliente customer \
     assistant receptionist superviseur responsable gens people",
    )
});

static VERBS: Words = LazyLock::new(|| {
    words(
        "speak speaking talk talking give get connect transfer hablar hable hablo pasar paseme \
     pasame pongame comunicar comuniqueme comunicame comunicarme transfierame parler passer \
     passez joindre transferez transferer deme donnez",
    )
});

static LINKS: Words = LazyLock::new(|| {
    words(
        "to with me a an the real live human actual another any over through con un una al algun \
     alguna otra otro unos por favor avec une vrai vraie moi au l de autre please customer \
     service someone somebody living breathing ser",
    )
});

/// What stands around a request and says nothing else.
static AROUND: Words = LazyLock::new(|| {
    words(
        "i want wanna need would like to d speak talk talking speaking with a an the real live \
     actual living breathing please now right just give get can could may you me connect \
     transfer put through let another any some help hi hello yes yeah no not t don robot \
     robots machine bot computer is there this that um uh okay ok thank thanks already \
     somewhere for god sake damn said who hey have one m sorry s ma am sir here and so well \
     quiero quisiera queria necesito hablar con un una por favor deme dame paseme pasame \
     pasar pongame comuniqueme comunicame comunicarme al el la ser verdad algun alguna que si \
     hola ya puede puedo podria se esta hay eh este bueno oiga mire gracias maquina carne \
     hueso buenos dias tardes buenas transfierame es le les pido atienda ayuda vivo otra otro \
     je j veux voudrais voulais aimerais parler avec une vrai vraie il vous plait passez \
     passer moi donnez oui non bonjour allo est ce y euh alors pas de du l qu ai besoin puis \
     peux pouvez mettez mettre relation chair os clientele merci maintenant juste ligne \
     joindre direct des tout suite au",
    )
});

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<Asked> {
        let mut tokens = Tokens::default();
        tokens.read(text);
        asked(&tokens)
    }

    #[test]
    fn zero_in_any_language_is_the_key() {
        for text in [
            "0",
            "zero",
            "Zéro.",
            "cero por favor",
            "0 0 0",
            "press zero",
            "j'appuie sur zéro",
            "00",
        ] {
            assert_eq!(found(text), Some(Asked::Zero), "{text}");
        }
        assert_eq!(found("zero balance on my account"), None);
    }

    #[test]
    fn a_plain_request_is_found_in_every_language() {
        for text in [
            "representative",
            "Agent!",
            "operator please",
            "I don't want the robot give me a person",
            "can I talk to somebody please",
            "let me speak to a real live human being",
            "I need to talk to a representative about my refund",
            "agente",
            "representante",
            "quiero hablar con una persona",
            "un agente por favor",
            "páseme con un asesor",
            "comuníqueme con alguien",
            "quiero hablar con un representante sobre mi reembolso",
            "un conseiller",
            "je veux parler à une personne",
            "un agent s'il vous plaît",
            "passez-moi quelqu'un",
            "est-ce que je peux parler à un humain",
            "je voudrais parler à un conseiller pour mon remboursement",
        ] {
            assert_eq!(found(text), Some(Asked::Phrase), "{text}");
        }
    }

    #[test]
    fn other_needs_are_not_taken_for_a_request() {
        for text in [
            "I want to see somebody in person",
            "my agent filed it wrong",
            "the person who prepared my taxes",
            "I'm a real estate agent do I pay quarterly",
            "quiero una cita en persona",
            "une personne à charge",
            "where is my refund",
            "",
            "how many people can I claim",
            "my revenue agent has not called",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }
}
