//! Words wrapped at a width, and indented lines; breaks where github.com/mitchellh/go-wordwrap does.

/// Spaces at a break are lost; a word longer than the width stays whole; line ends stay.
pub fn wrap(width: usize, text: &str) -> String {
    const NO_BREAK_SPACE: char = '\u{a0}';
    let mut out = String::with_capacity(text.len() + text.len() / width.max(1));
    let (mut word, mut spaces) = (String::new(), String::new());
    let (mut column, mut word_width, mut spaces_width) = (0, 0, 0);
    for c in text.chars() {
        if c == '\n' {
            if !word.is_empty() || column + spaces_width <= width {
                out.push_str(&spaces);
                out.push_str(&word);
            }
            word.clear();
            spaces.clear();
            (column, word_width, spaces_width) = (0, 0, 0);
            out.push(c);
        } else if c.is_whitespace() && c != NO_BREAK_SPACE {
            if spaces.is_empty() || !word.is_empty() {
                column += spaces_width + word_width;
                out.push_str(&spaces);
                out.push_str(&word);
                word.clear();
                spaces.clear();
                (word_width, spaces_width) = (0, 0);
            }
            spaces.push(c);
            spaces_width += 1;
        } else {
            word.push(c);
            word_width += 1;
            if column + word_width + spaces_width > width && word_width < width {
                out.push('\n');
                column = 0;
                spaces.clear();
                spaces_width = 0;
            }
        }
    }
    if !word.is_empty() || column + spaces_width <= width {
        out.push_str(&spaces);
        out.push_str(&word);
    }
    out
}

/// Every line, empty ones too.
pub fn indent(width: usize, text: &str) -> String {
    let margin = " ".repeat(width);
    format!("{margin}{}", text.replace('\n', &format!("\n{margin}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_wrap() {
        for (width, text, want) in [(5, "aa bb cc", "aa bb\ncc"), (5, "aaaaaaaa b", "aaaaaaaa\nb"), (5, "a\n\nb", "a\n\nb"), (8, "aa  bb  cc", "aa  bb\ncc"), (5, "aa\n", "aa\n")] {
            assert_eq!(wrap(width, text), want, "{text:?}");
        }
        assert_eq!(indent(2, "a\n\nb"), "  a\n  \n  b");
    }
}
