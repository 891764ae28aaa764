//! Every way to write a secret down, alone and mixed, whole and cut.

use proptest::prelude::*;

use super::*;

fn shown(text: &str, secrets: &[&str]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    mask_all(&mut bytes, secrets.iter().copied());
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_secret_is_found_however_it_is_written() {
    for (text, secret, expected) in [
        ("bad tok/SECRET!", "tok/SECRET", "bad ***!"),
        (r#"{"m":"bad tok\/SECRET"}"#, "tok/SECRET", r#"{"m":"bad ***"}"#),
        (r"tok\u002fSECRET, tok\u002FSECRET, tok\x2fSECRET", "tok/SECRET", "***, ***, ***"),
        (r"\u0074\u006f\u006B/SECRET", "tok/SECRET", "***"),
        ("a=tok%2FSECRET&b=tok%2fSECRET", "tok/SECRET", "a=***&b=***"),
        ("<p>tok&#47;SECRET tok&#x2f;SECRET tok&#X002F;SECRET</p>", "tok/SECRET", "<p>*** *** ***</p>"),
        ("a&quot;b&amp;c&lt;d&gt;e&apos;f&QUOT;!", "a\"b&c<d>e'f\"", "***!"),
        (r#"a\"b\\c\'d"#, r#"a"b\c'd"#, "***"),
        ("Bearer+x+y+zzz", "Bearer x y zzz", "***"),
        ("wrong token%3D%2Bab", "token=+ab", "wrong ***"),
        // Mixed, and one within the other.
        (r"t%6Fk\/S&#69;C\u0052ET", "tok/SECRET", "***"),
        (r#"{"m":"{\"n\":\"tok\\\/SECRET\"}"}"#, "tok/SECRET", r#"{"m":"{\"n\":\"***\"}"}"#),
        (r"tok\\\\\\\/SECRET", "tok/SECRET", "***"),
        ("tok%252FSECRET tok%25252FSECRET", "tok/SECRET", "*** ***"),
        (r"a\u0026quot;b\u0026#34;c &amp;quot;", "a\"b\"c", "*** &amp;quot;"),
        (r"a%5Cu002Fbc a&#92;/bc", "a/bc", "*** ***"),
        // Characters beyond ASCII, in all lengths.
        (r"p\u00e4ss\u20ac\ud83d\ude00 p%C3%A4ss%e2%82%ac%F0%9F%98%80", "päss€😀", "*** ***"),
        (r"p&#228;ss&#x20AC;&#128512; p\u{e4}ss\u{20AC}\u{1f600}", "päss€😀", "*** ***"),
        // What only looks like an escape is meant as it stands, too.
        (r"100%41\u0041&lt;", r"100%41\u0041&lt;", "***"),
        (r"100%2541\\u0041&amp;lt;", r"100%41\u0041&lt;", "***"),
        (r"ends in \\, end", r"in \", "ends ***, end"),
        (r"\\\\\\\\.", r"\\\\", "***."),
        // Several, of which one begins or contains the other.
        ("abcdefgh, abcd", "abcd", "***efgh, ***"),
        (
            "nothing % & \\ of it %zz &#; \\u12 &nope; \\ud800x",
            "s3cret",
            "nothing % & \\ of it %zz &#; \\u12 &nope; \\ud800x",
        ),
        ("a, b, c", "a", "a, b, c"),
        ("", "s3cret", ""),
    ] {
        assert_eq!(shown(text, &[secret]), expected, "{text} without {secret}");
    }
    assert_eq!(shown("abcdefgh, abcd", &["abcd", "abcdefgh"]), "***, ***");
    assert_eq!(shown("s3crets3cret", &["s3cret", "Bearer s3cret"]), "******");
}

#[test]
fn a_secret_that_the_end_has_cut_is_masked_with_what_is_left_of_an_escape() {
    for text in [
        "tok/",
        "tok/S",
        r"tok\/",
        r"tok/\",
        r"tok/\u",
        r"tok/\u005",
        "tok%2F%",
        "tok%2F%5",
        "tok%2F&",
        "tok/&#x5",
        "tok/&am",
        r"tok\\\/",
        r"tok/\\u",
        "tok/%25",
        "tok/%255",
        "tok/&amp;#8",
    ] {
        assert_eq!(shown(&format!("bad: {text}"), &["tok/SECRET"]), "bad: ***", "{text}");
        assert_eq!(shown(&format!("bad: {text}…\" at line 1"), &["tok/SECRET"]), "bad: ***…\" at line 1", "{text}");
    }
    assert_eq!(shown("tok", &["tok/SECRET"]), "tok");
    assert_eq!(shown(r"p\u00e4ss\ud83d", &["päss😀"]), "***");
    assert_eq!(shown(r"p\u00e4ss\ud83d\ude", &["päss😀"]), "***");
    assert_eq!(shown("tok/SECRET… and more", &["tok/SECRET…"]), "*** and more");
}

#[test]
fn long_texts_and_long_secrets_can_be_looked_through() {
    for secret in ["a".repeat(64 << 10), "%25".repeat(20 << 10)] {
        let text = &secret[..1025];
        assert_eq!(shown(text, &[&secret]), "***");
        assert_eq!(shown(&format!("{text} no"), &[&secret]), format!("{text} no"));
    }
}

/// One character, written in the given way; those that this way cannot write, as they are.
fn written(c: char, way: u8) -> String {
    let mut buffer = [0; 4];
    let utf8 = c.encode_utf8(&mut buffer).as_bytes();
    let code = u32::from(c);
    match way {
        0 => c.to_string(),
        1 => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
        2 => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04X}")).collect(),
        3 => utf8.iter().map(|byte| format!("%{byte:02X}")).collect(),
        4 => utf8.iter().map(|byte| format!("%{byte:02x}")).collect(),
        5 => format!("&#{code};"),
        6 => format!("&#x{code:x};"),
        7 if c.is_ascii_punctuation() => format!("\\{c}"),
        7 => format!("\\u{{{code:x}}}"),
        _ => match c {
            '"' => "&quot;".to_owned(),
            '&' => "&amp;".to_owned(),
            '\'' => "&apos;".to_owned(),
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            c => c.to_string(),
        },
    }
}

/// The whole text, escaped once more in the way that its carrier asks for.
fn carried(text: &str, way: u8) -> String {
    match way {
        0 => text.to_owned(),
        1 => text.chars().map(|c| if matches!(c, '"' | '\\' | '/') { format!("\\{c}") } else { c.into() }).collect(),
        2 => text.chars().map(|c| if c.is_alphanumeric() { c.into() } else { written(c, 3) }).collect(),
        _ => text.chars().map(|c| if "&<>\"'".contains(c) { written(c, 8) } else { c.into() }).collect(),
    }
}

proptest! {
    /// Around the secret stand characters that are in no secret: the mask has to begin and end exactly at it.
    #[test]
    fn no_spelling_of_a_secret_gets_through(
        secret in r#"[a-c/"+%&;\\#0-4uxü€😀=]{6,40}|\PC{6,40}"#,
        ways in prop::collection::vec(0..9u8, 40),
        carrier in 0..4u8,
        cut in any::<prop::sample::Index>(),
    ) {
        let spelled: Vec<String> = secret.chars().zip(&ways).map(|(c, way)| carried(&written(c, *way), carrier)).collect();
        let whole = spelled.concat();
        prop_assert_eq!(shown(&format!("\u{1}{whole}\u{2}"), &[&secret]), "\u{1}***\u{2}", "{}", whole);

        let mut left = cut.index(whole.len());
        let mut cut = format!("\u{1}{whole}").into_bytes();
        cut.truncate(1 + left);
        let come = secret.chars().zip(&spelled).take_while(|(_, spelled)| {
            let fits = spelled.len() <= left;
            left = left.saturating_sub(spelled.len());
            fits
        });
        if come.map(|(c, _)| c.len_utf8()).sum::<usize>() >= BYTES_MIN {
            mask_all(&mut cut, [&*secret].into_iter());
            prop_assert_eq!(cut, b"\x01***", "{}", whole);
        }
    }

    /// Whatever a peer sends, it is masked at most, and what is not the secret stays.
    #[test]
    fn any_text_can_be_looked_through(text in r"[\\%&#;ux0-9a-fqt+…]{0,200}|\PC{0,200}") {
        prop_assert_eq!(shown(&text, &["\u{1}\u{1}\u{1}\u{1}"]), text);
    }
}
