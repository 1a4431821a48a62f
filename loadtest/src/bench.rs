//! bench
pub(crate) async fn run(_: &std::path::Path, _: u64, _: &std::path::Path) -> anyhow::Result<()> { Ok(()) }
