//! Media types that tell their rate, and WAV headers: what it takes to cut a recording by time and to say how long it is.
//!
//! Known are raw G.711 and linear samples (RFC 3551, RFC 2586, RFC 4856) and WAV with a constant rate (PCM, float, A-law,
//! µ-law, and these in the extensible form). Everything else is kept and played by bytes.
//!
//! Headers come from outside and from calls that still run: softswitches write a RIFF size of 8 and a data size of 0 and
//! put the true ones in place at the end, which a stream cannot do. So a size that says nothing, or more than there is,
//! means *to the end*. No input panics; the first [`HEAD`] bytes of a recording are all that is ever looked at.

use std::ops::Range;

/// How much of a recording's beginning [`layout`] looks at.
pub const HEAD: usize = 4096;
/// Longest media type, parameters included.
pub const MAX_MEDIA_TYPE: usize = 127;

/// Rates and channels above these are taken for damage.
const MAX_RATE: u32 = 1_000_000;
const MAX_CHANNELS: u32 = 256;

/// Where the samples of a recording lie and how fast they go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layout {
    /// Bytes before the first sample.
    pub data_start: u64,
    /// Bytes of samples, where the header says so.
    pub data_len: Option<u64>,
    /// Bytes of samples in a second.
    pub bytes_per_second: f64,
    /// Bytes of one sample of all channels.
    pub frame: u32,
    /// Whether a cut needs a header of its own.
    pub wav: bool,
}

impl Layout {
    /// Bytes of samples in a recording of `total_len` bytes.
    fn samples(&self, total_len: u64) -> u64 {
        let there = total_len.saturating_sub(self.data_start);
        self.data_len.map_or(there, |said| said.min(there))
    }

    /// Seconds in a recording of `total_len` bytes.
    pub fn duration(&self, total_len: u64) -> f64 {
        self.samples(total_len) as f64 / self.bytes_per_second
    }

    /// The samples from one second to another, on whole frames; neighbouring cuts meet. Times outside of the recording
    /// are its ends (so infinity is *to the end*), and what is no number is the beginning.
    pub fn byte_range(&self, from_s: f64, to_s: f64, total_len: u64) -> Range<u64> {
        let frame = u64::from(self.frame);
        let frames = self.samples(total_len) / frame;
        // A float's cast saturates and takes NaN for zero.
        let at = |seconds: f64| {
            let place = (seconds * (self.bytes_per_second / f64::from(self.frame))).round() as u64;
            self.data_start + place.min(frames) * frame
        };
        let from = at(from_s);
        from..at(to_s).max(from)
    }
}

/// What a media type and the first bytes of a recording tell; none where they do not tell a constant rate.
pub fn layout(media_type: &str, head: &[u8]) -> Option<Layout> {
    let media = MediaType::parse(media_type)?;
    let raw = |sample: u32, rate: Option<u32>| {
        let rate = rate.filter(|rate| (1..=MAX_RATE).contains(rate))?;
        let channels = media.number("channels", Some(1)).filter(|channels| (1..=MAX_CHANNELS).contains(channels))?;
        let frame = sample * channels;
        let bytes_per_second = f64::from(rate) * f64::from(frame);
        Some(Layout { data_start: 0, data_len: None, bytes_per_second, frame, wav: false })
    };
    match media.essence.as_str() {
        "audio/l16" => raw(2, media.number("rate", None)),
        "audio/pcma" | "audio/pcmu" => raw(1, media.number("rate", Some(8000))),
        "audio/basic" => raw(1, Some(8000)),
        "audio/wav" | "audio/x-wav" | "audio/wave" | "audio/vnd.wave" => {
            let wav = Wav::parse(head)?;
            Some(Layout {
                data_start: wav.data_start as u64,
                data_len: wav.data_len,
                bytes_per_second: f64::from(wav.rate) * f64::from(wav.frame),
                frame: wav.frame,
                wav: true,
            })
        }
        _ => None,
    }
}

/// A header for `data_len` bytes cut from the samples of a WAV that begins with `head`: the same format, and no other
/// chunks. Empty where `head` is not one: raw samples need none.
pub fn wav_header_for(head: &[u8], data_len: u32) -> Vec<u8> {
    let Some(wav) = Wav::parse(head) else {
        return Vec::new();
    };
    let mut chunks = b"WAVE".to_vec();
    let mut chunk = |id: &[u8; 4], size: u32, body: &[u8]| {
        chunks.extend_from_slice(id);
        chunks.extend_from_slice(&size.to_le_bytes());
        chunks.extend_from_slice(body);
        if body.len() % 2 == 1 {
            chunks.push(0);
        }
    };
    // Its length came from a header of at most HEAD bytes.
    chunk(b"fmt ", wav.format.len() as u32, wav.format);
    if wav.tag != PCM {
        chunk(b"fact", 4, &(data_len / wav.frame).to_le_bytes());
    }
    chunk(b"data", data_len, &[]);
    let size = (chunks.len() as u32).saturating_add(data_len).saturating_add(data_len % 2);
    [b"RIFF".as_slice(), &size.to_le_bytes(), &chunks].concat()
}

/// Whether a text is a media type by RFC 6838 (with parameters by RFC 9110), of at most [`MAX_MEDIA_TYPE`] characters.
pub fn validate_media_type(media_type: &str) -> bool {
    MediaType::parse(media_type).is_some()
}

/// A media type, taken apart. Names are in lower case.
struct MediaType {
    essence: String,
    parameters: Vec<(String, String)>,
}

impl MediaType {
    fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_MEDIA_TYPE || !text.is_ascii() {
            return None;
        }
        let (essence, mut rest) = text.split_at(text.find([';', ' ', '\t']).unwrap_or(text.len()));
        let (kind, subtype) = essence.split_once('/')?;
        if !restricted_name(kind) || !restricted_name(subtype) {
            return None;
        }
        let mut parameters = Vec::new();
        loop {
            rest = rest.trim_start_matches([' ', '\t']);
            if rest.is_empty() {
                return Some(Self { essence: essence.to_ascii_lowercase(), parameters });
            }
            rest = rest.strip_prefix(';')?.trim_start_matches([' ', '\t']);
            let (name, behind) = rest.split_once('=')?;
            let (value, behind) = match behind.strip_prefix('"') {
                Some(quoted) => quoted_string(quoted)?,
                None => {
                    let (value, behind) = behind.split_at(behind.find([';', ' ', '\t']).unwrap_or(behind.len()));
                    (token(value).then(|| value.to_owned())?, behind)
                }
            };
            if !token(name) {
                return None;
            }
            parameters.push((name.to_ascii_lowercase(), value));
            rest = behind;
        }
    }

    /// A parameter's number; the default where there is no such parameter.
    fn number(&self, name: &str, default: Option<u32>) -> Option<u32> {
        match self.parameters.iter().find(|(found, _)| found == name) {
            Some((_, value)) => value.parse().ok(),
            None => default,
        }
    }
}

/// The inside of a quoted string, and what follows its closing quote.
fn quoted_string(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            ' '..='~' | '\t' => value.push(character),
            _ => return None,
        }
    }
    None
}

fn restricted_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
}

fn token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

const PCM: u16 = 1;
const FLOAT: u16 = 3;
const ALAW: u16 = 6;
const MULAW: u16 = 7;
const EXTENSIBLE: u16 = 0xfffe;
/// What follows the format tag in the sub-format of the extensible form.
const SUBFORMAT: [u8; 14] = [0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71];

/// What a RIFF header tells.
struct Wav<'a> {
    /// The body of the format chunk.
    format: &'a [u8],
    tag: u16,
    rate: u32,
    frame: u32,
    data_start: usize,
    data_len: Option<u64>,
}

impl<'a> Wav<'a> {
    fn parse(head: &'a [u8]) -> Option<Self> {
        let head = &head[..head.len().min(HEAD)];
        // RF64 is RIFF with sizes kept elsewhere; its own are 0xffffffff, which is to the end here.
        if !(head.starts_with(b"RIFF") || head.starts_with(b"RF64")) || head.get(8..12)? != b"WAVE" {
            return None;
        }
        let mut at = 12;
        let mut format = None;
        loop {
            let id = head.get(at..at + 4)?;
            let size = le32(head, at + 4)?;
            let body = at + 8;
            match id {
                b"data" => {
                    let (format, tag, rate, frame) = format?;
                    let data_len = (!matches!(size, 0 | u32::MAX)).then_some(u64::from(size));
                    return Some(Self { format, tag, rate, frame, data_start: body, data_len });
                }
                b"fmt " if format.is_none() => {
                    let bytes = head.get(body..body.checked_add(size as usize)?)?;
                    format = Some(Self::format(bytes)?);
                }
                _ => {}
            }
            // Chunks lie on even places.
            at = body.checked_add(size as usize)?.checked_add(size as usize % 2)?;
            if at > head.len() {
                return None;
            }
        }
    }

    /// Tag, rate and frame of a format chunk.
    fn format(bytes: &'a [u8]) -> Option<(&'a [u8], u16, u32, u32)> {
        let mut tag = le16(bytes, 0)?;
        let channels = u32::from(le16(bytes, 2)?);
        let rate = le32(bytes, 4)?;
        let block = u32::from(le16(bytes, 12)?);
        let bits = u32::from(le16(bytes, 14)?);
        if tag == EXTENSIBLE {
            if bytes.get(26..40)? != SUBFORMAT {
                return None;
            }
            tag = le16(bytes, 24)?;
        }
        let known = match tag {
            PCM => (1..=64).contains(&bits),
            FLOAT => bits == 32 || bits == 64,
            ALAW | MULAW => bits == 8,
            _ => false,
        };
        let frame = channels * bits.div_ceil(8);
        let sane = (1..=MAX_RATE).contains(&rate) && (1..=MAX_CHANNELS).contains(&channels) && frame == block;
        (known && sane).then_some((bytes, tag, rate, frame))
    }
}

fn le16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A WAV header as recorders write it.
    fn wav(tag: u16, channels: u16, rate: u32, bits: u16, data: u32) -> Vec<u8> {
        let block = channels * bits.div_ceil(8);
        let mut head = b"RIFF\x08\0\0\0WAVEfmt \x10\0\0\0".to_vec();
        head.extend(tag.to_le_bytes());
        head.extend(channels.to_le_bytes());
        head.extend(rate.to_le_bytes());
        head.extend((rate * u32::from(block)).to_le_bytes());
        head.extend(block.to_le_bytes());
        head.extend(bits.to_le_bytes());
        head.extend(b"data");
        head.extend(data.to_le_bytes());
        head
    }

    #[test]
    fn raw_telephony_knows_its_rate() {
        let alaw = layout("audio/PCMA", &[]).expect("known");
        assert_eq!(alaw.duration(16_000), 2.0);
        assert_eq!(alaw.byte_range(0.5, 1.0, 16_000), 4000..8000);
        let wide = layout("audio/L16;rate=16000;channels=2", &[]).expect("known");
        assert_eq!((wide.frame, wide.bytes_per_second), (4, 64_000.0));
        assert_eq!(layout("audio/pcmu; rate=\"16000\"", &[]).expect("known").bytes_per_second, 16_000.0);
        assert_eq!(layout("audio/L16", &[]), None, "RFC 2586 makes the rate mandatory");
        assert_eq!(layout("audio/L16;rate=0", &[]), None);
        assert_eq!(layout("audio/PCMA;rate=x", &[]), None);
        assert_eq!(layout("audio/PCMA;channels=0", &[]), None);
        assert_eq!(layout("audio/ogg", &[]), None);
    }

    #[test]
    fn a_live_header_means_to_the_end() {
        for said in [0, u32::MAX] {
            let found = layout("audio/x-wav", &wav(1, 1, 8000, 16, said)).expect("known");
            assert_eq!((found.data_start, found.data_len), (44, None));
            assert_eq!(found.duration(44 + 16_000), 1.0);
        }
        let found = layout("audio/wav", &wav(1, 1, 8000, 16, 32_000)).expect("known");
        assert_eq!(found.duration(44 + 16_000), 1.0, "never more than there is");
        assert_eq!(found.duration(44 + 32_000 + 100), 2.0, "chunks behind the samples are no samples");
        assert_eq!(found.duration(10), 0.0);
    }

    #[test]
    fn every_known_coding_is_measured() {
        for (tag, bits, frame) in [(1, 8, 2), (1, 16, 4), (1, 24, 6), (3, 32, 8), (6, 8, 2), (7, 8, 2)] {
            let found = layout("audio/vnd.wave", &wav(tag, 2, 44_100, bits, 0)).expect("known");
            assert_eq!((found.frame, found.bytes_per_second), (frame, 44_100.0 * f64::from(frame)));
        }
        assert_eq!(layout("audio/wav", &wav(0x31, 1, 8000, 0, 0)), None, "GSM has no constant sample size");
        assert_eq!(layout("audio/wav", &wav(1, 0, 8000, 16, 0)), None);
        assert_eq!(layout("audio/wav", &wav(1, 1, 0, 16, 0)), None);
    }

    #[test]
    fn chunks_before_the_samples_are_walked() {
        let plain = wav(7, 1, 8000, 8, 4);
        let odd =
            [&plain[..12], b"LIST\x03\0\0\0abc\0", &plain[12..36], b"fact\x04\0\0\0\x04\0\0\0", &plain[36..]].concat();
        let found = layout("audio/wav", &odd).expect("known");
        assert_eq!((found.data_start, found.data_len), (odd.len() as u64, Some(4)));
        let unsized_format = [&plain[..12], &plain[36..]].concat();
        assert_eq!(layout("audio/wav", &unsized_format), None, "samples before their format");
    }

    #[test]
    fn the_extensible_form_names_its_coding_inside() {
        let mut head = b"RIFF\0\0\0\0WAVEfmt \x28\0\0\0\xfe\xff\x01\0".to_vec();
        head.extend(48_000_u32.to_le_bytes());
        head.extend(144_000_u32.to_le_bytes());
        head.extend([3, 0, 24, 0, 22, 0, 24, 0, 4, 0, 0, 0, 1, 0]);
        head.extend(SUBFORMAT);
        head.extend(b"data\0\0\0\0");
        assert_eq!(layout("audio/wav", &head).expect("known").frame, 3);
        head[60 - 1] ^= 1;
        assert_eq!(layout("audio/wav", &head), None);
    }

    #[test]
    fn a_cut_has_a_header_of_the_same_format() {
        for tag in [1, 6] {
            let bits = if tag == 1 { 16 } else { 8 };
            let head = wav(tag, 1, 8000, bits, 0);
            let cut = wav_header_for(&head, 800);
            assert_eq!(cut[4..8], (cut.len() as u32 - 8 + 800).to_le_bytes());
            let (before, after) =
                (layout("audio/wav", &head).expect("known"), layout("audio/wav", &cut).expect("known"));
            assert_eq!(after.data_len, Some(800));
            assert_eq!(after.data_start, cut.len() as u64);
            assert_eq!((after.frame, after.bytes_per_second), (before.frame, before.bytes_per_second));
        }
        assert_eq!(wav_header_for(b"raw samples", 800), b"");
    }

    #[test]
    fn times_outside_of_a_recording_are_its_ends() {
        let found = layout("audio/wav", &wav(1, 1, 8000, 16, 0)).expect("known");
        let total = 44 + 16_001;
        assert_eq!(found.byte_range(0.0, f64::INFINITY, total), 44..44 + 16_000, "whole frames only");
        assert_eq!(found.byte_range(-5.0, 0.1, total), 44..44 + 1600);
        assert_eq!(found.byte_range(9.0, 10.0, total), 44 + 16_000..44 + 16_000);
        assert_eq!(found.byte_range(0.5, 0.2, total), 44 + 8000..44 + 8000);
        assert_eq!(found.byte_range(f64::NAN, f64::NAN, total), 44..44);
        assert_eq!(found.byte_range(0.0, 1.0, 3), 44..44);
    }

    #[test]
    fn media_types_are_those_of_rfc_6838() {
        for good in ["audio/wav", "audio/L16;rate=8000", "text/plain; charset=\"utf-8; x\"", "video/mp4 ; a=b;c=d"] {
            assert!(validate_media_type(good), "{good}");
        }
        let long = format!("audio/{}", "x".repeat(122));
        for bad in [
            "",
            "audio",
            "audio/",
            "/wav",
            "audio/wav;",
            "audio/wav;rate",
            "audio/wav;rate=",
            "audio/w\u{e4}v",
            "audio/wav; a=\"b",
            "audio/wav\r\nx: y",
            "audio/wav;a=b\n",
            "-a/b",
            "a/b c",
            "a/b;c=\"d\"e",
            "a/b/c",
            &long,
        ] {
            assert!(!validate_media_type(bad), "{bad:?}");
        }
        assert!(validate_media_type(&long[..127]));
    }

    proptest! {
        #[test]
        fn hostile_input_never_panics(media: String, head: Vec<u8>, total: u64, from: f64, to: f64, cut: u32) {
            let _ = validate_media_type(&media);
            let _ = layout(&media, &head);
            let riff = [b"RIFF\0\0\0\0WAVE".as_slice(), &head].concat();
            for bytes in [&head, &riff] {
                let _ = wav_header_for(bytes, cut);
                if let Some(found) = layout("audio/wav", bytes) {
                    let range = found.byte_range(from, to, total);
                    prop_assert!(range.start <= range.end && found.duration(total).is_finite());
                }
            }
        }

        #[test]
        fn a_damaged_header_still_gives_ranges_inside(at in 0..44_usize, byte: u8, total in 0..100_000_u64, from in -1.0..9e9, to: f64) {
            let mut head = wav(1, 2, 8000, 16, 4000);
            head[at] = byte;
            let _ = wav_header_for(&head, 7);
            if let Some(found) = layout("audio/wav", &head) {
                let range = found.byte_range(from, to, total);
                prop_assert!(range.end <= total.max(found.data_start));
                prop_assert_eq!((range.end - range.start) % u64::from(found.frame), 0);
                let parts = found.byte_range(0.0, from, total).end;
                prop_assert_eq!(parts, range.start, "neighbouring cuts meet");
            }
        }
    }
}
