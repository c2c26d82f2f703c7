//! Who there is and what they may, as the files say: identities, issuers of signed tokens, access policies.
//!
//! Everything is read and checked before the gateway opens anything that holds a secret: a policy that does not fit its
//! schema, an issuer without a usable CA, a name that makes no sense end the start with file, line and reason. The
//! identities file alone is read again while the gateway runs, on SIGHUP: a file that makes no sense then changes nothing,
//! and the log says so. Policies and issuers change with a restart.

use super::{config::IssuerFile, identities};
use crate::transport::auth::{Access, Identities, issuer::Issuer};
use anyhow::Context as _;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::signal::unix::Signal;

/// Policies of a gateway's own.
const MAX_POLICY_FILES: usize = 64;
/// Bytes of one of them.
const MAX_POLICY: u64 = 256 << 10;

/// Who there is, and what they may.
pub struct Who {
    /// By the identities file.
    pub identities: Arc<Identities>,
    /// By signed token.
    pub issuers: Arc<[Issuer]>,
    /// The identities file.
    pub file: PathBuf,
}

impl Who {
    /// Reads the files. Developers are let in by `quietus dev` only.
    pub fn new(
        group: &str,
        file: &Path,
        policies: Option<&Path>,
        issuers: Vec<IssuerFile>,
        developers: bool,
    ) -> anyhow::Result<Self> {
        let own = policies.map(read_policies).transpose()?.unwrap_or_default();
        let access = Access::new(group, &own).context("access policies")?;
        let identities = Identities::new(group.to_owned(), Arc::new(access), developers);
        list(file, &identities)?;
        let issuers = issuers.into_iter().map(issuer).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self { identities: Arc::new(identities), issuers: issuers.into(), file: file.to_owned() })
    }
}

fn list(file: &Path, identities: &Identities) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let entries = identities::parse(&text).with_context(|| format!("{}", file.display()))?;
    identities.list(entries).with_context(|| format!("{}", file.display()))
}

/// Reads the identities file again whenever the signal comes.
pub async fn read_again(mut hangup: Signal, file: PathBuf, identities: Arc<Identities>) {
    while hangup.recv().await.is_some() {
        match list(&file, &identities) {
            Ok(()) => tracing::info!("the identities file was read again"),
            // What is wrong would repeat names of the file, and a log holds none; the next start tells it.
            Err(_) => tracing::error!("the identities file makes no sense; those of before stay"),
        }
    }
}

/// The `*.cedar` files of a folder, by name.
fn read_policies(folder: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "cedar") {
            files.push(path);
        }
    }
    files.sort();
    anyhow::ensure!(files.len() <= MAX_POLICY_FILES, "{}: more than {MAX_POLICY_FILES} policies", folder.display());
    let read = |path: &PathBuf| {
        let length = std::fs::metadata(path)?.len();
        anyhow::ensure!(length <= MAX_POLICY, "longer than {MAX_POLICY} bytes");
        Ok((path.display().to_string(), std::fs::read_to_string(path)?))
    };
    files.iter().map(|path| read(path).with_context(|| format!("{}", path.display()))).collect()
}

fn issuer(file: IssuerFile) -> anyhow::Result<Issuer> {
    let mut settings = file.settings;
    if let Some(ca) = &file.ca {
        settings.ca_pem = Some(std::fs::read(ca).with_context(|| format!("cannot read {}", ca.display()))?);
    }
    Ok(Issuer::new(settings)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_refused_with_the_file_and_line_of_a_policy_that_makes_no_sense() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("identities.toml");
        std::fs::write(&file, "").expect("written");
        std::fs::write(dir.path().join("ignored.txt"), "not a policy").expect("written");
        let start = || Who::new("g", &file, Some(dir.path()), Vec::new(), false).map(|_| ());
        assert!(start().is_ok());
        let policy = dir.path().join("own.cedar");
        std::fs::write(&policy, "\nforbid (principal, action == Quietus::Action::\"Fly\", resource);")
            .expect("written");
        let refused = format!("{:#}", start().expect_err("refused"));
        assert!(refused.contains(&format!("{}, line 2: ", policy.display())), "{refused}");
    }
}
