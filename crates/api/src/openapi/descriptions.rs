//! Upstream's descriptions, unpacked for as long as a document is being built.

use std::collections::HashMap;
use std::io::Read;

static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.gz"));

/// Empty where the build found none.
pub(super) struct Descriptions {
    text: String,
    /// Where in the text a type's lines begin.
    types: HashMap<String, usize>,
}

impl Descriptions {
    pub fn load() -> Self {
        let mut text = String::new();
        if flate2::read::GzDecoder::new(PACKED).read_to_string(&mut text).is_err() {
            text.clear();
        }
        let mut types = HashMap::new();
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            if let Some((name, _)) = line.strip_prefix('T').and_then(|line| line.split_once('\t')) {
                types.insert(name.to_owned(), at);
            }
            at += line.len();
        }
        Self { text, types }
    }

    pub fn of_type(&self, name: &str) -> Option<String> {
        let line = self.text[*self.types.get(name)?..].lines().next()?;
        let (_, text) = line.split_once('\t')?;
        (!text.is_empty()).then(|| plain(text))
    }

    /// Of all fields of a type.
    pub fn of_fields(&self, name: &str) -> HashMap<&str, String> {
        let Some(at) = self.types.get(name) else { return HashMap::new() };
        let lines = self.text[*at..].lines().skip(1).map_while(|line| line.strip_prefix('F')?.split_once('\t'));
        lines.map(|(field, text)| (field, plain(text))).collect()
    }
}

/// Undoes a string literal's escapes.
fn plain(literal: &str) -> String {
    let mut text = String::with_capacity(literal.len());
    let mut chars = literal.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some(other) => text.push(other),
                None => {}
            },
            c => text.push(c),
        }
    }
    text
}
