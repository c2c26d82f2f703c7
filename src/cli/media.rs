//! The media type of a file, by its first bytes or its ending. Where neither tells, it is bytes.

use std::path::Path;

/// Guesses.
pub fn guess(path: &Path, head: &[u8]) -> &'static str {
    match head {
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => return "audio/wav",
        [b'O', b'g', b'g', b'S', ..] => return "audio/ogg",
        [b'f', b'L', b'a', b'C', ..] => return "audio/flac",
        [b'I', b'D', b'3', ..] => return "audio/mpeg",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => return "video/mp4",
        _ => {}
    }
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    match ending.as_str() {
        "al" | "alaw" => "audio/PCMA;rate=8000",
        "ul" | "ulaw" | "mulaw" | "pcmu" => "audio/PCMU;rate=8000",
        "gsm" => "audio/GSM;rate=8000",
        "g722" => "audio/G722;rate=8000",
        "g729" => "audio/G729;rate=8000",
        "mp3" => "audio/mpeg",
        "opus" => "audio/ogg",
        "webm" => "video/webm",
        "txt" => "text/plain",
        "vtt" => "text/vtt",
        "json" => "application/json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_wins_over_the_ending() {
        assert_eq!(guess(Path::new("x.al"), b"RIFF\0\0\0\0WAVEfmt "), "audio/wav");
        assert_eq!(guess(Path::new("x.AL"), b"\xd5\xd5"), "audio/PCMA;rate=8000");
        assert_eq!(guess(Path::new("x.ul"), b""), "audio/PCMU;rate=8000");
        assert_eq!(guess(Path::new("x"), b"?"), "application/octet-stream");
    }
}
