//! The arrivals, drawn from the seed before the first call.
//!
//! A Poisson process whose rate follows the scenario's profile and is multiplied, block by
//! block, by a gamma variable of mean one: real arrivals vary more than Poisson's (the
//! oracle's days have a variance of 3.25 times their mean), and a queue that is tested
//! with plain Poisson looks better than it is. Within a block of mean m the shape m / (d - 1)
//! gives the variance d x m.

use domain::policy::Policy;

use super::Scenario;
use super::words::{Words, person, personal};
use crate::dice::Dice;
use crate::time::Us;

/// One new call, as scheduled.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Arrival {
    /// After the first moment of the run.
    pub(crate) at: Us,
    /// Who calls: their number in the scenario's range.
    pub(crate) caller: u32,
    /// What for: index into [`Schedule::topics`].
    pub(crate) topic: u16,
    /// Index into [`Schedule::languages`].
    pub(crate) language: u8,
}

/// All arrivals, and the names they are told in.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// In order of time.
    pub(crate) arrivals: Vec<Arrival>,
    /// Topics, by index.
    pub(crate) topics: Vec<TopicChoice>,
    /// Languages, by index.
    pub(crate) languages: Vec<String>,
}

/// A topic people call about, with the numbers that lead to it.
#[derive(Clone, Debug)]
pub(crate) struct TopicChoice {
    /// Topic id.
    pub(crate) id: String,
    /// Weight in the scenario.
    pub(crate) weight: f64,
    /// The skill its queue needs.
    pub(crate) skill: String,
    /// Its pool.
    pub(crate) pool: String,
    /// Numbers of lines that lead to its pool.
    pub(crate) numbers: Vec<String>,
}

/// What a caller says or presses.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Said {
    /// In words; empty: nothing.
    pub(crate) utterance: String,
    /// In digits; empty: nothing.
    pub(crate) digits: String,
}

impl Schedule {
    /// Draws the schedule.
    pub(crate) fn draw(scenario: &Scenario, policy: &Policy) -> Self {
        let topics = topics_of(scenario, policy);
        let topic_weights: Vec<f64> = topics.iter().map(|topic| topic.weight).collect();
        let languages: Vec<String> = scenario.languages.keys().cloned().collect();
        let language_weights: Vec<f64> = scenario.languages.values().copied().collect();
        let mut dice = Dice::new(scenario.seed, 1);
        let mut arrivals = Vec::new();
        let mut caller = 0;
        for (from_s, until_s, rate) in blocks(scenario, &mut dice) {
            if rate <= 0.0 {
                continue;
            }
            let mut at_s = from_s + dice.exponential(1.0 / rate);
            while at_s < until_s {
                arrivals.push(Arrival {
                    at: (at_s * 1e6) as Us,
                    caller,
                    topic: dice.weighted(&topic_weights) as u16,
                    language: dice.weighted(&language_weights) as u8,
                });
                caller += 1;
                at_s += dice.exponential(1.0 / rate);
            }
        }
        Self {
            arrivals,
            topics,
            languages,
        }
    }
}

/// Pieces of constant rate: (from, until, calls a second).
fn blocks(scenario: &Scenario, dice: &mut Dice) -> Vec<(f64, f64, f64)> {
    let arrivals = &scenario.arrivals;
    let profile: &[f64] = if arrivals.profile.is_empty() {
        &[1.0]
    } else {
        &arrivals.profile
    };
    let mean = profile.iter().sum::<f64>() / profile.len() as f64;
    let part_s = scenario.seconds / profile.len() as f64;
    let count = (scenario.seconds / arrivals.dispersion_block_s).ceil() as usize;
    let mut blocks = Vec::new();
    for block in 0..count {
        let from_s = block as f64 * arrivals.dispersion_block_s;
        let until_s = (from_s + arrivals.dispersion_block_s).min(scenario.seconds);
        let expected = arrivals.calls_per_s * (until_s - from_s);
        let factor = if arrivals.dispersion > 1.0 {
            dice.gamma_of_mean_one(expected / (arrivals.dispersion - 1.0))
        } else {
            1.0
        };
        // A block is cut where the profile steps.
        let mut start_s = from_s;
        while start_s < until_s - 1e-9 {
            let part = ((start_s / part_s + 1e-9) as usize).min(profile.len() - 1);
            let end_s = until_s.min((part + 1) as f64 * part_s);
            let end_s = if end_s > start_s { end_s } else { until_s };
            blocks.push((
                start_s,
                end_s,
                arrivals.calls_per_s * profile[part] / mean * factor,
            ));
            start_s = end_s;
        }
    }
    blocks
}

fn topics_of(scenario: &Scenario, policy: &Policy) -> Vec<TopicChoice> {
    let mut topics = Vec::new();
    for (id, weight) in &scenario.topics {
        let queue = policy.queue(policy.topics[id].queue);
        let numbers = policy
            .lines
            .values()
            .filter(|line| line.pool == queue.pool)
            .filter_map(|line| line.numbers.first().cloned())
            .collect();
        topics.push(TopicChoice {
            id: id.clone(),
            weight: *weight,
            skill: queue.skill.clone(),
            pool: queue.pool.clone(),
            numbers,
        });
    }
    topics
}

/// What this caller says this time: depends on their own die alone.
pub(crate) fn said(
    scenario: &Scenario,
    words: &Words,
    topic: &str,
    language: &str,
    caller: u32,
    dice: &mut Dice,
) -> Said {
    let shares = &scenario.words;
    let kind = dice.weighted(&[shares.need, shares.person, shares.zero, shares.silence]);
    let choice = dice.next();
    let tells = dice.chance(shares.personal);
    match kind {
        0 => {
            let mut utterance = words
                .pick(topic, language, choice)
                .unwrap_or("I have a question")
                .to_owned();
            if tells {
                utterance.push_str(&personal(caller));
            }
            Said {
                utterance,
                digits: String::new(),
            }
        }
        1 => Said {
            utterance: person(language, choice).to_owned(),
            digits: String::new(),
        },
        2 => Said {
            utterance: String::new(),
            digits: "0".to_owned(),
        },
        _ => Said::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded() -> crate::scenario::Loaded {
        let scratch = tempfile::tempdir().unwrap();
        crate::scenario::load("filing-season-monday", scratch.path()).unwrap()
    }

    #[test]
    fn a_seed_gives_the_same_schedule_and_another_seed_another() {
        let mut loaded = loaded();
        let first = Schedule::draw(&loaded.scenario, &loaded.policy);
        let second = Schedule::draw(&loaded.scenario, &loaded.policy);
        assert_eq!(first.arrivals, second.arrivals);
        loaded.scenario.seed += 1;
        assert_ne!(
            first.arrivals,
            Schedule::draw(&loaded.scenario, &loaded.policy).arrivals
        );
    }

    #[test]
    fn arrivals_are_in_order_within_the_run_and_as_many_as_asked() {
        let mut loaded = loaded();
        loaded.scenario.seconds = 2000.0;
        loaded.scenario.arrivals.calls_per_s = 50.0;
        let schedule = Schedule::draw(&loaded.scenario, &loaded.policy);
        assert!(schedule.arrivals.is_sorted_by_key(|arrival| arrival.at));
        assert!(schedule.arrivals.last().unwrap().at < 2_000_000_000);
        let share = schedule.arrivals.len() as f64 / 100_000.0;
        assert!((share - 1.0).abs() < 0.03, "{share}");
    }

    #[test]
    fn blocks_are_as_dispersed_as_the_scenario_says() {
        let mut loaded = loaded();
        loaded.scenario.seconds = 20_000.0;
        loaded.scenario.arrivals = crate::scenario::Arrivals {
            calls_per_s: 5.0,
            profile: Vec::new(),
            dispersion: 3.25,
            dispersion_block_s: 10.0,
        };
        let schedule = Schedule::draw(&loaded.scenario, &loaded.policy);
        let mut counts = vec![0.0f64; 2000];
        for arrival in &schedule.arrivals {
            counts[(arrival.at / 10_000_000) as usize] += 1.0;
        }
        let mean = counts.iter().sum::<f64>() / counts.len() as f64;
        let variance = counts
            .iter()
            .map(|count| (count - mean).powi(2))
            .sum::<f64>()
            / counts.len() as f64;
        assert!((variance / mean - 3.25).abs() < 0.4, "{}", variance / mean);
    }

    #[test]
    fn the_profile_shapes_the_rate() {
        let mut loaded = loaded();
        loaded.scenario.seconds = 1000.0;
        loaded.scenario.arrivals.calls_per_s = 50.0;
        loaded.scenario.arrivals.dispersion = 1.0;
        loaded.scenario.arrivals.profile = vec![1.0, 3.0];
        let schedule = Schedule::draw(&loaded.scenario, &loaded.policy);
        let early = schedule
            .arrivals
            .iter()
            .filter(|arrival| arrival.at < 500_000_000)
            .count() as f64;
        let share = early / schedule.arrivals.len() as f64;
        assert!((share - 0.25).abs() < 0.01, "{share}");
    }
}
