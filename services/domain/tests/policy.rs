//! Policy: the worked example is whole, and every kind of fault is told with its line.

use domain::policy::{Faults, Policy};

const TAXONOMY: &[&str] = &[
    "REF_STATUS",
    "REF_DELAY",
    "REF_TRACE",
    "REF_OFFSET",
    "REF_AMEND",
    "ACC_NOTICE",
    "ACC_MATHERR",
    "ACC_TRANSCRIPT",
    "ACC_AGI",
    "ACC_PAYMENT",
    "ACC_PENALTY",
    "ACC_ADDRESS",
    "ACC_ONLINE",
    "ACC_DECEASED",
    "ITIN_STATUS",
    "IDT_VICTIM",
    "IDT_TPP",
    "IDT_IPPIN",
    "IDT_DUPDEP",
    "SCAM_REPORT",
    "COL_BALANCE",
    "COL_PAYPLAN",
    "COL_IACHANGE",
    "COL_HARDSHIP",
    "COL_LEVY",
    "COL_LIEN",
    "COL_OIC",
    "COL_NONFILER",
    "COL_PASSPORT",
    "EXM_CORR",
    "EXM_AUR",
    "APP_APPEALS",
    "LAW_FILING",
    "LAW_DEPEND",
    "LAW_CREDITS",
    "LAW_EDU",
    "LAW_RETIRE",
    "LAW_DEDUCT",
    "LAW_SELFEMP",
    "LAW_ACA",
    "LAW_REFORM",
    "LAW_INTL",
    "LAW_OOS",
    "LAW_ESTATE",
    "SPC_DISASTER",
    "BUS_ACCT",
    "BUS_EIN",
    "BUS_EMPTAX",
    "BUS_EXCISE",
    "BUS_INFORET",
    "TEGE_EO",
    "PPS_ACCT",
    "PRO_EHELP",
    "TAS_CASE",
    "TAC_APPT",
    "FORMS_ORDER",
    "W2_MISSING",
    "PAY_HOW",
    "FRAUD_TIP",
    "LANG_OTHER",
    "ACCESS_TTY",
    "META_OPERATOR",
    "META_CBRETURN",
    "META_REPEAT",
    "SAFETY",
    "META_EXTERNAL",
    "META_UNCLEAR",
];

#[test]
fn the_worked_example_serves_every_topic_of_the_taxonomy() {
    let policy = Policy::worked_example();
    let ids: Vec<&str> = policy.topics.keys().map(String::as_str).collect();
    let mut expected = TAXONOMY.to_vec();
    expected.sort_unstable();
    assert_eq!(ids, expected);
    assert_eq!(policy.pools.keys().collect::<Vec<_>>(), ["tax-line"]);
    for topic in policy.topics.values() {
        assert_eq!(policy.queue(topic.queue).pool, "tax-line", "{}", topic.id);
    }
    for queue in &policy.queues {
        assert!(
            policy
                .topics
                .values()
                .any(|topic| policy.queue(topic.queue).name == queue.name),
            "{} serves no topic",
            queue.name
        );
        assert_eq!(
            policy
                .queue_index(&queue.name)
                .map(|index| &policy.queue(index).name),
            Some(&queue.name)
        );
    }
    assert_eq!(
        policy
            .line_of_number("+8005550101")
            .map(|line| line.name.as_str()),
        Some("individual")
    );
    assert!(policy.line_of_number("8005559999").is_none());
}

#[test]
fn the_version_names_the_content() {
    let documents = Policy::worked_example_documents();
    let mut changed = documents.map(|(name, text)| (name, text.to_owned()));
    changed[0].1.push_str("# a remark\n");
    let changed: Vec<(&str, &str)> = changed
        .iter()
        .map(|(name, text)| (*name, text.as_str()))
        .collect();
    let one = Policy::parse(&documents).expect("the example is valid");
    let other = Policy::parse(&changed).expect("a remark is no fault");
    assert_eq!(one.version, Policy::worked_example().version);
    assert_ne!(one.version, other.version);
}

/// The example with one text replaced, which must occur.
fn with(file: &str, from: &str, to: &str) -> Result<Policy, Faults> {
    let documents = Policy::worked_example_documents().map(|(name, text)| {
        assert!(
            name != file || text.contains(from),
            "{file} no longer contains {from:?}"
        );
        (
            name,
            if name == file {
                text.replacen(from, to, 1)
            } else {
                text.to_owned()
            },
        )
    });
    let documents: Vec<(&str, &str)> = documents
        .iter()
        .map(|(name, text)| (*name, text.as_str()))
        .collect();
    Policy::parse(&documents)
}

/// The faults of the example so changed, as text.
fn faults(file: &str, from: &str, to: &str) -> Vec<String> {
    with(file, from, to)
        .expect_err("a fault was put in")
        .0
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn line_in_example(file: &str, text: &str) -> usize {
    let documents = Policy::worked_example_documents();
    let (_, content) = documents
        .iter()
        .find(|(name, _)| *name == file)
        .expect("a file of the example");
    content
        .lines()
        .position(|line| line.contains(text))
        .expect("the text is in the file")
        + 1
}

#[test]
fn each_fault_names_document_line_and_reason() {
    let cases = [
        (
            "pool.yaml",
            "noAnswerMs: 20000",
            "noAnswerMs: 5",
            "spec.noAnswerMs: 100 to 600000, is 5",
        ),
        (
            "pool.yaml",
            "noAnswerMs: 20000",
            "noAnswerMs: soon",
            "invalid type",
        ),
        (
            "pool.yaml",
            "noAnswerMs: 20000",
            "noAnswerMs: -5",
            "spec.noAnswerMs: invalid type",
        ),
        (
            "pool.yaml",
            "waitingMax: 200000",
            "waitingMaximum: 200000",
            "unknown field",
        ),
        (
            "pool.yaml",
            "operator-001:",
            "\"operator 001\":",
            "spec.agents.operator 001: 1 to 64 bytes",
        ),
        (
            "lines.yaml",
            "defaultTopic: COL_BALANCE",
            "defaultTopic: COL_NOTHING",
            "there is no topic with the id \"COL_NOTHING\"",
        ),
        (
            "lines.yaml",
            "timeZone: America/Chicago",
            "timeZone: America/Gotham",
            "an IANA time zone, is \"America/Gotham\"",
        ),
        (
            "lines.yaml",
            "numbers: [\"8005550110\"]",
            "numbers: [\"8005550101\"]",
            "is dialled on line \"individual\" already",
        ),
        (
            "lines.yaml",
            "numbers: [\"8005550120\"]",
            "numbers: [\"call me\"]",
            "3 to 32 digits",
        ),
        (
            "queues.yaml",
            "device: \"7102\"",
            "device: \"7101\"",
            "is another queue's device already",
        ),
        (
            "queues.yaml",
            "priorityStart: 3600",
            "priorityStart: 3601",
            "at most the pool's priorityCap 3600, is 3601",
        ),
        (
            "queues.yaml",
            "priorityAcceleration: 2",
            "priorityAcceleration: 0",
            "spec.priorityAcceleration: 1 to 10000, is 0",
        ),
        (
            "callback.yaml",
            "callableUntilHour: 21",
            "callableUntilHour: 8",
            "spec.callableUntilHour: 9 to 24, is 8",
        ),
        (
            "callback.yaml",
            "kind: CallbackPolicy",
            "kind: Calback",
            "kind: must be",
        ),
        (
            "callback.yaml",
            "apiVersion: trunkline.dev/v1",
            "apiVersion: v2",
            "apiVersion: must be",
        ),
        (
            "topics.yaml",
            "name: ref-trace",
            "name: ref-delay",
            "is there already",
        ),
        (
            "topics.yaml",
            "id: REF_TRACE",
            "id: REF_DELAY",
            "is another topic's id already",
        ),
        (
            "topics.yaml",
            "name: ref-trace",
            "name: REF_TRACE",
            "metadata.name: 1 to 63",
        ),
    ];
    for (file, from, to, expected) in cases {
        let found = faults(file, from, to);
        let line = line_in_example(file, from);
        let place = format!("{file}:{line}: ");
        assert!(
            found
                .iter()
                .any(|fault| fault.starts_with(&place) && fault.contains(expected)),
            "{from} -> {to}: wanted {place}{expected}, found {found:#?}"
        );
    }
}

#[test]
fn a_document_that_cannot_be_read_hides_no_other_fault_and_makes_no_second_one() {
    let mut texts = Policy::worked_example_documents().map(|(name, text)| (name, text.to_owned()));
    texts[3].1 = texts[3].1.replacen("skill: operator", "skil: operator", 1);
    texts[0].1 = texts[0].1.replacen("attemptsMax: 3", "attemptsMax: 11", 1);
    let documents: Vec<(&str, &str)> = texts
        .iter()
        .map(|(name, text)| (*name, text.as_str()))
        .collect();
    let faults = Policy::parse(&documents).expect_err("two faults").0;
    let files: Vec<&str> = faults.iter().map(|fault| fault.document.as_str()).collect();
    assert_eq!(files, ["callback.yaml", "queues.yaml"], "{faults:#?}");
}

#[test]
fn text_that_is_no_yaml_is_a_fault_on_its_line() {
    let found = faults("callback.yaml", "ringMs: 25000", "ringMs: [25000");
    assert!(
        found
            .iter()
            .any(|fault| fault.starts_with("callback.yaml:")),
        "{found:#?}"
    );
    let faults = Policy::parse(&[("empty.yaml", "")])
        .expect_err("nothing is there")
        .0;
    assert!(
        faults.iter().any(|fault| fault.reason.contains("no Pool")),
        "{faults:#?}"
    );
}
