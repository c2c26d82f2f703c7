//! Real speech: the prompts of Debian's `asterisk-core-sounds-*-wav`, 8 kHz 16-bit mono, and long calls joined from them.

use anyhow::{Context as _, bail, ensure};
use std::path::{Path, PathBuf};

/// Where Debian puts them.
const SOUNDS: &str = "/usr/share/asterisk/sounds";
/// What a second takes: 8000 samples of two bytes.
pub const BYTES_PER_SECOND: u64 = 16_000;
/// Bytes before the first sample.
pub const HEADER: u64 = 44;
/// Fewer would not be the few hundred that are promised.
const ENOUGH: usize = 300;

/// Every prompt, in order of name.
pub fn prompts() -> anyhow::Result<Vec<PathBuf>> {
    let mut prompts = crate::copies::files(Path::new(SOUNDS))?;
    prompts.retain(|path| path.extension().is_some_and(|ending| ending == "wav"));
    if prompts.len() < ENOUGH {
        bail!("{SOUNDS} holds {} recordings; `make deps` installs asterisk-core-sounds-en-wav", prompts.len());
    }
    Ok(prompts)
}

/// Joins the speech of files to one long call of at most so many seconds. Returns its bytes.
pub fn join(prompts: &[PathBuf], seconds: u64, to: &Path) -> anyhow::Result<Vec<u8>> {
    let limit = (seconds * BYTES_PER_SECOND) as usize;
    let mut samples = Vec::new();
    for path in prompts {
        if samples.len() >= limit {
            break;
        }
        let file = std::fs::read(path).with_context(|| path.display().to_string())?;
        samples.extend_from_slice(samples_of(&file).with_context(|| path.display().to_string())?);
    }
    samples.truncate(limit);
    let data = u32::try_from(samples.len()).context("too long for a WAV file")?;
    let mut file = Vec::with_capacity(samples.len() + HEADER as usize);
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&(data + 36).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt ");
    file.extend_from_slice(&16_u32.to_le_bytes());
    file.extend_from_slice(&1_u16.to_le_bytes()); // PCM
    file.extend_from_slice(&1_u16.to_le_bytes()); // mono
    file.extend_from_slice(&8000_u32.to_le_bytes());
    file.extend_from_slice(&(BYTES_PER_SECOND as u32).to_le_bytes());
    file.extend_from_slice(&2_u16.to_le_bytes()); // bytes per sample
    file.extend_from_slice(&16_u16.to_le_bytes()); // bits per sample
    file.extend_from_slice(b"data");
    file.extend_from_slice(&data.to_le_bytes());
    file.extend_from_slice(&samples);
    std::fs::write(to, &file).with_context(|| to.display().to_string())?;
    Ok(file)
}

/// The `data` chunk of a WAV file.
fn samples_of(file: &[u8]) -> anyhow::Result<&[u8]> {
    ensure!(file.get(..4) == Some(b"RIFF") && file.get(8..12) == Some(b"WAVE"), "not a WAV file");
    let mut rest = &file[12..];
    while let Some((head, body)) = rest.split_first_chunk::<8>() {
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let body = body.get(..length).unwrap_or(body);
        if head.starts_with(b"data") {
            return Ok(&body[..body.len() & !1]);
        }
        rest = rest.get(8 + length + length % 2..).unwrap_or_default();
    }
    bail!("a WAV file without samples")
}
