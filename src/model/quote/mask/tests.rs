//! Every way to write a secret, alone and mixed, whole and cut.

use proptest::prelude::*;

use super::*;

fn shown(text: &str, secrets: &[&str]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    mask_all(&mut bytes, secrets.iter().copied());
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_secret_is_masked_in_every_encoding() {
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
        // What only looks like an escape is also taken literally.
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

#[test]
fn a_secret_is_found_encoded() {
    // `tok/SECRET?é` in every alphabet, padded or not, at every offset, and with its neighbours.
    let secret = "tok/SECRET?\u{e9}>";
    for (text, expected) in [
        ("a dG9rL1NFQ1JFVD/DqT4= b", "a *** b"),
        ("a dG9rL1NFQ1JFVD_DqT4 b", "a *** b"),
        ("a dG9rL1NFQ1JFVD\\/DqT4\\u003d b", "a ***\\u003d b"),
        ("a dG9rL1NFQ1JFVD%2FDqT4 b", "a *** b"),
        ("746f6b2f5345435245543fc3a93e, 746F6B2F5345435245543FC3A93E", "***, ***"),
        ("TOK/secret?\u{e9}> TOK/SECRET?\u{c9}> Tok%2FSecret?%c3%a9>", "*** *** ***"),
    ] {
        assert_eq!(shown(text, &[secret]), expected, "{text}");
    }
}

#[test]
fn a_decoded_basic_credential_is_masked_too() {
    // user:pa55word
    let basic = "Basic dXNlcjpwYTU1d29yZA==";
    for text in [
        "dXNlcjpwYTU1d29yZA==",
        "DXNLCJPWYTU1D29YZA==",
        "user:pa55word",
        "pa55word",
        "PA55WORD",
        "USER:pa55word",
        "cGE1NXdvcmQ=",
        "cGE1NXdvcmQ",
        "70613535776f7264",
        "user%3Apa55word",
        "user\\u003apa55word",
    ] {
        let said = shown(&format!("no: {text}."), &[basic]);
        assert_eq!(said, "no: ***.", "{text}");
    }
    assert_eq!(shown("no: pa55word", &["basic dXNlcjpwYTU1d29yZA"]), "no: ***", "any case, and without padding");
    assert_eq!(shown("user is unknown", &[basic]), "user is unknown", "a user name is not a secret");
    assert_eq!(shown("a pin of 123 is short", &["Basic dXNlcjoxMjM="]), "a pin of 123 is short", "below the floor");
}

#[test]
fn the_values_of_a_cookie_are_found_by_themselves() {
    let cookie = "session=abcdef123; theme=dark; id=\"xyz987\"";
    assert_eq!(shown("{\"session\":\"abcdef123\"} dark xyz987", &[cookie]), "{\"session\":\"***\"} dark ***");
}

/// Base64 as a peer may write it: alphabet and padding.
fn base64_of(bytes: &[u8], way: u8) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose as engines;
    match way {
        0 => engines::STANDARD.encode(bytes),
        1 => engines::STANDARD_NO_PAD.encode(bytes),
        2 => engines::URL_SAFE.encode(bytes),
        _ => engines::URL_SAFE_NO_PAD.encode(bytes),
    }
}

/// One character, written in the given way; characters that this way cannot write stay as they are.
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

/// The whole text, escaped once more as its carrier requires.
fn carried(text: &str, way: u8) -> String {
    match way {
        0 => text.to_owned(),
        1 => text.chars().map(|c| if matches!(c, '"' | '\\' | '/') { format!("\\{c}") } else { c.into() }).collect(),
        2 => text.chars().map(|c| if c.is_alphanumeric() { c.into() } else { written(c, 3) }).collect(),
        _ => text.chars().map(|c| if "&<>\"'".contains(c) { written(c, 8) } else { c.into() }).collect(),
    }
}

proptest! {
    /// The characters around the secret occur in no secret, so the mask must begin and end exactly at it.
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

    /// With any text around the secret before encoding, at most the digits with some bits of it are left.
    #[test]
    fn no_encoding_of_a_secret_gets_through(
        secret in r#"[a-zA-Z0-9/"+%&;_-]{8,40}|\PC{8,40}"#,
        before in "[a-z ]{0,7}",
        after in "[a-z ]{0,7}",
        way in 0..4u8,
    ) {
        let whole = format!("{before}{secret}{after}");
        let text = format!("<{}>", base64_of(whole.as_bytes(), way));
        let said = shown(&text, &[&secret]);
        let (digits_before, digits_after) = (before.len() * 8 / 6, after.len() * 8 / 6);
        let left: String = said.replace("***", "").chars().filter(|c| !"<=>".contains(*c)).collect();
        prop_assert!(said.contains("***") && left.len() <= digits_before + digits_after + 1, "{} is shown as {}", text, said);
        let hex: String = whole.bytes().map(|byte| format!("{byte:02x}")).collect();
        let said = shown(&hex.to_uppercase(), &[&secret]);
        prop_assert_eq!(said.len(), 2 * (before.len() + after.len()) + 3, "{} is shown as {}", hex, said);
    }

    /// Any text from a peer is at most masked, and what is not the secret stays.
    #[test]
    fn any_text_can_be_looked_through(text in r"[\\%&#;ux0-9a-fqt+…]{0,200}|\PC{0,200}") {
        prop_assert_eq!(shown(&text, &["\u{1}\u{1}\u{1}\u{1}"]), text);
    }
}
