//! Forms of a credential that a peer may send back: the parts that it extracts from it, and their Base64 and
//! hexadecimal forms. `mask` handles how the characters of those are escaped.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

use super::BYTES_MIN;

/// The shortest value within a credential (`session=…; id=…`) that is searched on its own; shorter ones are words.
const VALUE_BYTES_MIN: usize = 6;
/// The most such values; a cookie has a few.
const VALUES_MAX: usize = 16;

/// Peers may decode Base64 leniently.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// One form of a credential, compared without regard to case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Spelling {
    /// At least [`BYTES_MIN`] of them.
    pub bytes: Vec<u8>,
    /// It may be a part of a longer text in Base64.
    pub base64: bool,
}

/// All forms of `secrets` worth searching in a text of `text_bytes`, each once.
pub fn spellings<'s>(secrets: impl Iterator<Item = &'s str>, text_bytes: usize) -> HashSet<Spelling> {
    let parts: HashSet<String> = secrets.flat_map(parts).filter(|part| part.len() >= BYTES_MIN).collect();
    let mut out = HashSet::new();
    let mut add = |bytes: Vec<u8>, base64| {
        if bytes.len() >= BYTES_MIN {
            out.insert(Spelling { bytes, base64 });
        }
    };
    for part in &parts {
        add(part.clone().into_bytes(), false);
        if !part.is_ascii() {
            add(part.to_lowercase().into_bytes(), false);
            add(part.to_uppercase().into_bytes(), false);
        }
        // Of a part that is longer than the text, only the beginning can be in it.
        let start = &part.as_bytes()[..part.len().min(text_bytes)];
        add(hex(start), false);
        for offset in 0..3 {
            let encoded = base64_within(start, offset);
            if encoded.contains(['+', '/']) {
                add(encoded.replace('+', "-").replace('/', "_").into_bytes(), true);
            }
            add(encoded.into_bytes(), true);
        }
    }
    out
}

/// The parts into which a peer may split a credential: without its scheme, the pair of a Basic one and its password,
/// the values of a cookie.
fn parts(secret: &str) -> Vec<String> {
    let bare = secret.rsplit(' ').next().unwrap_or(secret);
    let mut parts = vec![secret.to_owned(), bare.to_owned()];
    if let Some((scheme, encoded)) = secret.split_once(' ')
        && scheme.eq_ignore_ascii_case("basic")
        && let Ok(pair) = LENIENT.decode(encoded.trim())
        && let Ok(pair) = String::from_utf8(pair)
    {
        parts.extend(pair.split_once(':').map(|(_, password)| password.to_owned()));
        parts.push(pair);
    }
    let values = secret.split([';', ',', '&', ' ']).filter_map(|part| part.split_once('='));
    let values = values.map(|(_, value)| value.trim_matches(['"', '=', ' ']));
    parts.extend(values.filter(|value| value.len() >= VALUE_BYTES_MIN).take(VALUES_MAX).map(str::to_owned));
    parts
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]).collect()
}

/// The Base64 digits that encode only `bytes` at an `offset` (0 to 2) after a multiple of three in the encoded text;
/// the first and the last digit are left out if they hold bits of their neighbours.
fn base64_within(bytes: &[u8], offset: usize) -> String {
    let text: Vec<u8> = std::iter::repeat_n(0, offset).chain(bytes.iter().copied()).collect();
    let encoded = STANDARD.encode(&text);
    let (first, end) = ((offset * 8).div_ceil(6), text.len() * 8 / 6);
    encoded.get(first..end).unwrap_or("").to_owned()
}
