//! Options of the role: flag and environment variable for each, checked before a port is
//! bound.

use std::path::PathBuf;

use anyhow::ensure;

/// Options of `trunkline intent`.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a doc comment here would become the command's help"
    )]
    pub runtime: runtime::Args,
    /// Model file, as written by `trunkline intent train`. Empty: train at start from the
    /// corpus in this binary (a few seconds)
    #[arg(long, env = "TRUNKLINE_INTENT_MODEL", value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// How often the model file is looked at for a change, in ms, 100 to 600000
    #[arg(long, env = "TRUNKLINE_INTENT_MODEL_CHECK_MS", default_value_t = 2_000)]
    pub model_check_ms: u64,
    /// Most gateways linked at once, 1 to 10000
    #[arg(long, env = "TRUNKLINE_INTENT_LINKS_MAX", default_value_t = 256)]
    pub links_max: usize,
    /// Answered frames a link may hold unread before no more are taken from it, 1 to 1024
    #[arg(
        long,
        env = "TRUNKLINE_INTENT_FRAMES_WAITING_MAX",
        default_value_t = 16
    )]
    pub frames_waiting_max: usize,
}

impl Config {
    /// Options for a test: free ports, the embedded corpus.
    #[must_use]
    pub fn for_test() -> Self {
        Self {
            runtime: runtime::Args::for_test(),
            model: None,
            model_check_ms: 100,
            links_max: 256,
            frames_waiting_max: 16,
        }
    }

    /// Checks every option.
    ///
    /// # Errors
    /// The option, its limit and its value.
    pub fn check(&self) -> anyhow::Result<()> {
        self.runtime.check()?;
        let within = |name: &str, value: u64, low: u64, high: u64| {
            ensure!(
                (low..=high).contains(&value),
                "{name}: {value} is outside the limit: {low} to {high}"
            );
            Ok(())
        };
        within("model_check_ms", self.model_check_ms, 100, 600_000)?;
        within("links_max", self.links_max as u64, 1, 10_000)?;
        within(
            "frames_waiting_max",
            self.frames_waiting_max as u64,
            1,
            1_024,
        )?;
        if let Some(model) = &self.model {
            ensure!(model.is_file(), "model: {} is no file", model.display());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_outside_their_limits_are_named() {
        let wrong = |change: &dyn Fn(&mut Config)| {
            let mut config = Config::for_test();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert_eq!(
            wrong(&|config| config.links_max = 0),
            "links_max: 0 is outside the limit: 1 to 10000"
        );
        assert!(wrong(&|config| config.model_check_ms = 5).starts_with("model_check_ms: 5"));
        assert!(
            wrong(&|config| config.frames_waiting_max = 9_999).starts_with("frames_waiting_max")
        );
        assert!(
            wrong(&|config| config.model = Some("no/such/model".into())).contains("is no file")
        );
        assert!(Config::for_test().check().is_ok());
    }
}
