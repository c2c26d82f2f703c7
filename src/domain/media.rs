//! Media types that tell their rate, and WAV headers.
