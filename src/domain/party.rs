//! How a party's number is spelled: one plain spelling, so that a hold on a number finds it however a switch wrote it.
//!
//! What it does not do: it knows no numbering plan. A number without its country code is another number than one with it.

/// The plain spelling of a party: of a number, digits with a leading `+` where there was one (or `00`); of anything else,
/// its text in lower case. `tel:` and `sip:` in front go, and so do parameters behind and, for a number, its host.
pub fn plain(text: &str) -> String {
    let lower = text.trim().to_lowercase();
    let bare = ["tel:", "sips:", "sip:"].iter().find_map(|scheme| lower.strip_prefix(scheme)).unwrap_or(&lower);
    let bare = bare.split(';').next().unwrap_or_default().trim();
    let user = bare.split('@').next().unwrap_or_default();
    match number(user) {
        Some(number) => number,
        None => bare.to_owned(),
    }
}

/// Digits and what people put between them; none for anything else.
fn number(text: &str) -> Option<String> {
    let (international, rest) = match text.strip_prefix('+') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut digits = String::with_capacity(text.len());
    for c in rest.chars() {
        match c {
            '0'..='9' => digits.push(c),
            ' ' | '-' | '.' | '(' | ')' | '/' | '\u{a0}' => {}
            _ => return None,
        }
    }
    if digits.is_empty() {
        return None;
    }
    let number = match digits.strip_prefix("00") {
        Some(rest) if !international && !rest.is_empty() => format!("+{rest}"),
        _ if international => format!("+{digits}"),
        _ => digits,
    };
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_has_one_spelling() {
        for text in [
            "+44 20 7946 0000",
            "+442079460000",
            "0044 20-7946-0000",
            "tel:+44-20-7946-0000;phone-context=x",
            "SIP:+442079460000@pbx.example;transport=tls",
            " +44 (20) 7946.0000 ",
        ] {
            assert_eq!(plain(text), "+442079460000", "{text}");
        }
    }

    #[test]
    fn different_parties_stay_different() {
        let parties = ["+442079460000", "442079460000", "02079460000", "alice@example", "alice", "bob", "1001"];
        for (i, a) in parties.iter().enumerate() {
            for b in &parties[i + 1..] {
                assert_ne!(plain(a), plain(b));
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn hostile_text_has_a_plain_spelling_that_stays(text: String) {
            let once = plain(&text);
            // A scheme within a scheme is peeled once more; everything else is settled.
            proptest::prop_assert!(plain(&once).len() <= once.len().max(1) + 1);
        }
    }
}
